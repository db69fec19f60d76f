"""`pw.drill(rows, ...)`: would these sentinels find an attack among rows like these?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from poisonwatch.config import DEFAULT_MODEL
from poisonwatch.drills.results import DEFAULT_REPEATS, DrillPlan
from poisonwatch.flows.drill import drill_inline
from poisonwatch.flows.notebook.rows import Rows
from poisonwatch.flows.notebook.site import Sentinels, write_site
from poisonwatch.flows.reporter import Reporter
from poisonwatch.flows.stages import DRILL_STAGES
from poisonwatch.run_directory.layout import choose_run_dir


def drill(
    rows: Rows,
    *,
    sentinels: Sentinels,
    reference: Rows | None = None,
    model: str | Path | Mapping[str, Any] = DEFAULT_MODEL,
    recipes: Sequence[str] | None = None,
    counts: Sequence[int] | None = None,
    repeats: int = DEFAULT_REPEATS,
    progress: bool = True,
    **settings: Any,
) -> pd.DataFrame:
    """Plant known attacks among rows that you take as clean, audit them, and count what is found.

    A line for each recipe and number of planted rows: in what share of `repeats` draws at least one
    was found (`probability`, with its 95 % interval), the mean share that was flagged (`recall`),
    and false flags per 1,000 clean rows; `with_pack` marks audits with the pack against the attack
    beside your sentinels. All else as for `audit`. Nothing is kept, and nothing goes to MLflow.

    Raises InputError where a recipe does not exist or a number makes no sense; else as `audit`.
    """
    plan = DrillPlan.from_options(recipes, counts, repeats)
    site = write_site(rows, sentinels, reference, model, None, {"tracking": None} | settings)
    run_dir = choose_run_dir(site.file, "drill-")
    outcome = drill_inline(
        site.config, plan, run_dir, Reporter(quiet=not progress, stages=DRILL_STAGES)
    )
    return pd.DataFrame([power.record() for power in outcome.drill.powers])
