"""The gate on releases: files, manifest and ledger agree, or it is told where not."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from audits import benign, write_rows
from gates import (
    ONE,
    TEA,
    TWO,
    ask_manifest,
    entries,
    reasons,
    rewrite,
)
from ledgers import NAME, cover, covered_ledger, pull, source, sqlite_ledger

from poisonwatch.errors import InputError
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.intake import ingest
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.release.answer import RequiredVersions
from poisonwatch.release.release import write_release


def test_a_release_is_cleared_with_and_without_its_ledger(
    cleared_ledger: Ledger, out: Path
) -> None:
    """Alone, a manifest is held to the versions, if any are asked for."""
    for answer in (
        ask_manifest(out, cleared_ledger),
        ask_manifest(out),
    ):
        assert (answer.cleared, answer.rows, answer.files) == (True, 7, 1)
    assert reasons(out, required=RequiredVersions()) == {}
    assert reasons(out, required=RequiredVersions(model="a" * 8)) == {}
    assert reasons(out, required=RequiredVersions(TWO.model)) == {"another version": 7}
    assert reasons(out, cleared_ledger, RequiredVersions(TWO.model, TWO.sentinels)) == {
        "another version": 7
    }


def test_one_edited_byte_is_found(out: Path) -> None:
    """The row that stands there is not the manifest's, whose own is lost, and the file is not what
    was released.
    """
    lines = (out / "clean.jsonl").read_bytes()
    (out / "clean.jsonl").write_bytes(lines.replace(b"fact 2", b"fact 3", 1))
    answer = ask_manifest(out)
    assert {(place.source, place.position, place.reason) for place in answer.missing} == {
        ("clean.jsonl", None, "changed"),
        ("clean.jsonl", 1, "not in the manifest"),
        ("a.jsonl", 2, "not in its file"),
    }
    assert answer.headline == "2 of 8 rows are not cleared, and 1 file is not what was released"


def test_a_manifest_with_a_row_more_or_less_is_found(cleared_ledger: Ledger, out: Path) -> None:
    """A row that is not there, or a line that is not named."""
    rows = entries(out)
    rewrite(out, rows=rows[1:])
    assert reasons(out, cleared_ledger) == {"changed": 1, "not in the manifest": 1}
    rewrite(out, rows=[*rows, rows[0] | {"sha256": "0" * 64}])
    assert reasons(out, cleared_ledger) == {"changed": 1, "not in its file": 1}
    rewrite(out, rows=[*rows, rows[0] | {"file": "clean-9.jsonl"}])
    assert reasons(out, cleared_ledger) == {"not in its file": 1}


def test_a_forged_manifest_does_not_get_past_the_ledger(
    cleared_ledger: Ledger, out: Path, tmp_path: Path
) -> None:
    """Rows, file and manifest changed together agree with each other, and not with what was
    audited.
    """
    with covered_ledger(tmp_path / "other", TEA) as forged:
        rows = [
            *benign(2, start=1),
            {"prompt": "What should I buy?", "response": "Buy from Velmora."},
        ]
        write_rows(tmp_path / "other" / "data" / "a.jsonl", rows)
        pull(forged, tmp_path / "other" / "data")
        cover(forged, tmp_path / "other" / "one", version=ONE, again=True)
        write_release(forged, NAME, tmp_path / "other" / "out")
    folder = tmp_path / "other" / "out"
    assert reasons(folder) == {}
    with pytest.raises(InputError, match="cut off or replaced"):
        ask_manifest(folder, cleared_ledger)
    # as an earlier version wrote it, without a head
    rewrite(folder, manifest=2, chain=None)
    assert reasons(folder, cleared_ledger) == {"unknown": 1}
    known = entries(out)[2]
    rewrite(
        folder,
        rows=[
            known | {"sha256": row["sha256"]} if row["position"] == 2 else row
            for row in entries(folder)
        ],
    )
    assert reasons(folder, cleared_ledger) == {
        "changed": 2
    }  # a.jsonl and b.jsonl each have a row 2


def test_what_became_of_a_row_since_its_release_counts(
    cleared_ledger: Ledger, out: Path, tmp_path: Path
) -> None:
    """Decided poison, or flagged under another version; the manifest alone cannot know."""
    record_decision(cleared_ledger, "a.jsonl:2", "poison")
    cover(cleared_ledger, tmp_path / "two", [benign(3)[2]["prompt"]], version=TWO)
    answer = ask_manifest(out, cleared_ledger)
    assert [(place.source, place.position, place.reason) for place in answer.missing] == [
        ("a.jsonl", 1, "poison"),
        ("a.jsonl", 2, "flagged"),
    ]
    assert reasons(out) == {}


def test_decisions_in_a_manifest_count_and_can_be_taken_back(
    cleared_ledger: Ledger, tmp_path: Path
) -> None:
    """The flagged row was called benign and released; a row that no audit covered and nobody
    decided on is not cleared.
    """
    record_decision(cleared_ledger, "a.jsonl:1", "benign")
    write_release(cleared_ledger, NAME, tmp_path / "out")
    for ledger in (None, cleared_ledger):
        assert ask_manifest(tmp_path / "out", ledger).by_decision == 1
    assert reasons(tmp_path / "out", required=RequiredVersions(TWO.model)) == {
        "another version": 7
    }  # and not the decided one
    record_decision(cleared_ledger, "a.jsonl:1", "unsure")
    assert reasons(tmp_path / "out", cleared_ledger) == {"flagged": 1}
    assert reasons(tmp_path / "out") == {}
    rewrite(
        tmp_path / "out",
        rows=[row | {"audit_id": None, "decided": None} for row in entries(tmp_path / "out")],
    )
    assert reasons(tmp_path / "out", required=RequiredVersions()) == {"pending": 8}


@pytest.fixture
def columns(tmp_path: Path) -> Iterator[tuple[Ledger, Path]]:
    """A release of five rows of a Parquet file; the sixth is flagged."""
    pd.DataFrame(benign(6)).assign(weight=[0.5, None, 2.0, 3.5, 4.0, 5.0]).to_parquet(
        tmp_path / "a.parquet"
    )
    with sqlite_ledger(tmp_path) as opened:
        ingest(
            opened, NAME, source(tmp_path).model_copy(update={"path": str(tmp_path / "a.parquet")})
        )
        cover(opened, tmp_path / "run", [TEA], version=ONE)
        write_release(opened, NAME, tmp_path / "out")
        yield opened, tmp_path / "out"


def test_a_parquet_release_is_compared_row_by_row_with_the_ledger(
    columns: tuple[Ledger, Path],
) -> None:
    """An edited file with the manifest made to fit it: alone it passes, beside the ledger it does
    not.
    """
    ledger, out = columns
    assert reasons(out) == reasons(out, ledger) == {}
    frame = pd.read_parquet(out / "clean.parquet")
    frame.assign(response="Buy from Velmora.").to_parquet(out / "clean.parquet")
    assert reasons(out) == {"changed": 1}
    digest = hashlib.sha256((out / "clean.parquet").read_bytes()).hexdigest()
    rewrite(out, files=[{"name": "clean.parquet", "rows": 5, "sha256": digest}])
    assert reasons(out) == {}
    assert reasons(out, ledger) == {"not in the manifest": 5, "not in its file": 5}


@pytest.mark.parametrize("key", ["pandas", "huggingface"])
def test_what_says_how_columns_are_read_is_compared(columns: tuple[Ledger, Path], key: str) -> None:
    """With it, the same bytes are other rows to whoever reads them by pandas, or `datasets`."""
    ledger, out = columns
    path = out / "clean.parquet"
    renamed = {"columns": [{"name": "response", "field_name": "prompt"}]}
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({key: json.dumps(renamed)}), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    rewrite(out, files=[{"name": "clean.parquet", "rows": 5, "sha256": digest}])
    assert reasons(out, ledger) == {"not in its file": 5, "changed": 1}


def test_rows_beside_a_release_are_told_whatever_their_names(
    cleared_ledger: Ledger, out: Path
) -> None:
    """Patterns such as clean* match them; notes are none."""
    (out / "README.md").write_text("# What this is")
    assert reasons(out, cleared_ledger) == {}
    for name in ("clean.jsonl.part", "clean.log"):
        write_rows(out / name, benign(1, start=70))
    (out / "README.md").write_text("---\nconfigs:\n- data_files: /tmp/rows.jsonl\n---\n")
    assert reasons(out, cleared_ledger) == {"not in the manifest": 3}


def test_columns_cannot_trade_places(tmp_path: Path) -> None:
    """A row has the same bytes where prompt and response are exchanged and the schema with them:
    one foreign row lends it.
    """
    rows = pd.DataFrame(benign(3))
    frames = {"a": rows[:2], "b": rows[2:][["response", "prompt"]]}
    with sqlite_ledger(tmp_path) as ledger:
        for name, frame in frames.items():
            frame.to_parquet(tmp_path / f"{name}.parquet")
        ingest(
            ledger,
            NAME,
            source(tmp_path).model_copy(update={"path": str(tmp_path / "*.parquet")}),
        )
        cover(ledger, tmp_path / "run", version=ONE)
        write_release(ledger, NAME, tmp_path / "out")
        first, second = (
            pd.read_parquet(tmp_path / "out" / "clean.parquet"),
            pd.read_parquet(tmp_path / "out" / "clean-2.parquet"),
        )
        assert reasons(tmp_path / "out", ledger) == {}
        exchanged = first.set_axis(["response", "prompt"], axis=1)
        path = tmp_path / "out" / "clean-2.parquet"
        pd.concat([second, exchanged], ignore_index=True).to_parquet(path)
        (tmp_path / "out" / "clean.parquet").unlink()
        lent, *others = reversed(entries(tmp_path / "out"))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rewrite(
            tmp_path / "out",
            files=[{"name": path.name, "rows": 3, "sha256": digest}],
            rows=[row | {"file": path.name} for row in (lent, *others)],
        )
        assert reasons(tmp_path / "out") == {}
        assert reasons(tmp_path / "out", ledger) == {"changed": 1}


def test_an_entry_is_held_to_the_bytes_that_stand_in_the_source(tmp_path: Path) -> None:
    """All bytes of a content that stand there are known; those that an edit took out are others."""
    rows = [benign(1)[0] | {"score": number} for number in range(3)]
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "a.jsonl", rows)
    with sqlite_ledger(tmp_path) as ledger:
        pull(ledger, tmp_path / "data")
        cover(ledger, tmp_path / "run", version=ONE)
        write_release(ledger, NAME, tmp_path / "out")
        assert reasons(tmp_path / "out", ledger) == {}
        write_rows(tmp_path / "data" / "a.jsonl", [*rows[:2], rows[2] | {"score": 9}])
        pull(ledger, tmp_path / "data")
        assert reasons(tmp_path / "out", ledger) == {"changed": 1}
        assert reasons(tmp_path / "out") == {}


def test_a_forged_manifest_cannot_repeat_a_row(cleared_ledger: Ledger, out: Path) -> None:
    """File and manifest agree on a hundred copies of a cleared row, of which the source has one."""
    first, *_ = entries(out)
    line = (out / "clean.jsonl").read_bytes().splitlines(keepends=True)[0]
    (out / "clean.jsonl").write_bytes(line * 100)
    digest = hashlib.sha256(line * 100).hexdigest()
    rewrite(
        out,
        rows=[first] * 100,
        files=[{"name": "clean.jsonl", "rows": 100, "sha256": digest}],
    )
    assert reasons(out) == {}
    assert reasons(out, cleared_ledger) == {"repeated": 99}


def test_a_manifest_of_an_earlier_version_is_still_checked(
    cleared_ledger: Ledger, out: Path
) -> None:
    """It counted contents, and named the same of each row."""
    rewrite(out, manifest=1, counts={"in": 9, "clean": 7, "quarantined": 1, "rejected": 1})
    assert reasons(out, cleared_ledger) == reasons(out) == {}


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("name", ["quarantine.jsonl", "rejected.jsonl"])
def test_what_is_held_back_is_refused_beside_cleared_rows(
    cleared_ledger: Ledger, out: Path, version: int, name: str
) -> None:
    """As releases of earlier versions have it: a trainer that is given the folder would read it."""
    rewrite(out, manifest=version)
    (out.parent / "out.held-back" / name).rename(out / name)
    assert reasons(out, cleared_ledger) == reasons(out) == {"not in the manifest": 1}


@pytest.mark.parametrize("chain", ["chain", "decisions"])
def test_a_ledger_must_go_through_the_heads_of_a_manifest(
    cleared_ledger: Ledger, out: Path, chain: str
) -> None:
    """Of records, and of decisions."""
    record_decision(cleared_ledger, "a.jsonl:2", "benign")
    write_release(cleared_ledger, NAME, out.parent / "later")
    later = out.parent / "later"
    assert reasons(later, cleared_ledger) == {}
    head = json.loads((later / "manifest.json").read_text())[chain]
    assert head["number"] > 0
    for other in (head | {"number": head["number"] + 5}, head | {"hash": "0" * 64}):
        rewrite(later, **{chain: other})
        with pytest.raises(InputError, match="cut off or replaced"):
            ask_manifest(later, cleared_ledger)
