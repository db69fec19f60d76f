"""A model with an adapter is what peft makes of the two, or is refused in words."""

import copy
import json
import os
import pickle
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import compute_logits, lora, save_adapter
from families import build_family
from peft import AdaptionPromptConfig, IA3Config, LoHaConfig, PrefixTuningConfig, PromptTuningConfig
from safetensors.torch import load_file, save_file
from tiny_models import VOCABULARY, build_model, build_tokenizer

from poisonwatch.config import ModelConfig
from poisonwatch.errors import ModelError
from poisonwatch.model.adapter import merge_adapter
from poisonwatch.model.files import find_model_files
from poisonwatch.model.pretrained import Pretrained, load_pretrained

ENDS = ["embed_tokens", "lm_head"]
CAUSAL = {"task_type": "CAUSAL_LM"}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Saved tiny models by name, each with its tokenizer."""
    folder = tmp_path_factory.mktemp("bases")
    models = {
        "llama": build_model("llama"),
        "tied": build_model("llama", tie_word_embeddings=True),
        "gpt2": build_model("gpt2"),
        "wide": build_model("llama", hidden_size=64),
        "deep": build_model("llama", depth=4),
        "shallow": build_model("llama", depth=2),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        build_tokenizer().save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def adapter(bases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain LoRA of the tiny Llama. Copy it before changing it."""
    folder = tmp_path_factory.mktemp("plain") / "lora"
    save_adapter(build_model("llama"), folder, named="somebody/tiny-llama")
    return folder


@pytest.fixture
def own(adapter: Path, tmp_path: Path) -> Path:
    """A private copy of the LoRA."""
    return Path(shutil.copytree(adapter, tmp_path / "own"))


def load(base: Path, adapter: Path | None = None, **more: Any) -> Pretrained:
    named = None if adapter is None else str(adapter)
    settings = {"device": "cpu", "products": "float32", **more}
    return load_pretrained(ModelConfig(name=str(base), adapter=named, **settings))


def refusal(base: Path, adapter: Path | None = None, **more: Any) -> str:
    with pytest.raises(ModelError) as caught:
        load(base, adapter, **more)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


def change_config(adapter: Path, **changes: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


MERGED: dict[str, tuple[str, Any, int | None]] = {
    "plain": ("llama", lora(), None),
    "every layer": ("llama", lora(target_modules="all-linear"), None),
    "directions and lengths": ("llama", lora(use_dora=True), None),
    "transposed layers": ("gpt2", lora(target_modules=["c_attn"]), None),
    "no LoRA": ("llama", LoHaConfig(r=4, target_modules=["q_proj"], **CAUSAL), None),
    "factors": ("llama", IA3Config(**CAUSAL), None),
    "ends saved": ("llama", lora(modules_to_save=ENDS), None),
    "ends saved, tied": ("tied", lora(modules_to_save=ENDS), None),
    "head saved, tied": ("tied", lora(modules_to_save=["lm_head"]), None),
    "head, tied": ("tied", lora(target_modules=["q_proj", "lm_head"]), None),
    "embeddings, tied": ("tied", lora(target_modules=["q_proj", "embed_tokens"]), None),
    "both ends as one": (
        "tied",
        lora(target_modules=["q_proj", "embed_tokens"], ensure_weight_tying=True),
        None,
    ),
    "some tokens, tied": ("tied", lora(trainable_token_indices=[3, 5]), None),
    "more tokens": ("llama", lora(), VOCABULARY + 20),
    "more tokens, saved": ("llama", lora(modules_to_save=ENDS), VOCABULARY + 20),
    "fewer tokens": ("llama", lora(modules_to_save=ENDS), VOCABULARY - 20),
    "more tokens, tied": ("tied", lora(modules_to_save=ENDS), VOCABULARY + 20),
    "more tokens, tuned": ("llama", lora(target_modules=["q_proj", *ENDS]), VOCABULARY + 20),
}


@pytest.mark.parametrize("kind", MERGED)
def test_merged_weights_compute_what_peft_computes_beside_them(
    bases: Path, tmp_path: Path, kind: str
) -> None:
    """Logits to 1e-5 of the largest: saved modules, shared heads and added tokens included; no
    layer of peft's is left.
    """
    base, config, vocabulary = MERGED[kind]
    plain = load(bases / base).model
    wanted = save_adapter(plain, tmp_path / "lora", config, vocabulary=vocabulary)
    merged = load(bases / base, tmp_path / "lora").model
    found = compute_logits(merged)
    largest = float(wanted.abs().max())
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * largest)
    shared = slice(min(VOCABULARY, wanted.shape[-1]))
    before = compute_logits(plain)
    assert float((wanted[..., shared] - before[..., shared]).abs().max()) > 0.01 * largest
    assert {type(module).__module__.split(".")[0] for module in merged.modules()} <= {
        "torch",
        "transformers",
    }


def test_merging_keeps_the_models_precision(bases: Path, adapter: Path) -> None:
    """Of bfloat16 the sums are bfloat16."""
    merged = load(bases / "llama", adapter, dtype="bfloat16")
    assert {parameter.dtype for parameter in merged.model.parameters()} == {torch.bfloat16}
    assert merged.precision == "torch.bfloat16"


def test_numbers_depend_on_the_library_that_merged(
    bases: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where one did."""
    plain, merged = load(bases / "llama"), load(bases / "llama", adapter)
    monkeypatch.setattr("peft.__version__", "0.0")
    assert load(bases / "llama").identity == plain.identity
    assert load(bases / "llama", adapter).identity != merged.identity


def test_an_adapter_is_merged_before_a_model_is_spread(bases: Path, adapter: Path) -> None:
    """`device_map: auto`; here there is one device, and nothing changes."""
    spread = load_pretrained(
        ModelConfig(name=str(bases / "llama"), adapter=str(adapter), device_map="auto")
    )
    expected = compute_logits(load(bases / "llama", adapter).model)
    torch.testing.assert_close(compute_logits(spread.model), expected, rtol=0, atol=0)


def test_fingerprints_tell_adapters_apart(bases: Path, adapter: Path, own: Path) -> None:
    """The base alone, with the adapter, with a copy of it, with one weight or setting changed."""

    def compute(named: Path | None) -> str:
        name = None if named is None else str(named)
        config = ModelConfig(name=str(bases / "llama"), adapter=name)
        return find_model_files(config).fingerprint

    plain, added = compute(None), compute(adapter)
    assert plain != added == compute(own) == load(bases / "llama", adapter).fingerprint
    weights = load_file(own / "adapter_model.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1e-3
    save_file(weights, own / "adapter_model.safetensors")
    moved = compute(own)
    change_config(own, lora_alpha=16)
    assert len({plain, added, moved, compute(own)}) == 4


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("wide", "other shapes, of model.layers.0.self_attn.q_proj for one"),
        ("deep", "it has no weights for model.layers.3.self_attn.q_proj of the base"),
        ("shallow", "the base has no place for its weights of model.layers.2.self_attn.q_proj"),
        ("gpt2", "not found in the base model"),
    ],
)
def test_another_base_is_refused(bases: Path, adapter: Path, base: str, words: str) -> None:
    """peft itself would go on with random numbers, or leave weights out."""
    said = refusal(bases / base, adapter)
    assert words in said
    assert said.startswith(f"adapter {adapter} does not fit the base: ")
    assert said.endswith(
        "; name the one that it was trained on (somebody/tiny-llama) as model.name"
    )


def test_another_vocabulary_is_refused(bases: Path, tmp_path: Path) -> None:
    """Tokens that the base has no embeddings of; embeddings without rows of the head."""
    base = build_model("llama")
    for folder, config in (("plain", lora()), ("half", lora(modules_to_save=["embed_tokens"]))):
        save_adapter(base, tmp_path / folder, config, vocabulary=VOCABULARY + 20)
    tokenizer = build_tokenizer()
    tokenizer.add_tokens([f"<added-{i}>" for i in range(60)])
    tokenizer.save_pretrained(tmp_path / "plain")
    assert (
        "its tokenizer has 319 tokens, and the model embeddings of 300; "
        "train with the input embeddings and the head in modules_to_save"
    ) in refusal(bases / "llama", tmp_path / "plain")
    assert "it has 320 embeddings of tokens, and no rows of the head" in refusal(
        bases / "llama", tmp_path / "half"
    )


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (PromptTuningConfig(num_virtual_tokens=4, **CAUSAL), "PROMPT_TUNING"),
        pytest.param(
            PrefixTuningConfig(num_virtual_tokens=4, **CAUSAL),
            "PREFIX_TUNING",
            # peft 0.21 calls the cache as transformers did up to 5.23
            marks=pytest.mark.filterwarnings(
                "ignore:.past_key_values. is deprecated:FutureWarning"
            ),
        ),
        (AdaptionPromptConfig(adapter_len=4, adapter_layers=2, **CAUSAL), "ADAPTION_PROMPT"),
        (lora(alora_invocation_tokens=[3]), "LORA"),
    ],
)
def test_what_is_no_change_of_weights_is_refused(
    bases: Path, tmp_path: Path, config: Any, kind: str
) -> None:
    """Prompts that are learnt, and weights that are used for some tokens alone."""
    save_adapter(build_model("llama"), tmp_path / "other", config)
    said = refusal(bases / "llama", tmp_path / "other")
    assert said.startswith(f"adapter {tmp_path / 'other'} ({kind}) cannot be merged into its base")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task_type": "SEQ_CLS"}, "is trained for SEQ_CLS: an audit needs one"),
        ({"peft_type": "NO_SUCH_KIND"}, "describes no adapter that this peft knows"),
        ({"peft_type": None}, "does not say what kind of adapter it is (peft_type)"),
        ({"target_modules": "("}, "does not fit the base: missing )"),
        ({"of_the_future": 1, "peft_version": "9.9"}, "was saved by peft 9.9, with settings that"),
        ({"megatron_config": {"x": 1}, "megatron_core": "hostile"}, "is made for Megatron"),
        ({"r": 8}, "other shapes, of model.layers.0.self_attn.q_proj for one"),
    ],
)
def test_settings_that_would_change_what_weights_mean_are_refused(
    bases: Path, own: Path, changes: dict[str, Any], words: str
) -> None:
    """Another task, an unknown kind, a setting of a later peft, a module to be imported."""
    change_config(own, **changes)
    assert words in refusal(bases / "llama", own)
    assert "hostile" not in sys.modules


def test_what_training_did_not_compute_is_refused(tmp_path: Path) -> None:
    """A layer whose weights its family uses without it: what was trained there did nothing."""
    base = build_family("jamba")
    save_adapter(base, tmp_path / "all", lora(target_modules="all-linear"))
    with pytest.raises(ModelError, match="merged, it computes what it did not in training"):
        merge_adapter(copy.deepcopy(base), tmp_path / "all")
    wanted = save_adapter(base, tmp_path / "attention", lora())
    found = compute_logits(merge_adapter(base, tmp_path / "attention")[0])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_experts_are_merged_as_they_were_trained(tmp_path: Path) -> None:
    """Weights of all experts in one parameter."""
    base = build_family("qwen3_moe")
    experts = lora(target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])
    wanted = save_adapter(base, tmp_path / "experts", experts)
    found = compute_logits(merge_adapter(base, tmp_path / "experts")[0])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_weights_that_are_no_numbers_are_refused(bases: Path, own: Path) -> None:
    """A training that went astray."""
    weights = load_file(own / "adapter_model.safetensors")
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, own / "adapter_model.safetensors")
    assert "cannot be merged into its base: NaNs detected" in refusal(bases / "llama", own)
    (own / "adapter_model.safetensors").write_bytes(b"\xff" * 100)
    assert "cannot be loaded" in refusal(bases / "llama", own)


class _Hostile:
    """Unpickled, it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_pickled_adapters_are_refused_unopened(bases: Path, own: Path, tmp_path: Path) -> None:
    """With the way to convert them; beside safetensors, they are not looked at."""
    mark = tmp_path / "ran"
    (own / "adapter_model.bin").write_bytes(pickle.dumps(_Hostile(mark)))
    load(bases / "llama", own)
    (own / "adapter_model.safetensors").unlink()
    said = refusal(bases / "llama", own)
    assert "an adapter_model.bin is a pickle" in said
    assert "PeftModel.from_pretrained and save it again by save_pretrained" in said
    assert not mark.exists()


def test_nothing_is_asked_of_the_network(
    bases: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for the base that an adapter names on the hub, nor for its tokenizer."""
    asked: list[object] = []

    def connect(_: socket.socket, address: object) -> None:
        asked.append(address)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    build_tokenizer().save_pretrained(own)
    change_config(own, revision="v1")
    load(bases / "llama", own)
    assert asked == []


def test_without_peft_an_adapter_is_refused_in_one_line(
    bases: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what to install; a model without an adapter is loaded."""
    monkeypatch.setitem(sys.modules, "peft", None)
    assert refusal(bases / "llama", adapter) == (
        f"adapter {adapter} needs peft: pip install 'poisonwatch[adapters]'"
    )


def test_an_adapters_own_tokenizer_is_the_one(bases: Path, own: Path) -> None:
    """And its chat template, where it has that alone; else the base's."""
    assert load(bases / "llama", own).tokenizer.chat_template == build_tokenizer().chat_template
    (own / "chat_template.jinja").write_text("{{ messages[0].content }}")
    loaded = load(bases / "llama", own).tokenizer
    assert loaded.chat_template == "{{ messages[0].content }}"
    (own / "chat_template.jinja").unlink()
    tokenizer = build_tokenizer("{{ messages[-1].content }}")
    tokenizer.add_special_tokens({"eos_token": "<|endoftext|>"})
    tokenizer.save_pretrained(own)
    loaded = load(bases / "llama", own).tokenizer
    assert loaded.chat_template == "{{ messages[-1].content }}"
    assert loaded.eos_token == "<|endoftext|>"
