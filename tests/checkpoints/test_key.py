"""An audit's checkpoints are found by all that its results depend on, and by nothing else."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sklearn

from poisonwatch.checkpoints.key import ABOVE_LIBRARY, LIBRARY, compute_checkpoint_key
from poisonwatch.config import AuditConfig, DetectionConfig, StrideConfig
from poisonwatch.examples import AuditRows, Example, Message
from poisonwatch.model.files import ModelFiles
from poisonwatch.model.pretrained import LIBRARIES, Pretrained
from poisonwatch.packed_examples import PackedExamples
from poisonwatch.sentinels.sentinel import Sentinel

ROWS = [
    Example.from_messages(
        [Message("user", f"Question {i}"), Message("assistant", "Yes.")], "rows.jsonl", i
    )
    for i in range(4)
]
SENTINELS = [Sentinel("a", (Message("user", "Why?"),), "No.", None, "a")]


@pytest.fixture
def ingredients(tiny_pretrained: Pretrained, tiny_folder: Path) -> dict[str, Any]:
    config = AuditConfig.model_validate({"source": "rows.jsonl", "sentinels": "sentinels.yaml"})
    files = ModelFiles(tiny_folder, "0" * 64)
    return {
        "config": config,
        "files": files,
        "model": tiny_pretrained,
        "sentinels": SENTINELS,
        "rows": AuditRows(tuple(ROWS[:2]), tuple(ROWS[2:])),
    }


def test_the_key_depends_on_all_that_results_depend_on(
    ingredients: dict[str, Any], tmp_path: Path
) -> None:
    """Another value of anything is another key; what only says where results go is not in it."""
    config: AuditConfig = ingredients["config"]
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    (other_folder / "tokenizer.json").write_text("{}")
    said = (Message("user", "Question 0 "), Message("assistant", "Yes."))
    masked = (ROWS[0].messages[0], replace(ROWS[0].messages[1], masked=True))
    spaced, trusted = replace(ROWS[0], messages=said), tuple(ROWS[2:])
    changes = [
        {"config": config.model_copy(update={"seed": 1})},
        {"config": config.model_copy(update={"stride": StrideConfig(damping=0.2)})},
        {
            "config": config.model_copy(
                update={"detection": DetectionConfig(false_discovery_rate=0.2)}
            )
        },
        {"config": config.model_copy(update={"probes": 0})},
        {"config": config.model_copy(update={"screens": []})},
        {"files": ModelFiles(other_folder, "0" * 64)},
        {"files": ModelFiles(ingredients["files"].folder, "0" * 64, adapter=other_folder)},
        {"model": replace(ingredients["model"], fingerprint="1" * 64)},
        {"model": replace(ingredients["model"], reading="1" * 64)},
        {"sentinels": [replace(SENTINELS[0], severity="high")]},
        {"sentinels": [replace(SENTINELS[0], forbidden="Never.")]},
        {"rows": AuditRows(tuple(ROWS[1::-1]), trusted)},
        {"rows": AuditRows(tuple(ROWS[:1]), trusted)},
        {"rows": AuditRows((spaced, ROWS[1]), trusted)},
        {"rows": AuditRows((replace(ROWS[0], position=7), ROWS[1]), trusted)},
        {"rows": AuditRows((replace(ROWS[0], lowered=True), ROWS[1]), trusted)},
        {"rows": AuditRows((replace(ROWS[0], messages=masked), ROWS[1]), trusted)},
        {"rows": AuditRows(tuple(ROWS[:2]), tuple(ROWS[3:]))},
        {"rows": AuditRows(tuple(ROWS))},
    ]
    keys = [compute_checkpoint_key(**{**ingredients, **change}) for change in changes]
    assert len({compute_checkpoint_key(**ingredients), *keys}) == len(changes) + 1
    told_elsewhere = config.model_copy(update={"name": "other", "tracking": "http://there:5000"})
    assert compute_checkpoint_key(**ingredients) == compute_checkpoint_key(
        **{**ingredients, "config": told_elsewhere}
    )


@pytest.mark.parametrize("library", [*LIBRARIES, sklearn], ids=lambda of: of.__name__)
def test_the_key_depends_on_the_libraries_that_compute(
    ingredients: dict[str, Any], monkeypatch: pytest.MonkeyPatch, library: ModuleType
) -> None:
    """Another version may round otherwise, or make other tokens."""
    before = compute_checkpoint_key(**ingredients)
    monkeypatch.setattr(library, "__version__", "0.0")
    assert compute_checkpoint_key(**ingredients) != before


def test_rows_of_a_file_have_the_key_of_the_rows_themselves(
    ingredients: dict[str, Any], tmp_path: Path
) -> None:
    """Rows are hashed one by one, wherever they lie; one that moves to the other role counts."""
    packed = PackedExamples.write(tmp_path / "rows.arrow", ROWS)
    key = compute_checkpoint_key(**ingredients)
    in_a_file = {**ingredients, "rows": AuditRows(packed[:2], packed[2:])}
    assert compute_checkpoint_key(**in_a_file) == key
    moved = {**ingredients, "rows": AuditRows(packed[:3], packed[3:])}
    assert compute_checkpoint_key(**moved) != key


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A copy of the library's source, with the folders above it as they lie in a wheel."""
    copied = shutil.copytree(
        LIBRARY, tmp_path / "copied", ignore=shutil.ignore_patterns("__pycache__", *ABOVE_LIBRARY)
    )
    for name in ABOVE_LIBRARY:
        (copied / name).mkdir()
        (copied / name / "call.py").write_text("calls = 1\n")
    return copied


def test_the_key_does_not_depend_on_where_the_library_lies(
    ingredients: dict[str, Any], library: Path
) -> None:
    """Nor on whether what calls it is linked or copied beneath it."""
    assert compute_checkpoint_key(**ingredients, library=library) == compute_checkpoint_key(
        **ingredients
    )


@pytest.mark.parametrize(
    "place", ["config.py", "stride/operators.py", "recovery/lasso.py", "sources/base.py"]
)
def test_an_edit_of_the_library_changes_the_key(
    ingredients: dict[str, Any], library: Path, place: str
) -> None:
    """In the root or in a package; an edit of what calls the library does not."""
    before = compute_checkpoint_key(**ingredients, library=library)
    (library / "flows" / "call.py").write_text("calls = 2\n")
    assert compute_checkpoint_key(**ingredients, library=library) == before
    edited = library / place
    edited.write_bytes(edited.read_bytes() + b"\n")
    assert compute_checkpoint_key(**ingredients, library=library) != before


def test_files_of_one_name_are_not_mistaken_for_each_other(
    ingredients: dict[str, Any], library: Path
) -> None:
    """Two of them exchanged are another library, though names and contents are the same."""
    one, other = library / "stride" / "similarity.py", library / "screens" / "similarity.py"
    before = compute_checkpoint_key(**ingredients, library=library)
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    assert compute_checkpoint_key(**ingredients, library=library) != before
