"""Where an adapter and its base are found."""

import json
import shutil
from pathlib import Path

import pytest
from adapters import save_adapter
from pydantic import ValidationError
from tiny_models import build_model, build_tokenizer

from poisonwatch.config import ModelConfig
from poisonwatch.config_file import resolve_config
from poisonwatch.errors import ModelError
from poisonwatch.model.effort import count_parameters
from poisonwatch.model.files import ModelFiles, find_model_files
from poisonwatch.model.fingerprints import compute_model_fingerprint


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `base` and a `lora` of it that names it relative to itself."""
    folder = tmp_path_factory.mktemp("made")
    model = build_model("llama")
    model.save_pretrained(folder / "base")
    build_tokenizer().save_pretrained(folder / "base")
    save_adapter(model, folder / "lora", named="base")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A private copy of both."""
    return Path(shutil.copytree(made, tmp_path / "copied"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, which cannot be reached."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def cache(hub: Path, id: str, folder: Path, revision: str = "main") -> Path:
    """Put a folder into the hub's cache as the repository `id`."""
    repository = hub / f"models--{id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / revision).write_text("c" * 40)
    return Path(shutil.copytree(folder, repository / "snapshots" / ("c" * 40)))


def find(name: Path | str, adapter: Path | str | None = None, **more: str) -> ModelFiles:
    named = None if adapter is None else str(adapter)
    return find_model_files(ModelConfig(name=str(name), adapter=named, **more))


def refusal(name: Path | str, adapter: Path | str | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        find(name, adapter)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def name_base(adapter: Path, name: object, revision: str | None = None) -> None:
    path = adapter / "adapter_config.json"
    changes = {"base_model_name_or_path": name, "revision": revision}
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_an_adapter_that_stands_for_the_model_brings_its_base(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named beside it, below it, from the current folder, or as an absolute path; it is the same
    model as with both named.
    """
    base, lora = folder / "base", folder / "lora"
    both = find(base, lora)
    assert (both.folder, both.adapter) == (base, lora)
    assert both.fingerprint == compute_model_fingerprint(base, lora)
    beside = find(lora)
    assert (beside.folder.resolve(), beside.adapter) == (base, lora)
    for name, current in (("../base", None), (str(base), None), ("copied/base", folder.parent)):
        name_base(lora, name)
        if current is not None:
            monkeypatch.chdir(current)
        assert find(lora).folder.resolve() == base
    # Some trainers leave the base's configuration there as well.
    shutil.copy(base / "config.json", lora)
    assert find(lora).adapter == lora


def test_a_base_that_is_not_there_is_asked_for(folder: Path) -> None:
    """A path of the machine it was trained on; nothing said; another adapter."""
    lora = folder / "lora"
    remedy = f"name its base as model.name, and {lora} as model.adapter"
    name_base(lora, "/home/trainer/base")
    assert refusal(lora).startswith(f"the base of adapter {lora} is not found (model folder /home")
    assert refusal(lora).endswith(remedy)
    for nothing in (None, "", 7):
        name_base(lora, nothing)
        assert refusal(lora) == f"adapter {lora} does not say what it was trained on: {remedy}"
    shutil.copytree(lora, folder / "second")
    name_base(lora, "../second")
    assert "was trained on another adapter" in refusal(lora)
    assert "is an adapter, and model.adapter another one" in refusal(lora, folder / "second")


def test_what_is_no_adapter_is_refused(folder: Path) -> None:
    """No folder, no configuration, one that is none, no weights; a model and an adapter in one."""
    base, lora = folder / "base", folder / "lora"
    assert refusal(base, folder / "none").startswith(f"adapter folder {folder / 'none'} does not")
    assert refusal(base, base).endswith(
        "has no adapter_config.json: name a folder saved by peft's save_pretrained"
    )
    shutil.copytree(lora, folder / "both")
    shutil.copytree(base, folder / "both", dirs_exist_ok=True)
    assert "holds the weights of a model and an adapter: which is meant?" in refusal(
        folder / "both"
    )
    for text in ("[]", "{", "\xff"):
        (lora / "adapter_config.json").write_text(text, encoding="latin-1")
        assert "adapter_config.json " in refusal(lora)
    (lora / "adapter_model.safetensors").unlink()
    assert "has no adapter_model.safetensors" in refusal(base, lora)
    assert "has no adapter_model.safetensors" in refusal(lora)


def test_adapters_and_bases_are_found_in_the_hubs_cache(made: Path, hub: Path) -> None:
    """By their ids and revisions, without a question to the hub; what is not there is said."""
    base = cache(hub, "somebody/base", made / "base")
    lora = cache(hub, "somebody/lora", made / "lora", revision="v1")
    assert find("somebody/base", "somebody/lora", adapter_revision="v1") == find(base, lora)
    name_base(lora, "somebody/base")
    alone = find("somebody/lora", revision="v1")
    assert (alone.folder, alone.adapter) == (base, lora)
    assert refusal("somebody/base", "somebody/lora").startswith(
        "adapter somebody/lora is not cached and the hub cannot be reached"
    )
    name_base(lora, "somebody/base", revision="v7")
    with pytest.raises(ModelError, match=r"the base of adapter .* is not found"):
        find("somebody/lora", revision="v1")


def test_an_audit_file_names_adapters_as_it_names_models(folder: Path) -> None:
    """A folder beside it, or a hub id; a revision of nothing is an error."""
    said = {"source": "rows.jsonl", "sentinels": "pack:identity"}
    for named, found in (
        ("lora", str(folder / "lora")),
        ("./none", str(folder / "none")),
        ("somebody/lora", "somebody/lora"),
    ):
        settings = {**said, "model": {"name": "base", "adapter": named}}
        assert resolve_config(settings, folder).model.adapter == found
    with pytest.raises(ValidationError, match="adapter_revision is of an adapter"):
        ModelConfig(adapter_revision="v1")


def test_the_size_of_an_adapter_is_that_of_its_base(folder: Path) -> None:
    """For what an audit would take: by the base's files, or its name."""
    lora = folder / "lora"
    size = count_parameters(str(folder / "base"))
    assert size == build_model("llama").num_parameters()
    assert count_parameters(str(lora)) == size
    name_base(lora, "somebody/Tiny-3B")
    assert count_parameters(str(lora)) == 3e9
    name_base(lora, None)
    assert count_parameters(str(lora)) is None
