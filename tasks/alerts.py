"""Tell people."""

import apprise
from prefect import task

from poisonwatch.environment import expand
from poisonwatch.errors import OperationError
from poisonwatch.tasks import OUTSIDE
from poisonwatch.verdicts import Flag, Verdicts

ROWS_NAMED = 10


def _why(flag: Flag) -> str:
    scored = [f"{flag.panel}, score {flag.score:.1f}, q {flag.q_value:.2g}"] if flag.by_attribution else []
    return "; ".join([*scored, *(f"screen {finding.screen}" for finding in flag.findings)])


@task(**OUTSIDE)
def alert(urls: list[str], name: str, verdicts: Verdicts, where: str) -> None:
    """Send one message about an audit's flags to every Apprise URL; never any row text.

    Raises OperationError where a target could not be reached.
    """
    if not urls or not verdicts.flags:
        return
    sender = apprise.Apprise()
    refused = [number for number, url in enumerate(urls, start=1) if not sender.add(expand(url, "alerts"))]
    title = f"Poisonwatch: {len(verdicts.flags)} of {len(verdicts.examples)} new rows flagged in {name}"
    lines = [f"{f.example.source}, row {f.example.position}: {_why(f)}" for f in verdicts.flags[:ROWS_NAMED]]
    more = len(verdicts.flags) - ROWS_NAMED
    lines += [f"and {more} more"] * (more > 0) + [f"Report: {where}"]
    if not sender.notify(title=title, body="\n".join(lines)) or refused:
        which = f"number {', '.join(map(str, refused))} of `alerts` is no Apprise URL" if refused else "a target did not take the message"
        raise OperationError(f"the alert was not delivered everywhere: {which}")
