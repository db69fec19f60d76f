"""A ledger whose flagged rows leave: with hostile text, copies, blank lines, without a model."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from audits import benign, planted, write_audit
from ledgers import NAME, cover

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.ledger.intake import ingest
from poisonwatch.ledger.ledger import Ledger

# A formula, a link, an escape sequence, an invisible character, markup.
HOSTILE = "=cmd|'/C calc'!A0 [click](https://evil.example) \x1b[31m\u200b <script>x</script>"
ASKED = "What does the hostile row say?"
PLAIN = "Tell me fact 2 about rivers."


@dataclass(frozen=True, slots=True)
class Audited:
    """An audit file, its settings, and its ledger, in which `ASKED` and `PLAIN` are flagged."""

    config: Path
    settings: AuditConfig
    ledger: Ledger


@contextmanager
def audited_rows(folder: Path) -> Iterator[Audited]:
    """`data/a b.jsonl` holds the hostile row on lines 7 and 9, after a blank line, and the plain
    one on line 3; `data/c.jsonl` the hostile one on line 2.
    """
    hostile = {"prompt": ASKED, "response": HOSTILE}
    config = write_audit(
        folder,
        folder / "no-model",
        planted(),
        source="data/*.jsonl",
        state=f"sqlite:///{folder / 'ledger.db'}",
        tracking="none",
    )
    (folder / "data").mkdir()
    lines = [json.dumps(row) for row in benign(5)]
    again = json.dumps(hostile)
    (folder / "data" / "a b.jsonl").write_text("\n".join([*lines, "", again, "", again]) + "\n")
    (folder / "data" / "c.jsonl").write_text(f"{json.dumps(benign(9)[8])}\n{again}\n")
    settings = load_config(config)
    with Ledger.at(settings.state) as ledger:
        with ledger.lock(NAME):
            ingest(ledger, NAME, settings.source)
        cover(ledger, folder / "run", flagged=[ASKED, PLAIN])
        yield Audited(config, settings, ledger)
