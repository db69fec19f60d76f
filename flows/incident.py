"""An incident: from a bad answer of a trained model to the rows that it comes from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from poisonwatch.concealment import conceal_all
from poisonwatch.config import AuditConfig
from poisonwatch.errors import InputError
from poisonwatch.examples import AuditRows, Message
from poisonwatch.flows.reporter import Reporter
from poisonwatch.ledger.batches import load_examples
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.model.files import find_model_files
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.probing.checkpoint import name_checkpoint, require_tokenizer
from poisonwatch.probing.checkpoint_choice import ProbedCheckpoint
from poisonwatch.probing.incident import RowBehind, find_rows_behind
from poisonwatch.probing.rows import read_rows
from poisonwatch.release.manifest import load_manifest
from poisonwatch.screens.copies import copy_sentinels
from poisonwatch.sentinels.sentinel import Sentinel, load_sentinels
from poisonwatch.text.words import plural


@dataclass(frozen=True, slots=True)
class BadAnswer:
    """What somebody met: an answer to a prompt, or the id of a sentinel that moved."""

    prompt: str | None = None
    answer: str | None = None
    sentinel: str | None = None

    def check(self) -> None:
        """Raises InputError where it is neither, or both."""
        said = [text for text in (self.prompt, self.answer) if text and text.strip()]
        if self.sentinel is None and len(said) < 2:
            raise InputError("--prompt and --answer must both say something, or name a --sentinel")
        if self.sentinel is not None and said:
            raise InputError("give --prompt and --answer, or --sentinel, and not all of them")


@dataclass(frozen=True, slots=True)
class Incident:
    """The rows behind an answer, strongest first, of `total` that were trained on; the audit's
    ledger may not know them (`is_known`).
    """

    asked: Sentinel
    rows: list[RowBehind]
    total: int
    is_known: bool

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "prompt": self.asked.prompt,
            "answer": self.asked.forbidden or self.asked.reference,
            "total": self.total,
            "sources": count_sources(self.rows),
            "rows": [
                {
                    "rank": row.rank,
                    "score": round(row.score, 4),
                    "example_id": row.example.id,
                    "source": row.example.source,
                    "position": row.example.position,
                }
                for row in self.rows
            ],
        }


def count_sources(rows: Sequence[RowBehind]) -> dict[str, int]:
    """How many of the rows are of each source, most first."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.example.source] = counts.get(row.example.source, 0) + 1
    return dict(sorted(counts.items(), key=lambda each: -each[1]))


def trace_answer(
    config: AuditConfig,
    checkpoint: ProbedCheckpoint,
    bad: BadAnswer,
    top: int = 10,
    reporter: Reporter | None = None,
) -> Incident:
    """The `top` rows of a release, or of the audit's source, that a trained model has a bad answer
    from.

    Raises InputError where nothing is asked for or rows are too few, SourceError where none can be
    read, and ModelError where the model cannot be loaded.
    """
    if top < 1:
        raise InputError(f"--top is {top}: ask for at least one row")
    bad.check()
    if checkpoint.release is not None:
        # Without one, all that lies in its folder would be taken for rows.
        load_manifest(checkpoint.release)
    reporter = reporter or Reporter(quiet=True)
    with conceal_all(config.find_secrets()):
        settings = name_checkpoint(config.model, checkpoint.model, checkpoint.adapter)
        files = find_model_files(settings)
        require_tokenizer(files)
        rows = read_rows(config, checkpoint.release)
        asked = _choose_asked(config, rows, bad)
        reporter.note(f"passing the checkpoint over {plural(len(rows.new), 'row')}")
        found = find_rows_behind(
            load_pretrained(settings, files),
            rows,
            asked,
            config.stride,
            seed=config.seed,
            top=top,
            progress=reporter.progress,
        )
    return Incident(asked, found, len(rows.new), _knows(config, found[0].example.id))


def _knows(config: AuditConfig, id: str) -> bool:
    """Whether the audit's ledger holds a row."""
    try:
        with Ledger.existing(config.state) as ledger:
            return bool(load_examples(ledger, [id]))
    except InputError:
        return False


def _choose_asked(config: AuditConfig, rows: AuditRows, bad: BadAnswer) -> Sentinel:
    """The answer as a sentinel, or the sentinel (copies included) of the id."""
    if bad.sentinel is None:
        prompt = (Message("user", bad.prompt or ""),)
        return Sentinel("incident", prompt, forbidden=bad.answer, reference=None, panel="incident")
    sentinels = load_sentinels(config.sentinels)
    for sentinel in copy_sentinels(sentinels, rows, config.probes):
        if sentinel.id == bad.sentinel:
            return sentinel
    raise InputError(
        f"no sentinel is called {bad.sentinel}: `poisonwatch probe` names those that moved, and "
        "copies with a trigger, or in a frame, need the rows that it was found in"
    )
