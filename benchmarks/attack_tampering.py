"""Every table of the ledger and every file beside it changed by hand: what finds it.

An audit that signs, decisions, a signed release; then one change at a time, on a copy that is laid
back each time. Asked of each: `verify`, `gate` with the key on the release, and on the rows that
were flagged: these must never be cleared, whatever was changed.
"""

import json
import os
import shutil
import sqlite3
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attack_changes import Change, list_changes, list_file_changes
from attack_forgeries import list_forgeries
from attack_site import Line, Site, prepare_site, run_forked

CLEARED, DIFFERENT = 0, 1
# What no record tells of (docs/verify.md): lists of what is still to be told or read, times of
# reading and ending, what a place is called, in which folder a run directory lies. A signature
# counts by itself, whatever key it is said to be of, and however often it is there. A version that no
# audit is of clears nothing; and a ledger that was put back to an earlier state is whole.
TO_DO_LISTS = frozenset(
    f"ledger: {table}"
    for table in ("deliveries", "notices", "outages", "probe_looks", "reviews", "schedules")
)
OFF_RECORD = frozenset(
    {
        ("ledger: audits", "UPDATE finished_at"),
        ("ledger: audits", "UPDATE run_dir"),
        ("ledger: files", "UPDATE read_at"),
        ("ledger: places", "UPDATE place"),
        ("ledger: rows", "UPDATE first_seen"),
        ("ledger: signatures", "UPDATE key_id"),
        ("ledger: signatures", "INSERT a row"),
        ("ledger: variants", "UPDATE first_seen"),
        ("ledger: versions", "INSERT a row"),
        ("forgery", "what came since the release cut off"),
    }
)


@dataclass(frozen=True)
class Scene:
    """A site with a release, rows that were flagged in a file of their own, and a copy of all."""

    site: Site
    copy: Path

    @property
    def manifest(self) -> Path:
        return self.site.folder / "cleared" / "manifest.json"

    @property
    def poison(self) -> Path:
        return self.site.folder.parent / "poison.jsonl"

    @property
    def ledger(self) -> Path:
        return self.site.folder / "poisonwatch.db"

    def lay_back(self) -> None:
        """Everything as it was before any change."""
        shutil.rmtree(self.site.folder)
        shutil.copytree(self.copy, self.site.folder, symlinks=True)


@contextmanager
def prepare_scene(folder: Path, model: Path) -> Iterator[Scene]:
    """Two audits, decisions, what people who review together leave, and a release that a training
    run named.
    """
    from attack_site import use_test_support

    use_test_support()
    from audits import benign
    from endurance_site import make_rows
    from ledgers import append

    from poisonwatch.config_file import load_config
    from poisonwatch.flows.audit import audit_inline

    with prepare_site(folder / "site", model) as site:
        # Among them two that must be flagged; and a broken line.
        append(site.folder / "rows.jsonl", [*make_rows(0), *make_rows(1)])
        with (site.folder / "rows.jsonl").open("a") as file:
            file.write("{not json\n")

        def work() -> None:
            config = load_config(site.config)
            audit_inline(config, site.folder / "runs" / "first")
            append(site.folder / "rows.jsonl", benign(3, start=5000))
            audit_inline(config, site.folder / "runs" / "second")
            decide_some(config)

        assert run_and_wait(work, folder / "log") == 0, (folder / "log").read_text()
        out = str(site.folder / "cleared")
        config = str(site.config)
        assert command("release", config, "--out", out, folder=folder)[0] == 0
        named = ("gate", f"{out}/manifest.json", "--audit", config, "--training-run", "run-7")
        assert command(*named, folder=folder)[0] == 0
        scene = Scene(site, folder / "copy")
        write_poison(scene.ledger, scene.poison)
        shutil.copytree(site.folder, scene.copy, symlinks=True)
        yield scene


def decide_some(config: Any) -> None:
    """One flagged row is called benign, another one poison, a clean one unsure; the first flagged
    ones stay undecided, but for one that two people repair.
    """
    from sqlalchemy import select
    from teamwork import review_together

    from poisonwatch.ledger.decisions import record_decision
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.ledger.tables import rows

    with Ledger.at(config.state, signer=config.signing.load_signer()) as ledger:
        with ledger.read() as connection:
            query = select(rows.c.id).order_by(rows.c.row.desc())
            flagged = connection.execute(query.where(rows.c.status == "flagged")).scalars().all()
            clean = connection.execute(query.where(rows.c.status == "clean")).scalars().all()
        chosen = [flagged[0], flagged[1], clean[0]]
        for id, verdict in zip(chosen, ("benign", "poison", "unsure"), strict=True):
            record_decision(ledger, bytes(id).hex(), verdict, "by hand", author="ann")
        review_together(ledger)


def write_poison(ledger: Path, path: Path) -> None:
    """The rows that were flagged and that nobody called benign, as they stand in the source."""
    with closing(sqlite3.connect(ledger)) as connection:
        query = "SELECT raw FROM rows WHERE status = 'flagged' AND decided IS NULL"
        raw = [bytes(row[0]) for row in connection.execute(query)]
    assert raw
    path.write_bytes(b"".join(line + b"\n" for line in raw))


def run_and_wait(work: Callable[[], None], log: Path) -> int:
    _, status = os.waitpid(run_forked(work, log), 0)
    return os.waitstatus_to_exitcode(status)


def command(*words: str, folder: Path) -> tuple[int, str]:
    """A command in a process of its own, which has everything imported; exit code and output."""
    log = folder / "command.log"
    log.unlink(missing_ok=True)

    def work() -> None:
        from poisonwatch.flows.cli import main

        try:
            main(list(words))
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(end.code if isinstance(end.code, int) else 1)

    code = run_and_wait(work, log)
    return code, log.read_text(errors="replace")


def import_commands(scene: Scene) -> None:
    """Run the commands once in this process, so that forked ones need not import what they need."""
    from poisonwatch.flows.cli import main

    config, key = str(scene.site.config), str(scene.site.public_key)
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        for words in (
            ("verify", config, "--json"),
            ("gate", str(scene.manifest), "--audit", config, "--key", key),
            ("gate", str(scene.poison), "--audit", config, "--key", key),
        ):
            with suppress(SystemExit):
                main(list(words))


def judge(scene: Scene, folder: Path) -> dict[str, Any]:
    """What verify and the gate say of the scene as it is now."""
    config, key = str(scene.site.config), str(scene.copy / "keys" / "poisonwatch.pub")
    verify, said = command("verify", config, "--key", key, "--json", folder=folder)
    differences = len(json.loads(said)["differences"]) if verify == DIFFERENT else 0
    asked = ("--audit", config, "--key", key)
    release, reason = command("gate", str(scene.manifest), *asked, folder=folder)
    poison, _ = command("gate", str(scene.poison), *asked, folder=folder)
    alone, _ = command(
        "gate", str(scene.manifest), *versions_of(scene), "--key", key, folder=folder
    )
    return {
        "verify": verify,
        "differences": differences,
        "release": release,
        "release without ledger": alone,
        "poison": poison,
        "said": reason[:300],
    }


def judge_change(scene: Scene, change: Change, folder: Path) -> dict[str, Any]:
    """Make a change, and what is said of it; a forger who needs the library may be refused by it."""
    from poisonwatch.errors import PoisonwatchError

    try:
        change.make()
    except PoisonwatchError as error:
        return {**judge(scene, folder), "refused": str(error)[:300]}
    return judge(scene, folder)


def versions_of(scene: Scene) -> tuple[str, ...]:
    """The options that stand for the audit file where the ledger is out of reach."""
    summary = json.loads((scene.copy / "runs" / "first" / "summary.json").read_text())
    wanted = {
        "--model-version": summary["model"]["fingerprint"],
        "--sentinels-version": summary["sentinels"],
        "--reading-version": summary["model"]["reading"],
    }
    return tuple(word for option in wanted.items() for word in option)


def tamper_with_all(
    folder: Path, model: Path, note: Callable[[str], None], kept: Path, limit: int | None = None
) -> list[dict[str, Any]]:
    """Each change, and what was said of it; the first entry is of no change at all. What the file
    `kept` has already is not done again.
    """
    found = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    done = {(one["part"], one["change"]) for one in found}
    with prepare_scene(folder, model) as scene:
        import_commands(scene)
        changes: list[Change] = [
            Change("nothing", "none", lambda: None),
            *list_changes(scene.ledger),
            *list_file_changes(scene.site.folder),
            *list_forgeries(scene.site),
        ]
        for i, change in enumerate(changes[:limit], start=1):
            if (change.part, change.what) in done:
                continue
            scene.lay_back()
            found.append({"part": change.part, "change": change.what})
            found[-1] |= judge_change(scene, change, folder)
            with kept.open("a") as file:
                file.write(json.dumps(found[-1]) + "\n")
            note(f"{i} of {len(changes)}: {change.part}, {change.what}")
    return found


def summarise_tampering(found: list[dict[str, Any]]) -> list[Line]:
    """A line a table and a kind of file, then what is off the record, and what the gate cleared."""
    untouched, *changed = found
    good = untouched["verify"] == untouched["release"] == CLEARED and untouched["poison"] != CLEARED
    lines = [Line("nothing changed", 1, "whole, cleared", "so" if good else str(untouched), good)]
    by_part, beside = defaultdict(list), []
    for one in changed:
        if is_on_record(one):
            by_part[one["part"]].append(one)
        else:
            beside.append(one)
    for part, ones in by_part.items():
        missed = [one["change"] for one in ones if not find_finders(one)]
        shown = count_finders(ones)
        if missed:
            shown += f"; unseen: {', '.join(missed)}"
        lines.append(Line(part, len(ones), "each found", shown, not missed))
    what = "to-do lists, times, labels: on no record"
    lines.append(Line(what, len(beside), "nothing", count_finders(beside) or "0 found", True))
    cleared = [one["change"] for one in changed if one["poison"] == CLEARED]
    shown = "0 cleared" if not cleared else f"cleared: {', '.join(cleared)}"
    what = "flagged rows before `gate --key`, after each of these changes"
    lines.append(Line(what, len(changed), "0 cleared", shown, not cleared))
    return lines


def is_on_record(one: dict[str, Any]) -> bool:
    """Whether a record says what was changed."""
    if one["part"] in TO_DO_LISTS:
        return False
    return (one["part"], one["change"]) not in OFF_RECORD


def count_finders(ones: list[dict[str, Any]]) -> str:
    """Who found how many of these changes."""
    seen = Counter(finder for one in ones for finder in find_finders(one))
    return ", ".join(f"{name} {count}" for name, count in seen.most_common())


def find_finders(one: dict[str, Any]) -> list[str]:
    """Who found a change."""
    finders = []
    if "refused" in one:
        finders.append("the library itself")
    if one["verify"] != CLEARED:
        finders.append("verify")
    if one["release"] != CLEARED:
        finders.append("gate --key")
    if one["release without ledger"] != CLEARED:
        finders.append("gate --key without ledger")
    return finders
