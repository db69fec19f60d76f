"""A release on the hub: a real server that speaks the calls, and takes them from who has a token."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from data_hub import TOKEN, DataHub, data_hub
from ledgers import NAME
from pairs import PAIR, audited_pairs
from servers import free_port

from poisonwatch.errors import InputError, OperationError
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.release.push import push_release
from poisonwatch.release.release import write_release

pytestmark = pytest.mark.starts


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Of a release with one repaired row; another row is held back."""
    with audited_pairs(tmp_path) as ledger:
        record_decision(ledger, PAIR, "flip")
        write_release(ledger, NAME, tmp_path / "out")
    return tmp_path / "out" / "manifest.json"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[DataHub]:
    with data_hub() as opened:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", opened.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield opened


def test_cleared_rows_go_to_a_private_data_set_with_their_manifest(
    hub: DataHub, manifest: Path
) -> None:
    """Byte by byte, with a card that names the files; nothing that is held back."""
    pushed = push_release(manifest, "me/rows")
    files = hub.files["me/rows"]
    assert files.keys() == {"clean.jsonl", "manifest.json", "README.md"}
    assert files["clean.jsonl"] == (manifest.parent / "clean.jsonl").read_bytes()
    assert files["manifest.json"] == manifest.read_bytes()
    assert b"data_files: clean.jsonl" in files["README.md"]
    assert hub.private["me/rows"]
    assert (pushed.url, pushed.kept_card) == (f"{hub.url}/datasets/me/rows", False)
    assert TOKEN not in str(pushed.record())
    push_release(manifest, "me/open", public=True)
    assert not hub.private["me/open"]


def test_a_later_release_takes_the_place_of_an_earlier_one(hub: DataHub, manifest: Path) -> None:
    """Files of that go in the same commit; a card and others stay."""
    hub.files["me/rows"] = {"clean-2.parquet": b"old", "README.md": b"mine", "notes.txt": b"mine"}
    assert push_release(manifest, "me/rows").kept_card
    files = hub.files["me/rows"]
    assert files.keys() == {"clean.jsonl", "manifest.json", "README.md", "notes.txt"}
    assert (files["README.md"], hub.commits) == (b"mine", 1)


def test_a_hub_that_takes_nothing_is_one_line_without_the_token(
    hub: DataHub, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that it does not know, a name that is none, nobody there."""
    wrong = TOKEN + "x"
    monkeypatch.setenv("HF_TOKEN", wrong)
    with pytest.raises(OperationError, match=r"401.*HF_TOKEN") as refused:
        push_release(manifest, "me/rows")
    assert wrong not in str(refused.value)
    with pytest.raises(InputError, match="USER/NAME"):
        push_release(manifest, "not a/name\x1b")
    gone = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", gone)
    with pytest.raises(OperationError, match="cannot be reached"):
        push_release(manifest, "me/rows")
    assert hub.commits == 0
