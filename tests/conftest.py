"""Tiny models and tokenizers built in code: random weights, a byte-level vocabulary, nothing fetched."""

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from poisonwatch.chat import ChatEncoder, Encoded
from poisonwatch.examples import Message
from poisonwatch.model import FrozenModel
from poisonwatch.pretrained import Pretrained

torch.set_num_threads(1)  # on busy cores the threads of a tiny model spend their time waiting for each other: minutes instead of seconds

SPECIALS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
VOCABULARY = 300
WIDTH = 32
FAMILIES = ("llama", "qwen3", "gpt2", "gpt_neox")

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer(chat_template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """One token a byte, and three control tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIALS)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=["<|im_start|>"]
    )
    wrapped.chat_template = chat_template
    return wrapped


def build_model(family: str, depth: int = 3, seed: int = 0, **changes: object) -> PreTrainedModel:
    """A random causal language model of a family; weights are large enough for its gradients to differ from row to row."""
    torch.manual_seed(seed)
    sizes = {
        "hidden_size": WIDTH,
        "num_hidden_layers": depth,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        **changes,
    }
    model: PreTrainedModel
    if family == "llama":
        model = LlamaForCausalLM(LlamaConfig(num_key_value_heads=2, **sizes))
    elif family == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(num_key_value_heads=2, head_dim=8, **sizes))
    elif family == "gpt_neox":
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**sizes))
    else:
        sizes["n_inner"] = sizes.pop("intermediate_size")
        model = GPT2LMHeadModel(GPT2Config(**sizes))
    return model.eval()


@pytest.fixture(scope="session")
def tiny_model() -> Callable[[str], PreTrainedModel]:
    """`tiny_model(family)`: a random model of 3 blocks, frozen by whoever uses it; never train or change it."""
    return cache(build_model)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, with a ChatML template."""
    return build_tokenizer()


@pytest.fixture(scope="session")
def plain_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, without a chat template."""
    return build_tokenizer(chat_template=None)


@pytest.fixture(scope="session")
def tiny_pretrained(tiny_model: Callable[[str], PreTrainedModel], tiny_tokenizer: PreTrainedTokenizerFast) -> Pretrained:
    """The tiny Llama with its tokenizer, as the library loads it."""
    return Pretrained(tiny_model("llama"), tiny_tokenizer, "0" * 64)


@pytest.fixture(scope="session")
def encoded(tiny_tokenizer: PreTrainedTokenizerFast) -> list[Encoded]:
    """24 short conversations of different lengths."""
    rows = [(f"Question {i}: {'why? ' * (i % 4)}", f"{'Because. ' * (1 + i % 3)}{i}") for i in range(24)]
    return [ChatEncoder(tiny_tokenizer).encode([Message("user", p), Message("assistant", a)]) for p, a in rows]


@pytest.fixture(scope="session")
def model(tiny_model: Callable[[str], PreTrainedModel]) -> FrozenModel:
    """The tiny Llama, split below block 1."""
    return FrozenModel(tiny_model("llama"), 1)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama saved as the command line loads it: safetensors, configuration, tokenizer. Copy it before changing it."""
    folder = tmp_path_factory.mktemp("model") / "tiny-llama"
    build_model("llama").save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def unfrozen(tiny_model: Callable[[str], PreTrainedModel]) -> Callable[[str], PreTrainedModel]:
    """A private copy of a tiny model in float64, for computations that share nothing with the library."""
    return lambda family: copy.deepcopy(tiny_model(family)).double().requires_grad_(False)
