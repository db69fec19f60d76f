"""Flagged rows as a file for spreadsheets."""

import csv
import io
from pathlib import Path

from browsing import flags
from starlette.testclient import TestClient


def test_the_export_holds_every_flag(client: TestClient, config: Path) -> None:
    """As a spreadsheet reads it."""
    sent = client.get("/triage/export.csv?state=all")
    rows = list(csv.DictReader(io.StringIO(sent.text)))
    assert {row["example_id"] for row in rows} == {flag["example_id"] for flag in flags(config)}
    assert "attachment" in sent.headers["Content-Disposition"]
