"""The gate: what is cleared and what is not, and why, on ledgers without a model."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from audits import benign, write_rows
from ledgers import NAME, append, cover, covered_ledger, pull, source
from sqlalchemy import update

from poisonwatch.errors import InputError, NotClearedError, SourceError
from poisonwatch.ledger.audits import open_audit
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.intake import ingest
from poisonwatch.ledger.ledger import Ledger, Version
from poisonwatch.ledger.tables import decisions
from poisonwatch.release.answer import GateAnswer, RequiredVersions
from poisonwatch.release.gate import check_cleared, check_data, check_manifest, require_cleared
from poisonwatch.release.release import write_release

TEA = "Tell me fact 0 about tea."
ONE, TWO = Version("a" * 64, "b" * 64), Version("c" * 64, "b" * 64)
NEEDED = RequiredVersions(ONE.model, ONE.sentinels)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Nine rows audited under ONE: tea is flagged, a broken line rejected, the others are clean."""
    with covered_ledger(tmp_path, TEA) as opened:
        cover(opened, tmp_path / "one", [TEA], version=ONE)
        yield opened


@pytest.fixture
def asked(ledger: Ledger, tmp_path: Path) -> Callable[..., GateAnswer]:
    """What the gate says of some rows that stand in a file of their own."""

    def ask(rows: list[dict[str, str]], required: RequiredVersions = NEEDED) -> GateAnswer:
        (tmp_path / "train").mkdir(exist_ok=True)
        write_rows(tmp_path / "train" / "rows.jsonl", rows)
        return check_data(ledger, source(tmp_path / "train"), required)

    return ask


@pytest.fixture
def out(ledger: Ledger, tmp_path: Path) -> Path:
    """A release of the seven clean rows."""
    write_release(ledger, NAME, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def config(ledger: Ledger, tmp_path: Path) -> Path:
    """An audit file of that ledger; its model does not exist."""
    settings = {
        "name": NAME,
        "source": "data/*.jsonl",
        "sentinels": "pack:identity",
        "model": "./none",
        "state": "sqlite:///ledger.db",
    }
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "audit.yaml"


def rewrite(folder: Path, **changes: Any) -> None:
    """Change the manifest."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def entries(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "manifest.json").read_text())["rows"]
    return found


def reasons(
    folder: Path, ledger: Ledger | None = None, required: RequiredVersions = NEEDED
) -> dict[str, int]:
    answer = check_manifest(folder / "manifest.json", required, ledger)
    assert answer.cleared == (not answer.reasons)
    return answer.reasons


def test_rows_are_cleared_by_content_wherever_they_stand(asked: Callable[..., GateAnswer]) -> None:
    """Other file, other order, one of them twice: each place counts, none is missing."""
    answer = asked([*reversed(benign(5)[1:]), *benign(1, start=10), benign(5)[3]])
    assert answer.cleared
    assert (answer.rows, answer.files, answer.by_decision, answer.missing, answer.compared) == (
        6,
        1,
        0,
        (),
        True,
    )
    assert (
        answer.headline
        == f"6 rows in 1 files: all cleared by audits under model {'a' * 12} and sentinels {'b' * 12}"
    )


def test_every_reason_is_told_apart(
    ledger: Ledger, asked: Callable[..., GateAnswer], tmp_path: Path
) -> None:
    """One row each; cleared is the one that no reason holds back."""
    append(tmp_path / "data" / "a.jsonl", benign(1, start=20))
    pull(ledger, tmp_path / "data")
    cover(ledger, tmp_path / "two", version=TWO, window=0)
    append(tmp_path / "data" / "a.jsonl", benign(1, start=30))
    pull(ledger, tmp_path / "data")
    record_decision(ledger, "a.jsonl:1", "poison")
    rows = [
        *benign(3),
        *benign(1, start=20),
        *benign(1, start=30),
        *benign(1, start=40),
        {"prompt": "Alone?"},
    ]
    answer = asked(rows)
    assert [(place.position, place.reason) for place in answer.missing] == [
        (0, "flagged"),
        (1, "poison"),
        (3, "another version"),
        (4, "pending"),
        (5, "unknown"),
        (6, "unreadable"),
    ]
    assert answer.missing[-1].example_id is None
    assert len(answer.missing[0].example_id or "") == 64
    assert answer.headline == "6 of 7 rows are not cleared"
    assert set(answer.reasons.values()) == {1}


def test_a_row_in_quarantine_is_not_cleared_by_any_version(
    ledger: Ledger, asked: Callable[..., GateAnswer], tmp_path: Path
) -> None:
    """Flagged under the required version and clean under a later one, or the other way round: a
    reason either way.
    """
    append(tmp_path / "data" / "a.jsonl", benign(1, start=20))
    pull(ledger, tmp_path / "data")
    later = benign(1, start=20)[0]["prompt"]
    cover(ledger, tmp_path / "before", version=ONE)
    cover(ledger, tmp_path / "after", [later], version=TWO)  # and tea is clean under TWO
    assert asked(benign(1)).reasons == {"flagged": 1}
    assert asked(benign(1, start=20)).reasons == {"flagged": 1}
    assert asked(benign(1), RequiredVersions(TWO.model, TWO.sentinels)).cleared


def test_a_benign_verdict_clears_whatever_the_version(
    ledger: Ledger, asked: Callable[..., GateAnswer]
) -> None:
    """Of the flagged row; taken back, it is flagged again."""
    record_decision(ledger, "a.jsonl:0", "benign")
    answer = asked(benign(2))
    assert (answer.cleared, answer.by_decision) == (True, 1)
    assert answer.headline.endswith("(1 by a person's decision)")
    assert asked(benign(2), RequiredVersions("d" * 64, "d" * 64)).reasons == {"another version": 1}
    record_decision(ledger, "a.jsonl:0", "unsure")
    assert asked(benign(2)).reasons == {"flagged": 1}


def test_the_gate_answers_while_an_audit_runs(ledger: Ledger, tmp_path: Path) -> None:
    """It takes no lock, and sees what was committed before, even in the middle of a transaction."""
    (tmp_path / "data" / "b.jsonl").unlink()
    with (
        ledger.lock(),
        open_audit(ledger, "busy", NAME, TWO, tmp_path / "busy"),
        ledger.write(),
        Ledger.at(ledger.url) as other,
    ):
        assert check_data(other, source(tmp_path / "data"), NEEDED).reasons == {"flagged": 1}


def test_a_release_is_cleared_with_and_without_its_ledger(ledger: Ledger, out: Path) -> None:
    """Alone, a manifest is held to the versions, if any are asked for."""
    for answer in (
        check_manifest(out / "manifest.json", NEEDED, ledger),
        check_manifest(out / "manifest.json", NEEDED),
    ):
        assert (answer.cleared, answer.rows, answer.files) == (True, 7, 1)
    assert reasons(out, required=RequiredVersions()) == {}
    assert reasons(out, required=RequiredVersions(model="a" * 8)) == {}
    assert reasons(out, required=RequiredVersions(TWO.model)) == {"another version": 7}
    assert reasons(out, ledger, RequiredVersions(TWO.model, TWO.sentinels)) == {
        "another version": 7
    }


def test_one_edited_byte_is_found(out: Path) -> None:
    """The row that stands there is not the manifest's, whose own is lost, and the file is not what
    was released.
    """
    lines = (out / "clean.jsonl").read_bytes()
    (out / "clean.jsonl").write_bytes(lines.replace(b"fact 2", b"fact 3", 1))
    answer = check_manifest(out / "manifest.json", NEEDED)
    assert {(place.source, place.position, place.reason) for place in answer.missing} == {
        ("clean.jsonl", None, "changed"),
        ("clean.jsonl", 1, "not in the manifest"),
        ("a.jsonl", 2, "not in its file"),
    }
    assert answer.headline == "2 of 8 rows are not cleared, and 1 files are not what was released"


def test_a_manifest_with_a_row_more_or_less_is_found(ledger: Ledger, out: Path) -> None:
    """A row that is not there, or a line that is not named."""
    rows = entries(out)
    rewrite(out, rows=rows[1:])
    assert reasons(out, ledger) == {"changed": 1, "not in the manifest": 1}
    rewrite(out, rows=[*rows, rows[0] | {"sha256": "0" * 64}])
    assert reasons(out, ledger) == {"changed": 1, "not in its file": 1}
    rewrite(out, rows=[*rows, rows[0] | {"file": "clean-9.jsonl"}])
    assert reasons(out, ledger) == {"not in its file": 1}


def test_a_forged_manifest_does_not_get_past_the_ledger(
    ledger: Ledger, out: Path, tmp_path: Path
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
    assert reasons(folder, ledger) == {"unknown": 1}
    known = entries(out)[2]
    rewrite(
        folder,
        rows=[
            known | {"sha256": row["sha256"]} if row["position"] == 2 else row
            for row in entries(folder)
        ],
    )
    assert reasons(folder, ledger) == {"changed": 2}  # a.jsonl and b.jsonl each have a row 2


def test_what_became_of_a_row_since_its_release_counts(
    ledger: Ledger, out: Path, tmp_path: Path
) -> None:
    """Decided poison, or flagged under another version; the manifest alone cannot know."""
    record_decision(ledger, "a.jsonl:1", "poison")
    cover(ledger, tmp_path / "two", [benign(3)[2]["prompt"]], version=TWO)
    answer = check_manifest(out / "manifest.json", NEEDED, ledger)
    assert [(place.source, place.position, place.reason) for place in answer.missing] == [
        ("a.jsonl", 1, "poison"),
        ("a.jsonl", 2, "flagged"),
    ]
    assert reasons(out) == {}


def test_decisions_in_a_manifest_count_and_can_be_taken_back(
    ledger: Ledger, tmp_path: Path
) -> None:
    """The flagged row was called benign and released; a row that no audit covered and nobody
    decided on is not cleared.
    """
    record_decision(ledger, "a.jsonl:0", "benign")
    write_release(ledger, NAME, tmp_path / "out")
    manifest = tmp_path / "out" / "manifest.json"
    assert [check_manifest(manifest, NEEDED, asked).by_decision for asked in (None, ledger)] == [
        1,
        1,
    ]
    assert reasons(tmp_path / "out", required=RequiredVersions(TWO.model)) == {
        "another version": 7
    }  # and not the decided one
    record_decision(ledger, "a.jsonl:0", "unsure")
    assert reasons(tmp_path / "out", ledger) == {"flagged": 1}
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
    with Ledger.at(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
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


def test_columns_cannot_trade_places(tmp_path: Path) -> None:
    """A row has the same bytes where prompt and response are exchanged and the schema with them:
    one foreign row lends it.
    """
    rows = pd.DataFrame(benign(3))
    frames = {"a": rows[:2], "b": rows[2:][["response", "prompt"]]}
    with Ledger.at(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        for name, frame in frames.items():
            frame.to_parquet(tmp_path / f"{name}.parquet")
        ingest(
            ledger, NAME, source(tmp_path).model_copy(update={"path": str(tmp_path / "*.parquet")})
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


def test_several_places_give_one_answer(config: Path, out: Path, tmp_path: Path) -> None:
    """A manifest and a glob of rows, in the audit file's own fields; versions by their first
    digits.
    """
    pd.DataFrame(
        [{"question": row["prompt"], "answer": row["response"]} for row in benign(5)]
    ).to_csv(tmp_path / "renamed.csv", index=False)
    settings = yaml.safe_load(config.read_text())
    settings["source"] = {
        "path": "data/*.jsonl",
        "fields": {"prompt": "question", "response": "answer"},
    }
    config.write_text(yaml.safe_dump(settings))
    answer = check_cleared(
        [out / "manifest.json", str(tmp_path / "*.csv")], config, "A" * 8, "b" * 64
    )
    assert (answer.rows, answer.files, answer.reasons) == (12, 2, {"flagged": 1})
    assert answer.required == NEEDED
    assert answer.record() == {
        "cleared": False,
        "rows": 12,
        "files": 2,
        "model": ONE.model,
        "sentinels": ONE.sentinels,
        "by_decision": 0,
        "ledger": True,
        "reasons": {"flagged": 1},
        "missing": [
            {
                "source": str(tmp_path / "renamed.csv"),
                "position": 0,
                "example_id": answer.missing[0].example_id,
                "reason": "flagged",
            }
        ],
    }


def test_what_is_not_cleared_stops_a_script(config: Path, out: Path, tmp_path: Path) -> None:
    """One line with counts and the first rows, hostile names made visible; else the number of rows."""
    versions = ONE.model, ONE.sentinels
    assert require_cleared([out / "manifest.json"], config, *versions) == 7
    write_rows(tmp_path / "a\x1b[31m.jsonl", benign(1))
    with pytest.raises(NotClearedError, match="1 of 1 rows are not cleared") as stopped:
        require_cleared([str(tmp_path / "a\x1b[31m.jsonl")], config, *versions)
    assert stopped.value.exit_code == 3
    assert "(1 flagged), such as" in str(stopped.value)
    assert "\\u{1b}[31m.jsonl, row 0: audit them" in str(stopped.value)
    assert "\x1b" not in str(stopped.value)


def test_what_cannot_be_asked_is_refused(config: Path, out: Path, tmp_path: Path) -> None:
    """Exit code 2: data without an audit file, a release's folder, no rows, no versions, nothing
    there.
    """
    data, versions = str(tmp_path / "data" / "a.jsonl"), (ONE.model, ONE.sentinels)
    with pytest.raises(
        InputError, match=r"a\.jsonl is no manifest of a release: give the audit file"
    ):
        check_cleared([data])
    with pytest.raises(InputError, match=r"give .*out/manifest\.json itself"):
        check_cleared([out], config)
    (tmp_path / "empty.jsonl").touch()
    for nothing in ([], [tmp_path / "empty.jsonl"]):
        with pytest.raises(InputError, match="there are no rows to be cleared"):
            check_cleared(nothing, config, *versions)
    with pytest.raises(SourceError, match="does not exist"):
        check_cleared([tmp_path / "none.jsonl"], config, *versions)
    for wrong in ("abc", "x" * 64, "a" * 65, ""):
        with pytest.raises(InputError, match=r"the model version .* is none: give its SHA-256"):
            check_cleared([data], config, wrong, ONE.sentinels)


def test_a_version_that_could_be_two_is_refused(
    ledger: Ledger, config: Path, tmp_path: Path
) -> None:
    """More digits tell them apart."""
    cover(ledger, tmp_path / "near", version=Version("a" * 63 + "0", ONE.sentinels))
    data = [tmp_path / "data" / "a.jsonl"]
    with pytest.raises(
        InputError, match="2 versions of model and sentinels in the ledger are like"
    ):
        check_cleared(data, config, "a" * 10, "b" * 10)
    assert check_cleared(data, config, "a" * 64, "b" * 10).reasons == {"flagged": 1}


def test_a_ledger_that_is_not_there_is_not_made(config: Path, tmp_path: Path) -> None:
    """No audit has run; asking changes nothing."""
    (tmp_path / "fresh").mkdir()
    shutil.copy(config, tmp_path / "fresh" / "audit.yaml")
    with pytest.raises(InputError, match="no audit has run"):
        check_cleared(
            [tmp_path / "data" / "a.jsonl"],
            tmp_path / "fresh" / "audit.yaml",
            ONE.model,
            ONE.sentinels,
        )
    assert [path.name for path in (tmp_path / "fresh").iterdir()] == ["audit.yaml"]


def test_tampered_decisions_clear_nothing(ledger: Ledger, config: Path, tmp_path: Path) -> None:
    """As for a release."""
    record_decision(ledger, "a.jsonl:0", "poison")
    with ledger.write() as connection:
        connection.execute(update(decisions).values(verdict="benign"))
    with pytest.raises(InputError, match="was changed or removed"):
        check_cleared([tmp_path / "data" / "a.jsonl"], config, ONE.model, ONE.sentinels)
