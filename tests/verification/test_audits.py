"""What audits found is what their records say."""

import pytest
from tampering import check_found

from poisonwatch.attestation.signer import KeySigner
from poisonwatch.ledger.ledger import Ledger

FORGERIES = [
    ("UPDATE results SET flagged = 1 - flagged WHERE row = 2", "results"),
    ("UPDATE results SET version = 3 - version WHERE row = 2", "version"),
    ("UPDATE results SET audit = 3 - audit WHERE row = 1", "results"),
    ("DELETE FROM results WHERE row = 2 AND audit = 1", "results"),
    ("INSERT INTO results VALUES (9, 1, 1, 0)", "results"),
    ("UPDATE rejections SET reason = 'none'", "rejections"),
    ("UPDATE rejections SET checks = 'none'", "rejections"),
    ("DELETE FROM rejections WHERE audit = 1", "rejections"),
    ("UPDATE flags SET score = score + 1 WHERE audit = 1", "flags"),
    ("UPDATE flags SET record = '{}' WHERE audit = 1", "flags"),
    ("UPDATE flags SET severity = 'low'", "flags"),
    ('UPDATE flags SET "group" = 7', "flags"),
    ("DELETE FROM flags WHERE audit = 1", "flags"),
    (
        "INSERT INTO flags SELECT audit, 5, panel, sentinel, severity, score, q, record, 1 FROM flags",
        "flags",
    ),
    ("UPDATE alerts SET body = 'all is well'", "alerts"),
    ("DELETE FROM alerts WHERE alert = 1", "alerts"),
    ("UPDATE notified_rows SET row = 5", "alerts"),
    ("DELETE FROM notified_rows", "alerts"),
    ("UPDATE audits SET name = 'other' WHERE audit = 1", "name"),
    ("UPDATE audits SET audit_id = 'other' WHERE audit = 1", "audit"),
    ("UPDATE audits SET version = 2 WHERE audit = 1", "version"),
    ("UPDATE audits SET state = 'interrupted' WHERE audit = 1", "audit 1"),
    ("UPDATE audits SET started_at = '2000' WHERE audit = 1", "started_at"),
    ("UPDATE audits SET finished_at = '2000' WHERE audit = 1", "finished_at"),
    ("UPDATE audits SET run_dir = '/elsewhere' WHERE audit = 1", "run_dir"),
    ('UPDATE audits SET summary = \'{"counts": {"new": 0}}\' WHERE audit = 1', "summary"),
    ("UPDATE audits SET summary = 'no JSON' WHERE audit = 1", "audit one"),
    ("UPDATE audits SET flow_run = 'x' WHERE audit = 1", "flow_run"),
    ("DELETE FROM audits WHERE audit = 2", "audit two"),
    (
        "INSERT INTO audits SELECT 9, 'nine', name, version, state, started_at, finished_at, "
        "run_dir, summary, flow_run FROM audits WHERE audit = 1",
        "audit nine",
    ),
    ("UPDATE versions SET model = 'x' WHERE version = 1", "version"),
    ("UPDATE versions SET sentinels = 'x' WHERE version = 1", "version"),
    ("UPDATE versions SET reading = 'x' WHERE version = 1", "version"),
    ("UPDATE versions SET settings = 'x' WHERE version = 1", "version"),
    ("DELETE FROM versions WHERE version = 1", "audit one"),
]


@pytest.mark.parametrize(("statement", "found"), FORGERIES, ids=[f[0][:60] for f in FORGERIES])
def test_what_was_forged_is_named(
    ledger: Ledger, signer: KeySigner, statement: str, found: str
) -> None:
    """Whatever it was."""
    check_found(ledger, signer, statement, found)
