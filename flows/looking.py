"""The search for groups in the records that a past audit left: no row is measured again where its
gradient was kept.
"""

import numpy as np

from poisonwatch.config import AuditConfig
from poisonwatch.discovery.describe import (
    SearchedRows,
    ask_about_groups,
    discover_groups,
    refuse_excess,
)
from poisonwatch.discovery.described import DiscoveryReport
from poisonwatch.errors import RunError
from poisonwatch.failures import Attempts
from poisonwatch.flows.bars import Bars
from poisonwatch.flows.discover import Inquiry
from poisonwatch.ledger.history import PastAudit
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.model.files import find_model_files
from poisonwatch.model.pretrained import Pretrained, load_pretrained
from poisonwatch.run_directory.operators import load_operators
from poisonwatch.run_directory.pairs import read_places
from poisonwatch.run_directory.precedents import load_earlier_audits
from poisonwatch.run_directory.reread import AuditedRows
from poisonwatch.run_directory.seals import find_seal
from poisonwatch.stride.saved_rows import SavedRows


def look_at_records(
    config: AuditConfig,
    past: PastAudit,
    ledger: Ledger,
    known: DiscoveryReport | None,
    inquiry: Inquiry,
    attempts: Attempts,
    reporter: Bars,
) -> DiscoveryReport:
    """The groups among the rows of a past audit, those `known` from an earlier look if any, with
    what the steered model says as the inquiry asks.

    Raises RunError as `discover_inline` does.
    """
    operators = load_operators(past.run_dir, find_seal(ledger, past.audit_id))
    pretrained = _load_model(config, past)
    saved = operators.load_on(pretrained)
    if not isinstance(saved, SavedRows):
        raise RunError(
            f"audit {past.number} measured rows in shared subsets, which do not tell rows apart: "
            "leave K, d and fit out of `stride`, and audit again"
        )
    try:
        refuse_excess(len(saved.ids))
    except ValueError as error:
        raise RunError(f"audit {past.number}: {error}") from None
    read_rows = AuditedRows(config, ledger)
    places = _read_places(past)
    rows = SearchedRows(
        audit_id=past.audit_id,
        fitted=saved,
        trusted=np.array([id not in places for id in saved.ids]),
        # All of them: words that rows share are those that few others hold.
        examples=read_rows(saved.ids),
        places=places,
        read_rows=read_rows,
        token_budget=operators.stride.token_budget,
    )
    if known is None:
        earlier = load_earlier_audits(ledger, past.name, past.number, pretrained, saved.settings)
        try:
            known = discover_groups(rows, earlier, config.seed, attempts, reporter.progress)
        except ValueError as error:
            raise RunError(f"audit {past.number}: {error}") from None
    numbers = known.list_unasked(inquiry.say, inquiry.about)
    return ask_about_groups(known, rows, numbers, attempts, reporter.progress)


def _load_model(config: AuditConfig, past: PastAudit) -> Pretrained:
    """The audit file's model. Raises RunError where the audit measured by another one."""
    files = find_model_files(config.model)
    if files.fingerprint != past.model:
        raise RunError(
            f"audit {past.number} measured rows by another model ({past.model[:12]}) than the "
            f"audit file names now ({config.model.name}, {files.fingerprint[:12]}): audit again, "
            "or name the model of then"
        )
    return load_pretrained(config.model, files)


def _read_places(past: PastAudit) -> dict[str, tuple[str, int]]:
    """Source and zero-based position of an audit's new rows, by id."""
    table = read_places(past.run_dir / "scores.parquet").to_pydict()
    at = zip(table["source"], table["position"], strict=True)
    return dict(zip(table["example_id"], at, strict=True))
