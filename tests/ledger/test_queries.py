"""Parts of queries that several questions share."""

from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import pytest
from audits import benign, write_rows
from clusters import HIGH, LOW, MEDIUM, audit, found, settings
from ledgers import NAME, cover, covered_ledger, pull
from sqlalchemy import select

from poisonwatch.detection.result import AttributionResult
from poisonwatch.examples import Example
from poisonwatch.ledger.history import list_undecided_ids
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.overview import AuditFilter
from poisonwatch.ledger.queries import (
    is_hex,
    match_id_prefix,
    order_by_strength,
    select_last_audits,
    select_rows_of_file,
)
from poisonwatch.ledger.queue import export_flagged_rows, list_group_rows
from poisonwatch.ledger.reviews import list_review_candidates
from poisonwatch.ledger.tables import flags, results, rows
from poisonwatch.screens.finding import Finding

TEA = benign(1)[0]["prompt"]


@pytest.mark.parametrize(("text", "expected"), [("0af", True), ("", False), ("0AF", False)])
def test_hexadecimal_digits_are_in_lower_case(text: str, expected: bool) -> None:
    """As ids are printed; nothing is none."""
    assert is_hex(text) is expected


def test_a_row_is_found_by_any_number_of_its_first_digits(tmp_path: Path) -> None:
    """Odd numbers of them, too, and all 64."""
    with covered_ledger(tmp_path, TEA) as ledger, ledger.read() as connection:
        ids = sorted(bytes(id).hex() for id in connection.scalars(select(rows.c.id)))
        for digits in (1, 7, 8, 64):
            prefix = ids[0][:digits]
            found = connection.scalars(select(rows.c.id).where(match_id_prefix(prefix)))
            expected = [id for id in ids if id.startswith(prefix)]
            assert sorted(bytes(id).hex() for id in found) == expected


def test_the_last_audit_of_a_row_is_found(tmp_path: Path) -> None:
    """Of rows that two audits took, the second; rows of a file are those that it holds."""
    with covered_ledger(tmp_path, TEA) as ledger:
        cover(ledger, tmp_path / "again", again=True)
        last = select_last_audits(results)
        with ledger.read() as connection:
            assert set(connection.scalars(select(last.c.audit))) == {2}
            assert len(connection.scalars(select_rows_of_file("a.jsonl")).all()) == 5


def test_flags_are_in_one_order_wherever_they_are_read(tmp_path: Path, url: str) -> None:
    """Strongest first, as in memory: those of a screen alone come last, even where their text says
    that attribution found them; equal scores by id.
    """
    claims = {"prompt": 'Say "by": ["stride"', "response": '{"by": ["stride"]}'}
    write_rows(tmp_path / "rows.jsonl", [*benign(7), claims])
    scores = [MEDIUM, HIGH, LOW, MEDIUM, MEDIUM, HIGH, MEDIUM, HIGH]
    made: list[str] = []

    def flag_all(examples: list[Example]) -> AttributionResult:
        attributed = found([(LOW, examples)])
        flagged = []
        for number, (flag, score) in enumerate(
            zip(attributed.detection.flags, scores, strict=True)
        ):
            screened = number >= 6
            said = (Finding(number, "urls", "a", "names a link."),) if screened else ()
            flagged.append(replace(flag, score=score, by_attribution=not screened, findings=said))
        made.extend(flag.example.id for flag in sorted(flagged, key=attrgetter("strength")))
        detection = replace(attributed.detection, flags=tuple(flagged))
        return AttributionResult(detection, attributed.evidence)

    with Ledger.at(url) as ledger:
        pull(ledger, tmp_path)
        audit(ledger, tmp_path / "run", settings(), flag_all)
        assert len(made) == 8
        query = select(rows.c.id).join(flags, flags.c.row == rows.c.row)
        with ledger.read() as connection:
            ids = connection.scalars(query.order_by(*order_by_strength()))
            assert [bytes(id).hex() for id in ids] == made
        assert [row.example_id for row in list_group_rows(ledger, "run", "1")] == made
        assert [row["example_id"] for row in export_flagged_rows(ledger, AuditFilter())] == made
        assert list_undecided_ids(ledger, 1) == made
        candidates = list_review_candidates(ledger, NAME, 8)
        assert [candidate.record["example_id"] for candidate in candidates] == made
