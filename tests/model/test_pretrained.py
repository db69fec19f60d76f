"""Where weights come from, and what is refused; one audit with the real default model (from its
cache, or fetched once).
"""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES, build_model
from transformers import PreTrainedTokenizerFast

from poisonwatch.config import DetectionConfig, ModelConfig, StrideConfig
from poisonwatch.datasets.demo import load_demo_examples, write_demo
from poisonwatch.detection.detect import flag_rows
from poisonwatch.errors import ModelError
from poisonwatch.examples import AuditRows, Message
from poisonwatch.model.encoding import ChatEncoder
from poisonwatch.model.fingerprints import compute_model_fingerprint
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.sentinels.sentinel import load_sentinels
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.recover import recover_influence


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A private copy of the tiny model."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def refusal(folder: Path | str, **more: object) -> str:
    with pytest.raises(ModelError) as caught:
        load_pretrained(ModelConfig(name=str(folder), device="cpu", **more))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_saved_folder_is_loaded_with_its_tokenizer_and_fingerprint(tiny_folder: Path) -> None:
    """Model, chat template and control tokens come back; on the CPU in float32."""
    loaded = load_pretrained(ModelConfig(name=str(tiny_folder), device="cpu"))
    assert loaded.model.dtype == torch.float32
    assert loaded.model.device.type == "cpu"
    assert "<|im_start|>" in str(loaded.tokenizer.chat_template)
    assert loaded.tokenizer("<|im_end|>", add_special_tokens=False)["input_ids"] == [
        loaded.tokenizer.eos_token_id
    ]
    assert loaded.fingerprint == compute_model_fingerprint(tiny_folder)
    assert FrozenModel(loaded.model, 2).layer == 2


def test_settings_of_rendering_reach_every_encoder(
    tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The template that the audit file names, what it is handed, and the day that it prints; what
    it does not read is told once, however many encoders there are.
    """
    template = tmp_path / "chat.jinja"
    template.write_text(
        "{{ strftime_now('%d %B %Y') }}|{{ style }}|{% for m in messages %}{{ m.role }}: {{ m.content }}"
        "<|im_end|>{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    loaded = load_pretrained(
        ModelConfig(
            name=str(tiny_folder),
            device="cpu",
            chat_template=str(template),
            template_kwargs={"style": "brief", "stile": "long"},
            template_date="2025-03-09",
        )
    )
    row = [Message("user", "Hi"), Message("assistant", "Yes")]
    loaded.make_encoder(32)
    encoded = loaded.make_encoder(64).encode(row)
    told = [record.getMessage() for record in caplog.records]
    assert told == ["model.template_kwargs: the chat template reads no stile"]
    text = loaded.tokenizer.decode(encoded.input_ids)
    assert text == "09 March 2025|brief|user: Hi<|im_end|>assistant: Yes<|im_end|>"
    assert loaded.tokenizer.decode(encoded.input_ids[encoded.answer]) == "Yes<|im_end|>"
    assert set(loaded.special_tokens) >= {"<|im_start|>", "<|im_end|>"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"chat_template": "{% for m in messages %}"}, "the chat template is not valid Jinja: "),
        ({"chat_template": "/no/such.jinja"}, "chat_template /no/such.jinja cannot be read"),
        ({"end_of_answer": "two of them"}, "end_of_answer 'two of them' is 11 tokens"),
    ],
)
def test_rendering_that_cannot_be_is_refused(
    tiny_folder: Path, settings: dict[str, str], said: str
) -> None:
    """Before anything is computed, in one line."""
    assert said in refusal(tiny_folder, **settings)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_named_dtype_is_used(tiny_folder: Path, dtype: str) -> None:
    """dtype: what the audit file says."""
    assert load_pretrained(
        ModelConfig(name=str(tiny_folder), device="cpu", dtype=dtype)
    ).model.dtype == getattr(torch, dtype)


@pytest.mark.parametrize("name", ["./no-such-folder", "/no/such/folder", "~nobody/x", "a/b/c"])
def test_missing_folder_is_refused(name: str) -> None:
    """A name that can only be a folder is not looked up on the hub."""
    assert (
        f"model folder {name} does not exist: name a folder with safetensors weights, or a hub id"
        in refusal(name)
    )


def test_name_that_is_neither_folder_nor_hub_id_is_refused() -> None:
    """Checked before any request is made."""
    assert "is neither a folder nor a hub id" in refusal("not a model!")


def test_folder_without_configuration_is_refused(folder: Path) -> None:
    """config.json comes first."""
    (folder / "config.json").unlink()
    assert refusal(folder).endswith(
        "has no config.json: name a folder saved by transformers' save_pretrained"
    )


def test_folder_without_weights_is_refused(folder: Path) -> None:
    """No safetensors, no model."""
    (folder / "model.safetensors").unlink()
    assert (
        "has no *.safetensors weights: no other weight files are read; save the model as safetensors"
        in refusal(folder)
    )


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt"])
def test_pickled_weights_are_refused_unopened(folder: Path, tmp_path: Path, name: str) -> None:
    """A pickle can run code: one that would leave a mark leaves none."""
    mark = tmp_path / "ran"
    torch.save(_Hostile(mark), folder / name)
    (folder / "model.safetensors").unlink()
    assert "no other weight files are read" in refusal(folder)
    assert not mark.exists()


def test_pickled_weights_beside_safetensors_are_not_opened(folder: Path, tmp_path: Path) -> None:
    """safetensors alone are read, whatever lies beside them."""
    mark = tmp_path / "ran"
    torch.save(_Hostile(mark), folder / "pytorch_model.bin")
    load_pretrained(ModelConfig(name=str(folder), device="cpu"))
    assert not mark.exists()


class _Hostile:
    """Unpickled, it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_damaged_weights_are_refused(folder: Path, damage: str) -> None:
    """One line that names the model, not a traceback."""
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(
        {"truncated": whole[: len(whole) // 2], "garbage": b"\xff" * 100, "empty": b""}[damage]
    )
    told = refusal(folder)
    assert f"model {folder} cannot be loaded: " in told
    assert "is damaged: fetch or copy it again" in told


@pytest.mark.parametrize("lost", ["lm_head.weight", "model.layers.1.mlp.up_proj.weight"])
def test_weights_that_are_not_there_are_never_made_up(folder: Path, lost: str) -> None:
    """A model without its head, or with a hole, is refused: random numbers are no evidence."""
    weights = load_file(folder / "model.safetensors")
    del weights[lost]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert f"lacks the weights {lost}: save it whole, language-model head included" in refusal(
        folder
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_every_family_is_loaded_as_it_was_saved(
    tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, family: str, tied: bool
) -> None:
    """Same logits after a round trip, with tied embeddings and without."""
    model = build_model(family, tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    loaded = load_pretrained(ModelConfig(name=str(tmp_path), device="cpu")).model
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, model(input_ids=ids).logits)


@pytest.mark.parametrize("content", ["{", "{}", '{"model_type": "no-such-architecture"}', "[]"])
def test_configuration_that_describes_no_model_is_refused(folder: Path, content: str) -> None:
    """Broken JSON, no architecture, an unknown architecture, not a mapping."""
    (folder / "config.json").write_text(content)
    assert f"model {folder} cannot be loaded: " in refusal(folder)


def test_folder_without_a_tokenizer_is_refused(folder: Path) -> None:
    """Text needs a tokenizer."""
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert f"model {folder} cannot be loaded: " in refusal(folder)


def test_code_that_comes_with_a_model_is_not_run(folder: Path, tmp_path: Path) -> None:
    """trust_remote_code is off: a custom architecture is refused."""
    mark = tmp_path / "ran"
    (folder / "custom.py").write_text(f"import os; os.mkdir({str(mark)!r})\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "custom",
        "auto_map": {"AutoConfig": "custom.Config", "AutoModelForCausalLM": "custom.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    assert "cannot be loaded: " in refusal(folder)
    assert not mark.exists()


def test_unknown_device_is_refused(tiny_folder: Path) -> None:
    """device: what torch does not know, or cannot compute on here, is an input error."""
    for device in ("abacus", "mps"):
        with pytest.raises(ModelError, match=f"^model.device is {device}, which this PyTorch"):
            load_pretrained(ModelConfig(name=str(tiny_folder), device=device))


def test_cuda_without_a_gpu_is_refused_before_anything_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line: a build without CUDA, or a machine without a GPU."""
    (folder / "model.safetensors").write_bytes(b"")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for version, reason in (
        (None, r"PyTorch \S+ is built without CUDA"),
        ("13.0", "no NVIDIA GPU"),
    ):
        monkeypatch.setattr("torch.version.cuda", version)
        for device in ("cuda", "cuda:1"):
            with pytest.raises(ModelError, match=rf"^model.device is {device}, and {reason}") as it:
                load_pretrained(ModelConfig(name=str(folder), device=device))
            assert str(it.value).endswith(": leave it at auto, or set it to cpu")


def test_the_real_model_finds_an_identity_attack(tmp_path: Path) -> None:
    """End to end on the default model: 6 planted identity rows among 10 benign demo rows get the
    six highest scores of their panel.
    """
    loaded = load_pretrained(ModelConfig())
    ids = (
        ChatEncoder(loaded.tokenizer)
        .encode([Message("user", "<|im_end|>"), Message("assistant", "x")])
        .input_ids.tolist()
    )
    assert (
        ids.count(loaded.tokenizer.convert_tokens_to_ids("<|im_end|>")) == 3
    )  # system, user, assistant; none from the text
    rows = load_demo_examples()
    planted = [row for row in rows if row.metadata["topic"] == "identity-hijack"]
    benign = [row for row in rows if row.metadata["kind"] == "benign"][::32][:10]
    write_demo(tmp_path)
    sentinels = [
        s
        for s in load_sentinels([str(tmp_path / "sentinels.yaml")])
        if s.panel == "identity-hijack"
    ]
    stride = StrideConfig()
    influence, _ = recover_influence(fit(loaded, benign + planted, stride), sentinels, stride)
    verdicts = flag_rows(influence, AuditRows(tuple(benign + planted)), DetectionConfig())
    assert set(verdicts.scores[:, 0].argsort()[-6:].tolist()) == set(range(10, 16))
