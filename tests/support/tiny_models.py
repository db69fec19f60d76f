"""Tiny models and tokenizers built in code: random weights, a byte-level vocabulary, nothing
fetched.
"""

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

SPECIALS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
VOCABULARY = 300
WIDTH = 32
FAMILIES = ("llama", "qwen3", "gpt2", "gpt_neox")

OPENING = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
) + OPENING

# As many models print tools: the whole definitions as JSON, in the system's turn.
TOOLS_AS_JSON = (
    "{% if tools %}<|im_start|>system\n"
    "{% if messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}{% endif %}"
    "<tools>{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}\n</tools><|im_end|>\n"
    "{% elif messages[0].role == 'system' %}<|im_start|>system\n{{ messages[0].content }}<|im_end|>\n"
    "{% endif %}{% for message in messages %}{% if message.role != 'system' or not loop.first %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endif %}{% endfor %}"
) + OPENING
# As some print them: fields one by one, with names as tags.
TOOLS_AS_TAGS = (
    "{% for tool in tools or [] %}<|im_start|>tool {{ tool.function.name }}"
    "{{ tool.function.description }}{% for name in tool.function.parameters.properties %}"
    "<{{ name }}>{% endfor %}<|im_end|>\n{% endfor %}"
) + CHATML

# As models that think render answers: thoughts apart, empty ones where there are none, and those of
# earlier rounds left out.
THINKING = (
    "{% set last = namespace(user=0) %}{% for message in messages %}{% if message.role == 'user' %}"
    "{% set last.user = loop.index0 %}{% endif %}{% endfor %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.role == 'assistant' and loop.index0 > last.user %}"
    "<think>\n{{ message.reasoning_content or '' }}\n</think>\n\n{% endif %}"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
) + OPENING


def build_tokenizer(chat_template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """One token a byte, and three control tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(
        models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIALS)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>"],
    )
    wrapped.chat_template = chat_template
    return wrapped


def build_model(family: str, depth: int = 3, seed: int = 0, **changes: object) -> PreTrainedModel:
    """A random causal language model of a family; weights are large enough for its gradients to
    differ from row to row.
    """
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
