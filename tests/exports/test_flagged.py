"""Which flagged rows leave."""

import json
from pathlib import Path

import pytest
from audits import benign
from exported import ASKED, PLAIN, audited_rows
from ledgers import NAME, append, cover

from poisonwatch.errors import InputError
from poisonwatch.exports.flagged import FACTS, collect_flagged, list_facts, show_texts
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.intake import ingest


def test_the_last_audit_that_rows_waited_for_is_the_default(tmp_path: Path) -> None:
    """Others by their id, all by `all`; what is decided only with state all."""
    with audited_rows(tmp_path) as audited:
        ledger = audited.ledger
        append(tmp_path / "data" / "c.jsonl", benign(31)[30:])
        with ledger.lock(NAME):
            ingest(ledger, NAME, audited.settings.source)
        prompt = benign(31)[30]["prompt"]
        cover(ledger, tmp_path / "second", flagged=[prompt])

        def asked(audit: str | None = None, state: str = "open") -> set[str]:
            rows = collect_flagged(ledger, NAME, audit, state)
            return {row["messages"][0]["content"] for row in rows}

        assert asked() == {prompt}
        assert asked("run") == {ASKED, PLAIN}
        assert asked("all") == {prompt, ASKED, PLAIN}
        (plain,) = (row for row in collect_flagged(ledger, NAME, "run") if PLAIN in str(row))
        record_decision(ledger, plain["example_id"], "poison", author="ann")
        assert asked("all") == {prompt, ASKED}
        assert asked("all", "all") == {prompt, ASKED, PLAIN}
        for name, audit in ((NAME, "third"), ("other", "run"), ("other", None)):
            with pytest.raises(InputError, match="came to results"):
                collect_flagged(ledger, name, audit)


def test_facts_are_plain_json_and_texts_visible(tmp_path: Path) -> None:
    """No null, no number that JSON lacks, no hidden character; lines count from 1."""
    with audited_rows(tmp_path) as audited:
        rows = collect_flagged(audited.ledger, NAME)
    for row in rows:
        facts = list_facts({**row, "p_value": float("nan"), "q_value": None})
        assert set(FACTS) - set(facts) <= {"p_value", "q_value", "group", "decided"}
        assert json.loads(json.dumps(facts, allow_nan=False)) == facts
        assert facts["line"] == facts["position"] + 1
        for text in show_texts(row).values():
            assert text.isprintable()
