"""What results depend on of a model: each of these alone is another fingerprint, or another reading."""

import json
import shutil
from pathlib import Path

import pytest
from adapters import save_adapter
from safetensors.torch import load_file, save_file
from tiny_models import build_model, build_tokenizer

from poisonwatch.config import ModelConfig
from poisonwatch.errors import ModelError
from poisonwatch.model.files import ModelFiles, find_model_files
from poisonwatch.model.fingerprints import compute_model_fingerprint
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.template_config import DEFAULT_TEMPLATE_DATE


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A private copy of the tiny model."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def find(folder: Path, **settings: object) -> ModelFiles:
    return find_model_files(ModelConfig.model_validate({"name": str(folder), **settings}))


def read(folder: Path, **settings: object) -> str:
    return find(folder, **settings).reading


def test_fingerprint_follows_weights_and_configuration(folder: Path, tiny_folder: Path) -> None:
    """A copy has the same; one changed weight or setting has another; the tokenizer's files and
    pickles do not count.
    """
    first = compute_model_fingerprint(tiny_folder)
    assert len(first) == 64
    (folder / "pytorch_model.bin").write_bytes(b"x")
    assert compute_model_fingerprint(folder) == first
    weights = load_file(folder / "model.safetensors")
    name = sorted(weights)[0]
    weights[name].view(-1)[0] += 1e-3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    second = compute_model_fingerprint(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    assert len({first, second, compute_model_fingerprint(folder)}) == 3


def test_reading_follows_the_tokenizers_files_and_nothing_else(
    folder: Path, tiny_folder: Path
) -> None:
    """A copy reads the same; weights, settings of generation and what a trainer leaves beside them
    do not count; a model that is loaded says what was found.
    """
    first = read(tiny_folder)
    assert len(first) == 64
    assert read(folder) == first
    loaded = load_pretrained(ModelConfig(name=str(folder), device="cpu"))
    assert (loaded.fingerprint, loaded.reading) == (find(folder).fingerprint, first)
    for name in ("generation_config.json", "trainer_state.json", "README.md", "notes.txt"):
        (folder / name).write_text("{}")
    assert read(folder) == first
    readings = {first}
    for name in (
        "chat_template.jinja",
        "tokenizer_config.json",
        "tokenizer.json",
        "tokenizer.model",
        "added_tokens.json",
        "additional_chat_templates/tool_use.jinja",
    ):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as file:
            file.write(" ")
        readings.add(read(folder))
    assert len(readings) == 7
    shutil.copy(folder / "tokenizer.model", folder / "other.model")
    (folder / "tokenizer.model").unlink()
    assert read(folder) not in readings


def test_settings_of_the_rendering_count_where_they_are_not_at_their_defaults(
    folder: Path, tmp_path: Path
) -> None:
    """Each is another reading, and one that no earlier results were read with; a template counts
    by its text, in a file or not.
    """
    plain = find(folder)
    assert plain.reads_as_before
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    file = tmp_path / "own.jinja"
    file.write_text(template)
    settings: list[dict[str, object]] = [
        {"chat_template": template},
        {"template_kwargs": {"enable_thinking": False}},
        {"template_kwargs": {"enable_thinking": True}},
        {"template_date": "2025-01-01"},
        {"end_of_answer": "<|endoftext|>"},
    ]
    others = [find(folder, **each) for each in settings]
    assert not any(other.reads_as_before for other in others)
    assert len({plain.reading, *(other.reading for other in others)}) == 6
    assert {other.fingerprint for other in others} == {plain.fingerprint}
    assert read(folder, chat_template=str(file)) == others[0].reading
    file.write_text(template + " ")
    assert read(folder, chat_template=str(file)) not in {other.reading for other in others}
    same = {"template_kwargs": {}, "template_date": str(DEFAULT_TEMPLATE_DATE)}
    assert find(folder, **same) == plain
    for elsewhere in ({"dtype": "float16"}, {"device": "cpu"}, {"products": "float32"}):
        assert find(folder, **elsewhere) == plain
    with pytest.raises(ModelError, match=r"none\.jinja cannot be read"):
        read(folder, chat_template=str(tmp_path / "none.jinja"))


def test_code_counts_where_it_is_run(folder: Path) -> None:
    """Whether it is, and what it is; code that is not trusted is nothing to the results."""
    trusting = {"trust_remote_code": True}
    plain, trusted = read(folder), read(folder, **trusting)
    (folder / "modeling_custom.py").write_text("scale = 1\n")
    one = read(folder, **trusting)
    (folder / "modeling_custom.py").write_text("scale = 2\n")
    assert len({plain, trusted, one, read(folder, **trusting)}) == 4
    assert read(folder) == plain


def test_an_adapters_tokenizer_and_template_are_the_ones_that_count(
    folder: Path, tmp_path: Path
) -> None:
    """The base's no longer, where the adapter has its own."""
    lora = tmp_path / "lora"
    save_adapter(build_model("llama"), lora)
    adapter = {"adapter": str(lora)}
    assert read(folder, **adapter) == read(folder)
    (lora / "chat_template.jinja").write_text("{{ messages[0].content }}")
    template = read(folder, **adapter)
    build_tokenizer("{{ messages[-1].content }}").save_pretrained(lora)
    own = read(folder, **adapter)
    assert len({read(folder), template, own}) == 3
    (folder / "chat_template.jinja").write_text("another")
    assert read(folder, **adapter) == own
