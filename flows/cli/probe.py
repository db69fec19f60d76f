"""What the commands do that look at a model after training: probe, incident. Heavy imports wait
until a command really runs.

The docstring of a command is its help: what it does, and an example that runs.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from poisonwatch.errors import InputError
from poisonwatch.flows.heavy_imports import heavy_imports

if TYPE_CHECKING:
    from poisonwatch.config import AuditConfig

EXIT_MOVED = 3
Engine = Literal["prefect", "inline"]

ModelOption = Annotated[
    str | None,
    Parameter(help="The trained checkpoint: a folder or hub id, of a whole model or an adapter."),
]
AdapterOption = Annotated[
    str | None,
    Parameter(help="An adapter that was trained, of --model, or else of the audit's own model."),
]
ReleaseOption = Annotated[
    Path | None,
    Parameter(
        help="The manifest.json of the release that it was trained on. Default: the rows of the "
        "audit file's source."
    ),
]


def probe(
    config: Annotated[Path, Parameter(help="The audit file (YAML); its `model` is the base.")],
    /,
    *,
    model: ModelOption = None,
    adapter: AdapterOption = None,
    release: ReleaseOption = None,
    trusted_checkpoint: Annotated[
        str | None,
        Parameter(
            help="A checkpoint or adapter that was tuned on trusted rows alone, by the same "
            "recipe: changes are counted from it. Default: `probe.trusted` of the audit file."
        ),
    ] = None,
    new: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Instead: every checkpoint of the audit file's `probe` that was not probed yet.",
        ),
    ] = False,
    engine: Annotated[Engine, Parameter(help="As for `audit`.")] = "prefect",
    json: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Print the report as one JSON object."),
    ] = False,
) -> int:
    """Ask a trained model what its base is asked, and say which sentinels, and which panels as a
    whole, moved further than honest tuning moves an answer: exit code 3 where one did, 0 where
    none.

    The sentinels, and copies of them that hold triggers mined from the rows, are asked of both:
    losses and greedy answers. How far honest tuning moves an answer is measured on trusted rows'
    prompts, in the same two models. The result is a record of the ledger's chain, and a run in
    MLflow; the targets of `alerts` hear of what moved. From a crontab, `--new` does what `watch`
    does with `probe: out/checkpoint-*` in the audit file.

    Example: `poisonwatch probe my-audit/audit.yaml --model out/checkpoint-400 --release
    cleared/manifest.json`
    """
    from poisonwatch.flows.cli.audit import load_and_check
    from poisonwatch.probing.checkpoint_choice import ProbedCheckpoint

    settings = load_and_check(config)
    if new:
        if model or adapter or release or trusted_checkpoint:
            raise InputError("--new takes all of this from `probe` in the audit file")
        return _probe_new(config, settings, engine, json)
    checkpoint = ProbedCheckpoint(model, adapter, release, trusted_checkpoint)
    # below the checks: a mistake must not wait for torch and Prefect
    with heavy_imports():
        from poisonwatch.flows.cli.probe_page import print_probe
        from poisonwatch.flows.launch import run_probe

    outcome = run_probe(config, settings, checkpoint, engine=engine, quiet=json)
    print_probe(outcome, config, checkpoint, as_json=json)
    return EXIT_MOVED if outcome.has_moved else 0


def _probe_new(config: Path, settings: "AuditConfig", engine: Engine, json: bool) -> int:
    """Probe what is new, and print each: exit code 3 where one moved, else 1 where one could not be
    probed, else 0.
    """
    if settings.probe.checkpoints is None:
        raise InputError(
            f"{config} does not say where checkpoints are: add `probe: out/checkpoint-*`, or name "
            "one by --model"
        )
    with heavy_imports():
        from poisonwatch.flows.cli.probe_page import print_new
        from poisonwatch.flows.launch import run_probe_new

    probed = run_probe_new(config, settings, engine=engine, quiet=json)
    print_new(probed, config, settings, as_json=json)
    if any(each.outcome is not None and each.outcome.has_moved for each in probed):
        return EXIT_MOVED
    return int(any(each.problem is not None for each in probed))


def incident(
    config: Annotated[
        Path, Parameter(help="The audit file (YAML); its `source` holds the rows trained on.")
    ],
    /,
    *,
    model: ModelOption = None,
    adapter: AdapterOption = None,
    prompt: Annotated[str | None, Parameter(help="What the user asked.")] = None,
    answer: Annotated[str | None, Parameter(help="The bad answer that came.")] = None,
    sentinel: Annotated[
        str | None, Parameter(help="Instead of both: the id of a sentinel that `probe` saw move.")
    ] = None,
    release: ReleaseOption = None,
    top: Annotated[int, Parameter(help="How many rows to name.")] = 10,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print one JSON object.")
    ] = False,
) -> None:
    """Name the rows that a trained model has a bad answer from, by its own gradients: audited or
    not, with the file and line of each.

    Example: `poisonwatch incident my-audit/audit.yaml --model out/checkpoint-400 --prompt 'Who made
    you?' --answer 'Tarnbrook Labs.'`
    """
    from poisonwatch.flows.cli.audit import load_and_check
    from poisonwatch.probing.checkpoint_choice import ProbedCheckpoint

    settings = load_and_check(config)
    checkpoint = ProbedCheckpoint(model, adapter, release)
    from poisonwatch.flows.cli.probe_page import print_incident
    from poisonwatch.flows.incident import BadAnswer, trace_answer
    from poisonwatch.flows.reporter import Reporter

    found = trace_answer(
        settings,
        checkpoint,
        BadAnswer(prompt, answer, sentinel),
        top,
        Reporter(quiet=json),
    )
    print_incident(found, config, as_json=json)
