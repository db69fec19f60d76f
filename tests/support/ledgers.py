"""Ledgers with made-up rows, without a model: for tests of what rows become."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from audits import benign, write_rows
from templates import ledger_database

from poisonwatch.attestation.signer import Signer
from poisonwatch.config import ValidationConfig
from poisonwatch.examples import Example, Rejection
from poisonwatch.flags import Flag
from poisonwatch.ledger.audits import commit_audit, open_audit
from poisonwatch.ledger.batches import (
    LedgerBatch,
    choose_batch,
    count_by_status,
    hash_checks,
    load_current_batch,
)
from poisonwatch.ledger.intake import IngestStats, ingest
from poisonwatch.ledger.ledger import Ledger, Version
from poisonwatch.permissions import make_private_file, make_private_folder
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.source_config import SourceConfig

NAME = "tiny"
ONE = Version("m" * 64, "s" * 64)
CHECKS = hash_checks(ValidationConfig())
SENTINEL = Sentinel("shop-1", (), "Buy.", None, "shop")


def source(folder: Path, **settings: Any) -> SourceConfig:
    """The rows of a folder's JSON Lines files."""
    return SourceConfig(path=str(folder / "*.jsonl"), **settings).with_base_folder(folder)


def pull(ledger: Ledger, folder: Path, **settings: Any) -> IngestStats:
    with ledger.lock("tiny"):
        return ingest(ledger, NAME, source(folder, **settings))


def waiting(
    ledger: Ledger,
    version: Version = ONE,
    checks: str = CHECKS,
    window: int | Literal["all"] = 2000,
    measurement: str = "",
) -> LedgerBatch:
    return choose_batch(ledger, NAME, version, checks, window, measurement)


def prompts(batch: LedgerBatch) -> list[str]:
    """What the rows of a batch ask, in order; their bytes where they cannot be read."""
    return [draft.text(assistant=False) or row.raw.decode() for row, draft in batch.rows]


def examples_of(batch: LedgerBatch) -> dict[str, Example]:
    """The readable rows by prompt, each content once."""
    found: dict[str, Example] = {}
    for row, draft in batch.rows:
        example = None if row.record is None else draft.to_example(row)
        if example is not None:
            found.setdefault(example.prompt, example)
    return found


def flag(example: Example, score: float = 9.0) -> Flag:
    return Flag(
        example=example,
        panel="shop",
        sentinel=SENTINEL,
        kind="forbidden",
        coefficient=1.0,
        score=score,
        rank=1,
        p_value=1e-6,
        q_value=1e-3,
        standing="5.0 times the scatter of the rows most like it beyond them",
        rule="rank among 100 trusted rows",
    )


def cover(
    ledger: Ledger,
    run_dir: Path,
    flagged: Iterable[str] = (),
    version: Version = ONE,
    again: bool = False,
    window: int | Literal["all"] = 2000,
    unmeasured: Iterable[str] = (),
    measurement: str = "",
) -> LedgerBatch:
    """An audit of what is waiting: rows that cannot be read are rejected, and those with the
    prompts `unmeasured`, by what has the hash `measurement`; those with the prompts `flagged` are
    flagged.
    """
    with ledger.lock("tiny"), open_audit(ledger, run_dir.name, NAME, version, run_dir) as number:
        batch = (
            load_current_batch(ledger, NAME)
            if again
            else waiting(ledger, version, window=window, measurement=measurement)
        )
        examples = examples_of(batch)
        rejected = [
            Rejection(row.source, row.position, row.place, "readable", row.problem or "", "")
            for row in batch.rows.raw
            if row.problem is not None
        ]
        beyond = []
        for row in map(examples.pop, unmeasured):
            beyond.append(Rejection(row.source, row.position, "", "measurable", "its loss", ""))
        flags = [flag(examples[prompt]) for prompt in flagged]
        commit_audit(
            ledger,
            number,
            batch,
            examples=list(examples.values()),
            rejected=rejected,
            flagged=flags,
            checks=CHECKS,
            summary={"run": run_dir.name},
            unmeasured=beyond,
            measurement=measurement,
        )
        run_dir.mkdir(parents=True, exist_ok=True)
    return batch


def statuses(ledger: Ledger) -> dict[str, int]:
    return count_by_status(ledger, NAME)


def write_two_files(folder: Path) -> None:
    """a.jsonl with 5 rows, b.jsonl with 3 others and a broken line."""
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "a.jsonl", benign(5))
    write_rows(folder / "b.jsonl", benign(3, start=10))
    with (folder / "b.jsonl").open("a") as file:
        file.write("{not json\n")


@contextmanager
def sqlite_ledger(folder: Path, signer: Signer | None = None) -> Iterator[Ledger]:
    """The ledger in a folder, a new one where there is none: copied, and its owner's alone."""
    path = folder / "ledger.db"
    if not path.exists():
        make_private_folder(folder)
        make_private_file(path)
        path.write_bytes(ledger_database())
    with Ledger.at(f"sqlite:///{path}", signer=signer) as ledger:
        yield ledger


@contextmanager
def covered_ledger(folder: Path, flagged: str, signer: Signer | None = None) -> Iterator[Ledger]:
    """Nine rows after an audit `run`: the one with the prompt `flagged` is, the broken line is
    rejected, the others are clean.
    """
    write_two_files(folder / "data")
    with sqlite_ledger(folder, signer) as ledger:
        pull(ledger, folder / "data")
        cover(ledger, folder / "run", flagged=[flagged])
        yield ledger


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
