"""Months of faults, one after the other: is anything lost, and is every stop of auditing told?

    python benchmarks/endurance.py rounds.jsonl --ledger sqlite --rounds 46 [--seed 0] [--minutes 25]
    python benchmarks/endurance.py rounds.jsonl --ledger postgresql --rounds 54
    python benchmarks/endurance.py rounds.jsonl --fault "disk full (200 kB left)" --fault nothing
    python benchmarks/endurance.py rounds.jsonl --table

A round is a fault (`endurance_faults`, `endurance_operation`) with an audit under it, each with
twelve new ordinary rows and one that must be flagged (a control token in its answer); the next
audit after the fault; `sync`. Then ledger, run directories, MLflow and the receiver are counted
(`endurance_accounts`), and `verify` recomputes the ledger. Where the fault stopped auditing, whoever
looks two intervals later, by a time that is handed in, must be told, and told again that audits are
back. All kinds, or those that are named, come in turn, in an order that the seed draws. Each round
is a line of the file; a campaign that was stopped goes on, on a new site, with the round that it
stopped in.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from endurance_accounts import MUST_BE_NOTHING, account, tell_of_silence
from endurance_faults import POSTGRESQL, list_faults
from endurance_process import SYNC
from endurance_site import Site, open_site

TRIES = 3


def choose_fault(ledger: str, number: int, seed: int, among: Sequence[str] = ()) -> str:
    """The kind of a round: all kinds, or those that are named, in turn, in another order each
    turn.
    """
    kinds = list(among or list_faults(ledger))
    turn, place = divmod(number, len(kinds))
    random.Random(f"{seed}-{turn}").shuffle(kinds)
    # those that one kind of ledger alone knows come first
    kinds.sort(key=lambda kind: kind not in POSTGRESQL)
    return kinds[place]


def run_round(site: Site, fault: str, ledger: str) -> dict[str, Any]:
    """A fault, what follows it, and what is counted then."""
    start = time.perf_counter()
    site.append_rows()
    told: dict[str, Any] = {}
    try:
        outcome = list_faults(ledger)[fault](site)
    # one fault that cannot be had costs a round, not the campaign
    except Exception as error:
        outcome = {"broken": f"{type(error).__name__}: {error}"[:400]}
    told["outcome"] = outcome
    site.append_rows()
    for tries in range(1, TRIES + 1):
        told["next"] = site.audit()
        told["tries"] = tries
        if "new" in told["next"]:
            break
    told[SYNC] = site.audit(SYNC)
    titles = [message.get("title", "") for message in site.receiver.received]
    silences = sum("do not come" in title for title in titles)
    # an audit that came since ends the silence
    tell_of_silence(site, datetime.now(UTC))
    titles = [message.get("title", "") for message in site.receiver.received]
    told["silences told"], told["ends told"] = silences, sum("are back" in t for t in titles)
    told["accounts"] = account(site.config, site.receiver.received)
    told["seconds"] = round(time.perf_counter() - start)
    return told


def list_missing(
    lines: Iterable[dict[str, Any]], ledger: str, rounds: int, seed: int, among: Sequence[str] = ()
) -> list[tuple[int, str]]:
    """The rounds of a campaign that have no line yet, by number, and their kinds."""
    # by kind, too: a file may hold campaigns of several choices
    done = {(line["round"], line["fault"]) for line in lines if line["ledger"] == ledger}
    chosen = [(number, choose_fault(ledger, number, seed, among)) for number in range(rounds)]
    return [each for each in chosen if each not in done]


def run_campaign(
    file: Path, ledger: str, missing: Sequence[tuple[int, str]], seed: int, minutes: float
) -> None:
    """Run what is missing of a campaign, and add a line a round to the file."""
    deadline = time.monotonic() + 60 * minutes
    if not missing:
        return
    with (
        tempfile.TemporaryDirectory(prefix="poisonwatch-endurance-") as folder,
        open_site(Path(folder) / "site", ledger) as site,
    ):
        # what the faults of the first round find
        site.audit()
        for number, fault in missing:
            if time.monotonic() > deadline:
                break
            site.draw = random.Random(f"{seed}-{ledger}-{number}")
            told = run_round(site, fault, ledger)
            line = {"round": number, "ledger": ledger, "fault": fault, **told}
            with file.open("a") as lines:
                lines.write(json.dumps(line) + "\n")
            wrong = ", ".join(find_wrong(line)) or "all is well"
            print(f"{number + 1} {fault}: {wrong}", file=sys.stderr, flush=True)


def read_rounds(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines()]


def find_wrong(line: dict[str, Any]) -> list[str]:
    """What a round shows that must not be."""
    accounts, outcome = line["accounts"], line["outcome"]
    wrong = [f"{what}: {accounts[what]}" for what in MUST_BE_NOTHING if accounts[what]]
    if "new" not in line["next"]:
        wrong.append(f"no audit after the fault: {str(line['next'])[:200]}")
    elif line["tries"] > 1:
        wrong.append(f"{line['tries']} audits until one came to its results")
    if "broken" in outcome:
        wrong.append(outcome["broken"])
    if "told" in outcome and not is_told(outcome["told"]):
        wrong.append("nobody was told")
    if line["ends told"] < line["silences told"]:
        wrong.append("nobody was told that audits are back")
    return wrong


def is_told(told: dict[str, Any]) -> bool:
    return bool(told["alert"] or told["status"])


def build_table(lines: Iterable[dict[str, Any]]) -> str:
    """By kind of fault, in Markdown; then what was counted."""
    rounds = defaultdict[str, list[dict[str, Any]]](list)
    counted = defaultdict[str, Counter[str]](Counter)
    for line in lines:
        rounds[line["fault"]].append(line)
        counted[line["ledger"]].update({what: line["accounts"][what] for what in MUST_BE_NOTHING})
        counted[line["ledger"]]["rounds"] += 1
    columns = (
        "what goes wrong",
        "rounds: SQLite, PostgreSQL",
        "silences",
        "told by an alert, by `status`",
        "what must not be",
    )
    rows = [f"| {' | '.join(columns)} |", "|---|---|---|---|---|"]
    for fault, those in rounds.items():
        ledgers = Counter(line["ledger"] for line in those)
        stops = [line["outcome"]["told"] for line in those if "told" in line["outcome"]]
        alerts = sum(told["alert"] for told in stops)
        unwell = sum(told["status"] for told in stops)
        wrong = Counter(what for line in those for what in find_wrong(line))
        other = "; ".join(f"{what} ({n})" for what, n in wrong.items())
        told = f"{alerts}, {unwell}" if stops else ""
        numbers = f"{ledgers['sqlite']}, {ledgers['postgresql']}"
        rows.append(f"| {fault} | {numbers} | {len(stops) or ''} | {told} | {other} |")
    rows += [
        "",
        "| counted after each round, and added up | SQLite | PostgreSQL |",
        "|---|---|---|",
    ]
    for what in ("rounds", *MUST_BE_NOTHING):
        rows.append(f"| {what} | {counted['sqlite'][what]} | {counted['postgresql'][what]} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--ledger", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--rounds", type=int, help="By default each kind comes once.")
    parser.add_argument(
        "--fault", action="append", metavar="KIND", help="Of these kinds alone; may be repeated."
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="No round begins later.")
    parser.add_argument("--table", action="store_true", help="Print what the file holds.")
    options = parser.parse_args()
    if options.table:
        print(build_table(read_rounds(options.file)))
        return
    kinds = list_faults(options.ledger)
    among = options.fault or list(kinds)
    if unknown := set(among) - set(kinds):
        parser.error(f"no kind with {options.ledger}: {unknown}; there are {list(kinds)}")
    rounds = options.rounds or len(among)
    lines = read_rounds(options.file)
    missing = list_missing(lines, options.ledger, rounds, options.seed, among)
    # whoever ends it leaves no server behind
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run_campaign(options.file, options.ledger, missing, options.seed, options.minutes)


if __name__ == "__main__":
    main()
