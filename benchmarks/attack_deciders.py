"""People who decide at once: processes that append to one chain."""

import json
import os
from pathlib import Path
from typing import Any

from attack_kills import count_differences
from attack_site import Line, prepare_site, run_forked

VERDICTS = ("poison", "benign", "unsure")


def decide_at_once(
    folder: Path, model: Path, deciders: int, decisions: int, state: str | None = None
) -> dict[str, Any]:
    """An audit, then decisions of several processes on the same rows at the same time; what the
    ledger has of them.
    """
    from sqlalchemy import select

    from poisonwatch.config_file import load_config
    from poisonwatch.flows.audit import audit_inline
    from poisonwatch.ledger.decisions import verify_chain
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.ledger.records import DECISION, read_records, verify_records
    from poisonwatch.ledger.tables import decisions as table
    from poisonwatch.ledger.tables import rows

    settings = {} if state is None else {"state": state}
    with prepare_site(folder, model, **settings) as site:
        config = load_config(site.config)

        def audit() -> None:
            audit_inline(config, folder / "runs" / "first")

        wait_all([run_forked(audit, folder / "log")])
        with Ledger.at(config.state) as ledger, ledger.read() as connection:
            query = select(rows.c.id).order_by(rows.c.row)
            ids = [bytes(id).hex() for id in connection.execute(query).scalars()]
        started, go = os.pipe()
        children = []
        for decider in range(deciders):

            def work(decider: int = decider) -> None:
                os.close(go)
                os.read(started, 1)  # all begin together
                decide(config, ids, decider, decisions)

            children.append(run_forked(work, folder / "log"))
        os.close(go)
        failed = wait_all(children)
        os.close(started)
        with Ledger.at(config.state) as ledger, ledger.read() as connection:
            found = connection.execute(select(table).order_by(table.c.number)).all()
            recorded = list(read_records(connection, DECISION))
            broken = verify_records(connection)
            verify_chain(ledger)
        wanted = {
            (f"decider {i}", f"decision {j}") for i in range(deciders) for j in range(decisions)
        }
        made = [(row.author, row.note) for row in found]
        return {
            "made": len(made),
            "failed processes": failed,
            "lost": len(wanted - set(made)),
            "twice": len(made) - len(set(made)),
            "gaps": sum(row.number != i for i, row in enumerate(found, start=1)),
            "without a record": len(made) - len(recorded),
            "chain": len(broken),
            "verify": count_differences(site),
        }


def decide(config: Any, ids: list[str], decider: int, decisions: int) -> None:
    """One person: verdicts on the first rows, which the others decide, too."""
    from poisonwatch.ledger.decisions import record_decision
    from poisonwatch.ledger.ledger import Ledger

    with Ledger.at(config.state, signer=config.signing.load_signer()) as ledger:
        for i in range(decisions):
            verdict = VERDICTS[(i + decider) % len(VERDICTS)]
            author = f"decider {decider}"
            record_decision(ledger, ids[i % 10], verdict, f"decision {i}", author=author)


def wait_all(children: list[int]) -> int:
    """How many of the processes failed."""
    failed = 0
    for child in children:
        _, status = os.waitpid(child, 0)
        failed += status != 0
    return failed


def summarise_deciders(found: dict[str, dict[str, Any]]) -> list[Line]:
    """A line for each database."""
    lines = []
    for database, result in found.items():
        faults = {name: count for name, count in result.items() if name != "made" and count}
        shown = json.dumps(faults) if faults else f"{result['made']}, chain whole, all signed"
        what = f"decisions of 4 processes at once, {database}"
        lines.append(Line(what, result["made"], "0 lost", shown, not faults))
    return lines
