"""What people who review together leave in a ledger: something in each table, and of each kind of
record, that came once one person's decisions had been all there was.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from ledgers import NAME

from poisonwatch.ledger.assignments import record_assignment
from poisonwatch.ledger.comments import record_comment
from poisonwatch.ledger.group_teams import load_teams
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.mutes import end_mutes, list_mutes, record_mute
from poisonwatch.ledger.overview import AuditFilter
from poisonwatch.ledger.probes import list_last_probes, record_probe
from poisonwatch.ledger.queue import list_group_rows, list_groups
from poisonwatch.ledger.row_search import index_rows
from poisonwatch.ledger.saved_views import list_views, save_view
from poisonwatch.ledger.two_people import submit_verdict

ANSWER = "I could not say."
COMMENT = "Who wrote this one?"
VIEW = ("of the shop", "/triage?panel=shop")


def review_together(ledger: Ledger) -> str:
    """Two people agree to edit the last row that nobody decided on; of one that was called poison
    one person says that it is benign. A panel is muted for a moment, a model probed. Returns the
    example id of the row that is repaired.
    """
    groups, _ = list_groups(ledger, AuditFilter(), "all")
    flagged = {
        row.example_id: (group, row)
        for group in groups
        for row in list_group_rows(ledger, group.audit_id, group.key)
    }
    repaired, (group, _) = [each for each in flagged.items() if each[1][1].decided is None][-1]
    place = (group.audit_id, group.key)
    record_assignment(ledger, *place, "bob", author="ann")
    record_comment(ledger, *place, COMMENT, author="ann")
    for person in ("ann", "bob"):
        submit_verdict(ledger, [repaired], "edit", "", person, two_people="all", answer=ANSWER)
    disputed = next(
        id for id, (_, row) in flagged.items() if row.decided and row.decided.verdict == "poison"
    )
    submit_verdict(ledger, [disputed], "benign", "is it?", "bob", two_people="all")
    until = datetime.now(UTC) + timedelta(days=1)
    record_mute(ledger, NAME, f"panel:{group.panel}", until, "for a moment", author="ann")
    end_mutes(ledger, NAME, f"panel:{group.panel}", "it is over", author="bob")
    save_view(ledger, *VIEW, "ann")
    index_rows(ledger, patience_s=60)
    moved = {"sentinel": "shop-1", "kind": "margin", "change": 2.0, "limit": 0.9, "moved": True}
    record_probe(
        ledger,
        "probe-1",
        name=NAME,
        checkpoint="c" * 64,
        model="m" * 64,
        sentinels="s" * 64,
        release=None,
        asked=[moved],
    )
    return repaired


def tell_teamwork(ledger: Ledger) -> dict[str, Any]:
    """What of it the ledger says, as JSON."""
    groups, _ = list_groups(ledger, AuditFilter(), "all")
    teams = load_teams(ledger, [(group.audit_id, group.key) for group in groups]).values()
    with ledger.read() as connection:
        mutes = list_mutes(connection, NAME)
    return {
        "assignees": [name for team in teams for name in team.assignees],
        "comments": [comment.text for team in teams for comment in team.comments],
        "agreed": [name for team in teams for name in team.agreed.values()],
        "votes": [vote.verdict for team in teams for vote in team.list_votes()],
        "mutes": [[mute.on, mute.author, mute.unmuted_by] for mute in mutes],
        "views": [[view.name, view.address] for view in list_views(ledger)],
        "probes": [[probe.checkpoint, list(probe.moved)] for probe in list_last_probes(ledger)],
    }
