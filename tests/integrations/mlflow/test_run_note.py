"""What the description of an audit's run says."""

from tracking import runs_of

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.mlflow.run_note import describe_run
from poisonwatch.ledger.history import list_past_audits
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.overview import AuditFilter
from poisonwatch.ledger.queue import list_groups


def test_the_description_begins_with_counts_and_links_to_each_group(
    tracked: tuple[AuditConfig, Ledger],
) -> None:
    """The links where the dashboard's address is known; of a row's text there is nothing."""
    config, ledger = tracked
    (past,) = (past for past in list_past_audits(ledger) if past.number == 1)
    counts = past.summary["counts"]
    groups, number = list_groups(ledger, AuditFilter(audit=past.audit_id), state="all")
    written = runs_of(config)[0].data.tags["mlflow.note.content"]
    assert written == describe_run(ledger, config, past)
    assert written.startswith(f"**{counts['flagged']} of 43 new rows flagged** in {number} group")
    assert "](" not in written
    shown = config.model_copy(update={"dashboard": "https://audits.example.org"})
    linked = describe_run(ledger, shown, past)
    assert f"(https://audits.example.org/audits/{past.audit_id})" in linked
    for group in groups:
        assert f"(https://audits.example.org/triage/{past.audit_id}/{group.key})" in linked
    assert "Velmora" not in linked
