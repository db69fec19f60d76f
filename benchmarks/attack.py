"""An attack on Poisonwatch, by sections, and a table of what came of it.

    python benchmarks/attack.py [SECTION ...] [--folder DIR] [--kills 200] [--seed 0]

    kills        kill -9 at all stages of audits, SQLite and PostgreSQL
    tampering    every table and file changed by hand: what finds it, and what the gate clears
    files        hostile files by kind: peak memory, exit code, lines
    secrets      secrets planted in every setting, looked for wherever anything is written
    connections  half-open connections to the dashboard
    deciders     people who decide at once

What a section found is kept in DIR/SECTION.json (kills: a file a batch), and what is there is not
done again: a campaign that was stopped goes on. The table says with a cross where something that
is asked does not hold; then the exit code is 1.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Forked audits: threads of the parent would be missing in them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from attack_connections import hold_connections, summarise_connections
from attack_deciders import decide_at_once, summarise_deciders
from attack_files import read_hostile_files, summarise_files
from attack_kills import kill_batch, summarise_kills
from attack_secrets import plant_and_look, summarise_secrets
from attack_site import (
    Line,
    build_model_folder,
    keep_templates,
    postgres_databases,
    prepare_site,
    use_test_support,
)
from attack_tampering import summarise_tampering, tamper_with_all

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
BATCH = 25  # kills on one site


@dataclass(frozen=True)
class Campaign:
    """Where a campaign keeps what it found, and how large it is."""

    folder: Path
    kills: int
    seed: int

    def keep(self, name: str, work: Callable[[Path], Any]) -> Any:
        """What `work` finds in a folder of its own, once: from the file where it is there."""
        file = self.folder / f"{name}.json"
        if not file.exists():
            site = self.folder / f"{name}-{int(time.time())}"
            site.mkdir()
            found = work(site)
            part = file.with_suffix(".part")
            part.write_text(json.dumps(found, indent=2))
            part.rename(file)
        return json.loads(file.read_text())


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def warm_up(campaign: Campaign, model: Path) -> None:
    """Import what an audit imports, so that a forked one begins at once: one audit in this process,
    of what nobody counts.
    """
    from poisonwatch.config_file import load_config
    from poisonwatch.flows.audit import audit_inline

    use_test_support()
    folder = campaign.folder / f"warm-up-{int(time.time())}"
    os.environ["POISONWATCH_CACHE"] = str(campaign.folder / "cache")
    with prepare_site(folder, model) as site:
        audit_inline(load_config(site.config), folder / "runs" / "first")


def attack_by_kills(campaign: Campaign, model: Path) -> list[Line]:
    per_database = campaign.kills // 2
    sizes = [min(BATCH, per_database - done) for done in range(0, per_database, BATCH)]
    found: dict[str, list[dict[str, Any]]] = {SQLITE: [], POSTGRESQL: []}
    with postgres_databases() as create:
        for database, batches in found.items():
            for i, size in enumerate(sizes):
                name = f"kills-{database}-{i}"

                def work(
                    folder: Path, database: str = database, i: int = i, size: int = size
                ) -> Any:
                    state = create(folder.name) if database == POSTGRESQL else None
                    seed = campaign.seed + i * BATCH
                    return kill_batch(folder, model, size, seed, note, state)

                batches.append(campaign.keep(name, work))
    return summarise_kills(found)


def attack_by_deciders(campaign: Campaign, model: Path) -> list[Line]:
    found = {}
    with postgres_databases() as create:
        for database in (SQLITE, POSTGRESQL):

            def work(folder: Path, database: str = database) -> Any:
                state = create(folder.name) if database == POSTGRESQL else None
                return decide_at_once(folder, model, deciders=4, decisions=25, state=state)

            found[database] = campaign.keep(f"deciders-{database}", work)
    return summarise_deciders(found)


def attack_by_connections(campaign: Campaign, model: Path) -> list[Line]:
    def work(folder: Path) -> Any:
        return hold_connections(folder, model, connections=300, asked=20)

    return summarise_connections(campaign.keep("connections", work))


def attack_by_tampering(campaign: Campaign, model: Path) -> list[Line]:
    def work(folder: Path) -> Any:
        return tamper_with_all(folder, model, note, campaign.folder / "tampering.jsonl")

    return summarise_tampering(campaign.keep("tampering", work))


def attack_by_files(campaign: Campaign, model: Path) -> list[Line]:
    """The model is not for rows that are never audited."""
    del model
    return summarise_files(campaign.keep("files", read_hostile_files))


def attack_by_secrets(campaign: Campaign, model: Path) -> list[Line]:
    def work(folder: Path) -> Any:
        return plant_and_look(folder, model, note)

    return summarise_secrets(campaign.keep("secrets", work))


SECTIONS: dict[str, Callable[[Campaign, Path], list[Line]]] = {
    "kills": attack_by_kills,
    "tampering": attack_by_tampering,
    "files": attack_by_files,
    "secrets": attack_by_secrets,
    "connections": attack_by_connections,
    "deciders": attack_by_deciders,
}


# Sections whose processes import what they need themselves.
BY_COMMANDS = {"files", "secrets"}


def print_table(lines: list[Line]) -> None:
    print("| attack | count | asked | found | |\n|---|---|---|---|---|")
    for line in lines:
        mark = "holds" if line.holds else "**✗**"
        print(f"| {line.what} | {line.count:,} | {line.asked} | {line.found} | {mark} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS], default=[])
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/cache/attack"))
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    campaign = Campaign(folder, options.kills, options.seed)
    keep_templates(folder)
    model = build_model_folder(folder)
    chosen = options.sections or list(SECTIONS)
    if not BY_COMMANDS.issuperset(chosen):
        warm_up(campaign, model)
    lines = []
    for name in chosen:
        start = time.process_time()
        lines += SECTIONS[name](campaign, model)
        note(f"{name}: {time.process_time() - start:.0f} processor seconds here")
    print_table(lines)
    sys.exit(not all(line.holds for line in lines))


if __name__ == "__main__":
    main()
