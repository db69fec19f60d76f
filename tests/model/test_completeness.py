"""Models of which a file is missing: told by name, and fetched again where the hub has it."""

from pathlib import Path

import pytest
from model_hub import ModelHub, use_hub
from servers import web_server
from tiny_models import build_model

from poisonwatch.errors import ModelError
from poisonwatch.model.completeness import WEIGHTS_INDEX, check_weights
from poisonwatch.model.files import locate_model

LAST = "model-00004-of-00004.safetensors"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A model in four files."""
    folder = tmp_path / "sharded"
    build_model("llama").save_pretrained(folder, max_shard_size="60KB")
    assert len(list(folder.glob("*.safetensors"))) == 4
    return folder


def test_a_missing_file_of_weights_is_named(sharded: Path) -> None:
    """Before any is read. Without an index, or with one that is damaged, what is there is taken;
    a file that holds all needs no other.
    """
    assert check_weights(sharded) == sharded
    (sharded / LAST).rename(sharded / "elsewhere")
    with pytest.raises(ModelError, match=f"{LAST}; 1 in all.: fetch or copy them again"):
        check_weights(sharded)
    index = (sharded / WEIGHTS_INDEX).read_text()
    for damaged in ("", "[]", "{}", index[: len(index) // 2]):
        (sharded / WEIGHTS_INDEX).write_text(damaged)
        assert check_weights(sharded) == sharded
    (sharded / WEIGHTS_INDEX).write_text(index)
    (sharded / "model.safetensors").touch()
    assert check_weights(sharded) == sharded


def test_a_download_that_was_interrupted_goes_on(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the hub's cache holds in part is no model: the hub is asked for the rest."""
    with web_server(sharded, ModelHub) as url:
        use_hub(monkeypatch, url, tmp_path / "hub")
        cached = locate_model("somebody/tiny")
        (cached / LAST).unlink()
        assert locate_model("somebody/tiny") == cached
    assert (cached / LAST).read_bytes() == (sharded / LAST).read_bytes()
    # out of reach
    (cached / LAST).unlink()
    with pytest.raises(ModelError, match="the hub cannot be reached"):
        locate_model("somebody/tiny")
