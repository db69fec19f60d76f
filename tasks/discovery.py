"""Groups of rows that push the model the same way, whatever the sentinels ask."""

import numpy as np

from poisonwatch.config import AuditConfig
from poisonwatch.detection.result import AttributionResult
from poisonwatch.discovery.describe import (
    SearchedRows,
    ask_about_groups,
    discover_groups,
    refuse_excess,
)
from poisonwatch.discovery.described import DiscoveryReport
from poisonwatch.failures import Attempts
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.progress import Progress
from poisonwatch.run_directory.precedents import load_earlier_audits
from poisonwatch.stride.saved_rows import read_nothing
from poisonwatch.stride.streamed import StreamedFit
from poisonwatch.tasks.options import PLAIN, task


@task(**PLAIN)
def discover(
    ledger: Ledger,
    config: AuditConfig,
    audit_id: str,
    found: AttributionResult,
    progress: Progress,
    attempts: Attempts,
) -> DiscoveryReport | None:
    """Look for groups among an audit's rows, and ask the steered model about the first. None where
    there is nothing to look at, or it fails: then `attempts` has the failure.
    """
    fitted, model = found.fitted, found.model
    if fitted is None or model is None:
        return None
    with attempts.part("groups of rows that push alike", "not looked for"):
        if not isinstance(fitted, StreamedFit):
            raise ValueError("rows were measured in shared subsets, which do not tell them apart")
        refuse_excess(len(fitted.ids))
        audited = found.detection.rows
        rows = SearchedRows(
            audit_id=audit_id,
            fitted=fitted,
            trusted=np.arange(len(fitted.ids)) >= len(audited.new),
            examples={example.id: example for example in audited.all},
            places={example.id: (example.source, example.position) for example in audited.new},
            read_rows=read_nothing,
            token_budget=fitted.token_budget,
        )
        # No audit of the name is past this one.
        earlier = load_earlier_audits(ledger, config.name, None, model, fitted.settings)
        report = discover_groups(rows, earlier, config.seed, attempts, progress)
        return ask_about_groups(report, rows, report.list_unasked(), attempts, progress)
    return None
