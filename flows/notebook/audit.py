"""`pw.audit(rows, ...)`: an audit of what a notebook holds, by the stages of every audit.

It needs a folder, with a ledger and a run directory as any audit has them: one that goes with the
result, or the user's own, which `poisonwatch dashboard FOLDER/audit.yaml` opens.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from poisonwatch.config import DEFAULT_MODEL
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.notebook.result import AuditResult
from poisonwatch.flows.notebook.rows import Rows
from poisonwatch.flows.notebook.site import Sentinels, write_site
from poisonwatch.flows.reporter import Reporter
from poisonwatch.run_directory.layout import choose_run_dir


def audit(
    rows: Rows,
    *,
    sentinels: Sentinels,
    reference: Rows | None = None,
    model: str | Path | Mapping[str, Any] = DEFAULT_MODEL,
    folder: str | Path | None = None,
    tracking: str | None = None,
    progress: bool = True,
    **settings: Any,
) -> AuditResult:
    """Audit rows before training on them: which were planted to change what the model does?

        result = pw.audit(rows, sentinels="pack:identity", reference=trusted)
        result.flags

    `rows` are a list of dictionaries, a pandas DataFrame, a `datasets.Dataset`, a path, glob or
    URL, or a mapping as `source` of an audit file; `reference` are rows you trust, likewise: scores
    are judged against theirs. `sentinels` are packs ("pack:NAME"), files, or sentinels as
    dictionaries: {"id", "prompt", "forbidden" and/or "reference"}. `model` is the one to be
    trained: a hub id or a folder; `settings` are other sections of an audit file, as in
    `stride={"layer": 9}`.

    All rows are audited, each time. Nothing is kept but what the result holds, and nothing goes to
    MLflow, unless you say so: `folder` keeps ledger, results and an audit file for the command
    line, `tracking` is an MLflow server or store. `progress` shows bars.

    Raises PoisonwatchError: ConfigError, InputError, SentinelError, SourceError, ModelError say
    what to change.
    """
    site = write_site(rows, sentinels, reference, model, folder, {"tracking": tracking} | settings)
    run_dir = choose_run_dir(site.file)
    outcome = audit_inline(site.config, run_dir, Reporter(quiet=not progress), again=True)
    return AuditResult(config=site.config, outcome=outcome, given=site.given, lent=site.lent)
