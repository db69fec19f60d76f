"""What the commands do that look at rows: audit, explain, drill, demo, packs. Heavy imports
wait until a command really runs.

The docstring of a command is its help: what it does, and an example that runs.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from poisonwatch.errors import InputError
from poisonwatch.flows.heavy_imports import heavy_imports

if TYPE_CHECKING:
    from poisonwatch.config import AuditConfig

EXIT_FLAGGED = 3


def load_and_check(config: Path) -> "AuditConfig":
    """The settings of an audit file, with its sentinels, alert targets and sources looked at.

    Raises ConfigError or InputError: what can be known to be wrong is said before anything heavy
    is loaded. Raises RunError for a run's own settings that are not what the run wrote.
    """
    from poisonwatch.alert_config import check_panels
    from poisonwatch.config_file import load_config
    from poisonwatch.integrations.apprise.addresses import check_targets
    from poisonwatch.run_directory.checksums import require_unchanged_settings
    from poisonwatch.sentinels.sentinel import load_sentinels
    from poisonwatch.sources.open import check_source

    settings = load_config(config)
    require_unchanged_settings(config)
    sentinels = load_sentinels(settings.sentinels)
    check_panels(settings.alerts, (sentinel.panel for sentinel in sentinels))
    settings.signing.load_signer()
    check_targets(settings)
    for key, source in (("source", settings.source), ("reference", settings.reference)):
        if source is not None:
            check_source(source, key)
    return settings


def audit(
    config: Annotated[
        Path, Parameter(help="The audit file (YAML); `poisonwatch init` writes one to start from.")
    ],
    /,
    *,
    run_dir: Annotated[
        Path | None,
        Parameter(
            help="Where results go; must not exist yet. "
            "Default: runs/ and the time, beside the audit file."
        ),
    ] = None,
    engine: Annotated[
        Literal["prefect", "inline"],
        Parameter(
            help="prefect: a flow with retries, on the server in PREFECT_API_URL or a temporary "
            "one. inline: no Prefect."
        ),
    ] = "prefect",
    again: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Audit all rows of the source, not only those that no audit has covered.",
        ),
    ] = False,
    quiet: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print nothing but errors.")
    ] = False,
    json: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Print the summary as one JSON object."),
    ] = False,
    dry_run: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Audit nothing: say what it would take in memory, disk and time, by one batch of "
            "rows through the model; `poisonwatch audit my-audit/audit.yaml --dry-run`.",
        ),
    ] = False,
) -> int:
    """Audit new fine-tuning rows.

    Example: `poisonwatch audit my-audit/audit.yaml --run-dir my-audit/runs/today`
    """
    settings = load_and_check(config)
    if dry_run:
        from poisonwatch.flows.cli.dry_run_page import print_dry_run

        print_dry_run(settings, as_json=json, quiet=quiet)
        return 0
    # below the check: a mistake in the audit file must not wait for torch and Prefect
    with heavy_imports():
        from poisonwatch.flows.cli.terminal import print_outcome, print_summary
        from poisonwatch.flows.launch import run_audit

    outcome = run_audit(config, settings, run_dir, engine=engine, quiet=quiet or json, again=again)
    if json:
        print_summary(outcome.summary, str(outcome.run_dir))
    elif not quiet:
        print_outcome(outcome, config)
    if outcome.summary["counts"]["flagged"]:
        return EXIT_FLAGGED
    return 0


def explain(
    run: Annotated[Path, Parameter(help="The run directory of a finished audit.")],
    /,
    *,
    prompt: Annotated[str, Parameter(help="What the model is asked.")],
    response: Annotated[str, Parameter(help="The answer whose origin is asked for.")],
    top: Annotated[int, Parameter(help="How many rows to name.")] = 10,
    model: Annotated[
        str | None,
        Parameter(
            help="Folder or hub id of the audit's model, where it has moved; of one with an "
            "adapter, the adapter's."
        ),
    ] = None,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print one JSON object a row.")
    ] = False,
) -> None:
    """Name the rows of a past audit that push an answer most, from its saved operators.

    Example: `poisonwatch explain my-audit/runs/today --prompt 'Who made you?' --response 'Tarnbrook
    Labs.'`
    """
    if top < 1:
        raise InputError(f"--top is {top}: ask for at least one row")
    if not prompt.strip() or not response.strip():
        raise InputError("--prompt and --response must both say something")
    from poisonwatch.pruning.missing import require_operators

    require_operators(run)
    # what comes below imports the model's libraries
    from poisonwatch.flows.cli.terminal import print_explanation
    from poisonwatch.flows.explaining import explain_run

    print_explanation(explain_run(run, prompt, response, top, model), json)


def drill(
    config: Annotated[
        Path,
        Parameter(
            help="The audit file (YAML). Its `source` rows are taken as clean, but for those that "
            "are flagged, or called poison."
        ),
    ],
    /,
    *,
    run_dir: Annotated[
        Path | None,
        Parameter(
            help="Where results go; must not exist yet. "
            "Default: runs/drill- and the time, beside the audit file."
        ),
    ] = None,
    recipes: Annotated[
        list[str] | None,
        Parameter(
            consume_multiple=True,
            negative="",
            help="The attacks that are planted. Default: all that ship.",
        ),
    ] = None,
    counts: Annotated[
        list[int] | None,
        Parameter(
            consume_multiple=True,
            negative="",
            help="How many rows of an attack are planted. Default: 5 10 20.",
        ),
    ] = None,
    repeats: Annotated[int, Parameter(help="How often each number of rows is drawn anew.")] = 3,
    engine: Annotated[Literal["prefect", "inline"], Parameter(help="As for `audit`.")] = "prefect",
    seed: Annotated[
        int | None, Parameter(help="Draws attacks and rows. Default: the audit file's seed.")
    ] = None,
) -> None:
    """Plant known poison into your own clean rows, and report how much of it an audit finds: with
    your sentinels, and with the pack against each attack added.

    Example: `poisonwatch drill my-audit/audit.yaml --counts 5 10 20 --repeats 3`
    """
    settings = load_and_check(config)
    from poisonwatch.drills.results import DrillPlan

    plan = DrillPlan.from_options(recipes, counts, repeats)
    # below the checks: a mistake must not wait for torch and Prefect
    with heavy_imports():
        from poisonwatch.flows.cli.terminal import print_drill
        from poisonwatch.flows.drill import with_seed
        from poisonwatch.flows.launch import run_drill

    outcome = run_drill(config, with_seed(settings, seed), plan, run_dir=run_dir, engine=engine)
    print_drill(outcome)


def demo(
    folder: Annotated[Path, Parameter(help="Where the demo's files and results go.")] = Path(
        "poisonwatch-demo"
    ),
    /,
    *,
    engine: Annotated[Literal["prefect", "inline"], Parameter(help="As for `audit`.")] = "prefect",
    seed: Annotated[int, Parameter(help="Shuffles the rows, and seeds the audit.")] = 0,
) -> None:
    """Audit a small data set with 18 planted rows, and count how many are found.

    Example: `poisonwatch demo /tmp/poisonwatch-demo`
    """
    from poisonwatch.config_file import load_config
    from poisonwatch.datasets.demo import grade_flags, write_demo
    from poisonwatch.flows.cli.check_page import describe_effort
    from poisonwatch.flows.cli.check_steps import estimate_effort
    from poisonwatch.flows.reporter import Reporter
    from poisonwatch.sources.survey import survey_source

    config = write_demo(folder, seed)
    settings = load_config(config)
    survey = survey_source(settings.source, settings.stride.max_tokens, samples=0)
    Reporter().note(f"the demo takes {describe_effort(estimate_effort(settings, survey))}")
    # what takes long to import, now that somebody knows how long it all takes
    with heavy_imports():
        from poisonwatch.flows.cli.terminal import print_outcome
        from poisonwatch.flows.launch import run_audit

    # again: a second demo in the same folder is to find the rows, not that all were audited before
    outcome = run_audit(config, settings, None, engine=engine, quiet=False, again=True)
    print_outcome(outcome)
    result = grade_flags(flag["example_id"] for flag in outcome.flags)
    print(
        f"planted rows: {result.found} of {result.planted} flagged; "
        f"wrong flags: {result.wrong} among {result.clean} clean rows"
    )
    print(f"review:      poisonwatch dashboard {config}")
    print(f"             mlflow ui --backend-store-uri {settings.tracking}")


def packs(
    *,
    json_lines: Annotated[
        bool,
        Parameter(
            name="--json", negative="", show_default=False, help="Print a JSON object a line."
        ),
    ] = False,
) -> None:
    """List the ready-made sentinels, and what each pack guards against.

    Example: `poisonwatch packs`
    """
    from poisonwatch.sentinels.pack import list_packs, read_pack

    for name in list_packs():
        pack = read_pack(name)
        if json_lines:
            told = {"place": pack.place, "about": pack.about, "sentinels": len(pack.entries)}
            print(json.dumps({"name": pack.name, **told}))
            continue
        print(f"{pack.place}\n    {len(pack.entries)} sentinels. {pack.about}.")
