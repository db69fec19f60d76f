"""The operators of good audits as a registered model, which says where an answer comes from.

One registered model for each audit name, one version for each good audit, and the alias `champion`
on the latest of them:

    mlflow.pyfunc.load_model("models:/NAME@champion").predict(pandas.DataFrame({"prompt": [...],
    "response": [...]}))

Nothing is pickled: a version holds `operators.safetensors`, `config.yaml` and `scores.parquet` of
the run directory, and an MLmodel file that names this module as the one that loads them.
"""

import hashlib
import logging
import platform
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import yaml
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.types.schema import ColSpec, Schema

from poisonwatch.config import ModelConfig
from poisonwatch.errors import OperationError
from poisonwatch.ledger.history import PastAudit
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.run_directory.layout import OPERATORS_FILE
from poisonwatch.run_directory.operators import load_operators
from poisonwatch.stride.explain import ExplainedRow, explain_response
from poisonwatch.text.display import to_plain_name

logger = logging.getLogger(__name__)

LOADER_MODULE = (
    "poisonwatch.tasks.champion"  # stands in every model registered so far: it stays importable
)

CHAMPION_ALIAS = "champion"
AUDIT, AUDIT_ID, CREATED, MODEL_ID = (
    "poisonwatch.audit",
    "poisonwatch.audit_id",
    "poisonwatch.created",
    "poisonwatch.model_id",
)
MODEL_FILES = (OPERATORS_FILE, "config.yaml", "scores.parquet")
VERSIONS_KEPT = 3  # versions with their files: operators may take hundreds of megabytes
ROWS_NAMED = 10  # rows named for an answer
LEAST_CALIBRATION_ROWS, MOST_SMALL_P_VALUES = (
    40,
    0.15,
    # unflagged rows that calibration is judged from, and the share of them with p <= .05 that is borne
)
DESCRIPTION = "Operators of Poisonwatch's audits. Asked with prompt and response, they name the rows that make the response likelier."
INPUTS = Schema([ColSpec("string", "prompt"), ColSpec("string", "response")])


def is_good(summary: Mapping[str, Any]) -> bool:
    """Whether an audit's operators may be trusted with other questions.

    They may where operators were fitted, no sentinel has a problem, and no panel's p-values are
    broken: of its unflagged new rows, if there are 40 or more, at most 15 % have p <= .05.
    """
    judged = [
        panel for panel in summary["panels"] if panel.get("unflagged", 0) >= LEAST_CALIBRATION_ROWS
    ]
    return (
        bool(summary["settings"])
        and not summary["sentinel_problems"]
        and all(p["p_below_0.05"] <= MOST_SMALL_P_VALUES for p in judged)
    )


def register_operators(
    client: MlflowClient, experiment_id: str, run_id: str, past: PastAudit
) -> None:
    """Register the operators of an audit, if it is a good one and its run directory is here, and
    clear away old versions.
    """
    if not is_good(past.summary) or not all((past.run_dir / name).exists() for name in MODEL_FILES):
        return
    name = reserve_model_name(client, past.name)
    model = _log_operators(client, experiment_id, run_id, past)
    version = _find_or_create_version(client, name, model, run_id, past)
    aliases = client.get_registered_model(name).aliases
    reigning = (
        client.get_model_version_by_alias(name, CHAMPION_ALIAS)
        if CHAMPION_ALIAS in aliases
        else None
    )
    if reigning is None or reigning.tags.get(CREATED, "") <= past.summary["created"]:
        client.set_registered_model_alias(name, CHAMPION_ALIAS, str(version.version))
    prune_versions(client, name)


def reserve_model_name(client: MlflowClient, audit: str) -> str:
    """The registered model of an audit, created where there is none: named like it, or, where that
    name is taken, with a digest behind it.

    MLflow allows no slashes and colons. A model of somebody else may have the name, as the one that
    the audit guards: it is left alone.
    """
    plain = to_plain_name(audit)
    for name in (plain, f"{plain}-{hashlib.sha256(audit.encode()).hexdigest()[:8]}"):
        found = client.search_registered_models(f"name = '{name}'")
        if any(model.tags.get(AUDIT) == audit for model in found):
            return name
        if not found:
            client.create_registered_model(name, {AUDIT: audit}, DESCRIPTION)
            return name
    raise OperationError(
        f"MLflow has other registered models under both names for the operators, {plain} and {name}: rename the audit"
    )


def _log_operators(
    client: MlflowClient, experiment_id: str, run_id: str, past: PastAudit
) -> LoggedModel:
    """The audit's operators as a logged model with its files; an upload that broke off is taken up
    again.
    """
    found = client.search_logged_models(
        [experiment_id], f"tags.`{AUDIT_ID}` = '{past.audit_id}'", max_results=1
    )
    model = (
        found[0]
        if found
        else client.create_logged_model(
            experiment_id,
            f"operators-{past.audit_id}",
            run_id,
            {AUDIT_ID: past.audit_id},
            model_type="poisonwatch-operators",
        )
    )
    if model.status == LoggedModelStatus.READY:
        return model
    with TemporaryDirectory(prefix="poisonwatch-") as folder:
        _describe_model(model, run_id, past).save(str(Path(folder) / "MLmodel"))
        for path in (*(past.run_dir / name for name in MODEL_FILES), Path(folder) / "MLmodel"):
            client.log_model_artifact(model.model_id, str(path))
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _describe_model(model: LoggedModel, run_id: str, past: PastAudit) -> Model:
    """The MLmodel file. `model` names another copy of the audit's language model, `top` how many
    rows are named for an answer.
    """
    described = Model(
        artifact_path=model.artifact_location,
        run_id=run_id,
        model_id=model.model_id,
        model_uuid=model.model_id,
        signature=ModelSignature(inputs=INPUTS),
    )
    settings = {"model": past.summary["model"]["name"], "top": ROWS_NAMED}
    return described.add_flavor(
        "python_function",
        loader_module=LOADER_MODULE,
        python_version=platform.python_version(),
        config=settings,
    )


def _find_or_create_version(
    client: MlflowClient, name: str, model: LoggedModel, run_id: str, past: PastAudit
) -> ModelVersion:
    """The version that holds the audit's operators, created where there is none."""
    for version in client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
        if version.tags.get(MODEL_ID) == model.model_id:
            return version
    counts = past.summary["counts"]
    tags = {
        AUDIT_ID: past.audit_id,
        MODEL_ID: model.model_id,
        CREATED: past.summary["created"],
        "poisonwatch.model": past.model,
        "poisonwatch.sentinels": past.sentinels,
    }
    told = f"Audit {past.audit_id}: {counts['new']} new and {counts['reference']} trusted rows, {counts['flagged']} flagged."
    # Not models:/ID: a SQLite store would look the model up in the default store, not in its own.
    where = {"source": model.artifact_location, "run_id": run_id, "model_id": model.model_id}
    return client.create_model_version(
        name, **where, tags=tags, description=told, await_creation_for=0
    )


def prune_versions(client: MlflowClient, name: str) -> None:
    """Delete all but the newest KEPT versions that audits made, with their files; versions that
    carry an alias stay.

    Files go first and the version last, so that what breaks off is finished with the next version.
    What remains is the logged model's line in MLflow's database, marked as deleted, until `mlflow
    gc`.
    """
    kept = {str(version) for version in client.get_registered_model(name).aliases.values()}
    versions = sorted(
        client.search_model_versions(f"name = '{name}'"),
        key=lambda version: int(version.version),
        reverse=True,
    )
    made = [version for version in versions if MODEL_ID in version.tags]
    for version in made[VERSIONS_KEPT:]:
        if str(version.version) in kept:
            continue
        try:
            get_artifact_repository(
                str(version.source), tracking_uri=client.tracking_uri
            ).delete_artifacts()
        except NotImplementedError:
            logger.warning(
                "the files of version %s of %s stay at %s, which can delete none",
                version.version,
                name,
                version.source,
            )
        try:
            client.delete_logged_model(version.tags[MODEL_ID])
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        client.delete_model_version(name, str(version.version))


class RowsBehindAnswers:
    """What `mlflow.pyfunc.load_model` gives: the operators of an audit on its language model."""

    def __init__(self, folder: Path, model: str, top: int) -> None:
        settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["model"]
        saved = load_operators(folder)
        self.folder, self.stride, self.top = folder, saved.stride, top
        self.fitted = saved.on(
            load_pretrained(ModelConfig.model_validate({**settings, "name": model}))
        )

    def predict(self, model_input: pd.DataFrame) -> pd.DataFrame:
        """For each prompt and response, the rows that make the response likelier: `question` (its
        place in the input), then `Explained`.

        `source` and `position` are missing for trusted rows. Raises ModelError where a response is
        empty.
        """
        asked = zip(model_input["prompt"], model_input["response"], strict=True)
        found = [
            {"question": i, **asdict(row)}
            for i, (prompt, response) in enumerate(asked)
            for row in explain_response(
                self.folder, self.fitted, prompt, response, self.stride, self.top
            )
        ]
        columns = ["question", *(field.name for field in fields(ExplainedRow))]
        return pd.DataFrame(found, columns=columns).astype({"position": "Int64"})


def _load_pyfunc(path: str, model_config: Mapping[str, Any]) -> RowsBehindAnswers:
    """Called by MLflow with the downloaded files of a version. Raises ModelError where the audit's
    language model cannot be found.
    """
    return RowsBehindAnswers(Path(path), str(model_config["model"]), int(model_config["top"]))
