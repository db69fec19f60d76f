"""Which folders are checkpoints that nobody asked yet."""

import os
import time
from pathlib import Path

import pytest
from adapters import save_adapter
from audits import write_audit
from probing_cases import save
from tiny_models import build_model

from poisonwatch.config_file import load_config
from poisonwatch.errors import ConfigError
from poisonwatch.probing.new_checkpoints import (
    SETTLED_AFTER_S,
    find_new_checkpoints,
    list_checkpoints,
)


def settle(folder: Path, ago: float = 2 * SETTLED_AFTER_S) -> Path:
    """Make a folder look as if it had not been touched for a while."""
    then = time.time() - ago
    for path in (*folder.iterdir(), folder):
        os.utime(path, (then, then))
    return folder


def test_folders_of_weights_that_are_whole_are_listed_oldest_first(tmp_path: Path) -> None:
    """No half-written one, no folder of something else, and a link to one that is listed once."""
    base = build_model("llama")
    later = settle(save(base, tmp_path / "out" / "checkpoint-2"), ago=100)
    first = settle(save(base, tmp_path / "out" / "checkpoint-1"), ago=200)
    save(base, tmp_path / "out" / "checkpoint-3")
    (tmp_path / "out" / "checkpoint-logs").mkdir()
    (tmp_path / "out" / "checkpoint-latest").symlink_to(later)
    found = list_checkpoints(str(tmp_path / "out" / "checkpoint-*"), time.time())
    assert [folder.resolve() for folder in found] == [first, later]
    assert len(list_checkpoints(str(tmp_path / "out" / "*"), time.time() + 3600)) == 3


def test_a_checkpoint_is_new_until_its_weights_are_known(tmp_path: Path) -> None:
    """A copy is the same, other weights are another, and an adapter is one by itself."""
    base = build_model("llama")
    config = write_audit(tmp_path, save(base, tmp_path / "base"), probe="out/*")
    settle(save(base, tmp_path / "out" / "a"), ago=300)
    settle(save(base, tmp_path / "out" / "b"), ago=200)
    (tmp_path / "out" / "c").mkdir()
    save_adapter(base, tmp_path / "out" / "c", named="/trainer/base")
    settle(tmp_path / "out" / "c", ago=100)
    settings = load_config(config)
    new = find_new_checkpoints(settings, known=())
    assert [(found.folder.name, found.problem) for found in new] == [("a", None), ("c", None)]
    known = {str(found.fingerprint) for found in new}
    assert find_new_checkpoints(settings, known) == []


def test_one_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    config = write_audit(tmp_path, save(build_model("llama"), tmp_path / "base"), probe="out/*")
    broken = tmp_path / "out" / "broken"
    broken.mkdir(parents=True)
    (broken / "model.safetensors").write_bytes(b"")
    settle(broken)
    (found,) = find_new_checkpoints(load_config(config), known=())
    assert found.fingerprint is None
    assert "config.json" in str(found.problem)


def test_an_audit_file_that_names_no_place_is_told_so(tmp_path: Path) -> None:
    config = load_config(write_audit(tmp_path, tmp_path))
    with pytest.raises(ConfigError, match="probe: out/checkpoint-"):
        find_new_checkpoints(config, known=())
