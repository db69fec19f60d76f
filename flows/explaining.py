"""A question to a past audit: which rows push an answer, from its saved operators."""

from dataclasses import dataclass
from pathlib import Path

from poisonwatch.config_file import load_config
from poisonwatch.errors import InputError
from poisonwatch.examples import Example
from poisonwatch.model.files import name_model
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.pruning.missing import require_operators
from poisonwatch.run_directory.checksums import require_unchanged
from poisonwatch.run_directory.layout import EXPLAINING_FILES
from poisonwatch.run_directory.operators import load_operators
from poisonwatch.run_directory.reread import AuditedRows
from poisonwatch.run_directory.seals import find_own_seal
from poisonwatch.stride.explain import ExplainedRow, describe_exactness, explain_response


@dataclass(frozen=True, slots=True)
class Explanation:
    """The rows behind an answer, strongest first, of `total` in all; `exactness` says which of
    their numbers are exact, empty where all are. `examples` has those that could be read again, by
    id.
    """

    rows: list[ExplainedRow]
    total: int
    exactness: str
    examples: dict[str, Example]


def explain_run(
    run: Path, prompt: str, response: str, top: int = 10, model: str | None = None
) -> Explanation:
    """The `top` rows of the audit that left `run` that make the response likelier. `model` is where
    its model lies now, if it moved.

    Raises InputError where nothing is asked for, RunError where the run has no operators, or is not
    what the audit wrote, and ModelError where the model cannot be loaded or is another.
    """
    if top < 1:
        raise InputError(f"top is {top}: ask for at least one row")
    if not prompt.strip() or not response.strip():
        raise InputError("prompt and response must both say something")
    require_operators(run)
    saved = load_operators(run)
    # The model is named by the audit's own settings, unless it has moved: operators of one model
    # say nothing about another (`load_on` compares the weights).
    config = load_config(run / "config.yaml")
    require_unchanged(run, *EXPLAINING_FILES, seal=find_own_seal(config))
    settings = config.model
    if model is not None:
        settings = name_model(settings, model)
    fitted = saved.load_on(load_pretrained(settings))
    read_rows = AuditedRows(config)
    rows = explain_response(
        run, fitted, prompt, response, stride=saved.stride, top=top, read_rows=read_rows
    )
    examples = read_rows([row.example_id for row in rows])
    return Explanation(rows, len(fitted.ids), describe_exactness(rows), dict(examples))
