"""The operators of good audits as a registered model, which says where an answer comes from.

One registered model for each audit name, one version for each good audit, and the alias `champion`
on the latest of them:

    mlflow.pyfunc.load_model("models:/NAME@champion").predict(pandas.DataFrame({"prompt": [...],
    "response": [...]}))

Nothing is pickled: a version holds `operators.safetensors`, `config.yaml`, `scores.parquet` and
`SHA256SUMS` of the run directory, and an MLmodel file that names the module that loads them, and
the run directory's seal.
"""

import logging
import platform
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import ColSpec, Schema

from poisonwatch.errors import OperationError
from poisonwatch.integrations.mlflow.artifacts import delete_artifacts, using_artifacts
from poisonwatch.integrations.mlflow.names import list_model_names
from poisonwatch.integrations.mlflow.prunable import is_good
from poisonwatch.ledger.history import PastAudit, find_by_audit_id
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.run_directory.checksums import CHECKSUMS_FILE, compute_seal
from poisonwatch.run_directory.layout import EXPLAINING_FILES

logger = logging.getLogger(__name__)

# It stands in every model registered so far: that module stays importable.
LOADER_MODULE = "poisonwatch.tasks.champion"

CHAMPION_ALIAS = "champion"
# Tags of registered models, logged models and versions, by which they are found again.
AUDIT = "poisonwatch.audit"
AUDIT_ID = "poisonwatch.audit_id"
CREATED = "poisonwatch.created"
MODEL_ID = "poisonwatch.model_id"

# Versions with their files, where nothing else is said: operators may take hundreds of megabytes.
VERSIONS_KEPT = 3
ROWS_NAMED = 10  # rows named for an answer

DESCRIPTION = (
    "Operators of Poisonwatch's audits. Asked with prompt and response, "
    "they name the rows that make the response likelier."
)
INPUTS = Schema([ColSpec("string", "prompt"), ColSpec("string", "response")])


def register_operators(
    client: MlflowClient,
    experiment_id: str,
    run_id: str,
    past: PastAudit,
    ledger: Ledger,
    kept: int = VERSIONS_KEPT,
) -> None:
    """Register the operators of an audit of the ledger, if it is a good one and its run directory
    is here, and clear away all but the newest `kept` versions.
    """
    is_here = all((past.run_dir / name).exists() for name in EXPLAINING_FILES)
    if not is_good(past.summary) or not is_here:
        return
    name = reserve_model_name(client, past.name)
    model = _log_operators(client, experiment_id, run_id, past)
    version = _find_or_create_version(client, name, model, run_id=run_id, past=past)
    # The alias follows the audits' order: one that is uploaded late is no champion.
    current = _find_champion(client, name)
    if current is None or not _is_later(ledger, current, than=past):
        client.set_registered_model_alias(name, CHAMPION_ALIAS, str(version.version))
    prune_versions(client, name, kept)


def _is_later(ledger: Ledger, version: ModelVersion, than: PastAudit) -> bool:
    """Whether a version is of a later audit: by the ledger's numbers, since clocks are set back
    now and then; by the clock where the ledger does not know the version's audit.
    """
    audit = find_by_audit_id(ledger, version.tags.get(AUDIT_ID, ""))
    if audit is not None:
        return audit.number > than.number
    return str(version.tags.get(CREATED, "")) > str(than.summary["created"])


def _find_champion(client: MlflowClient, name: str) -> ModelVersion | None:
    """The version that carries the alias, if any does."""
    # Asked for an alias that is not there, MLflow raises what it raises for a broken request, too.
    if CHAMPION_ALIAS not in client.get_registered_model(name).aliases:
        return None
    return client.get_model_version_by_alias(name, CHAMPION_ALIAS)


def reserve_model_name(client: MlflowClient, audit: str) -> str:
    """The registered model of an audit, created where there is none: named like it, or, where that
    name is taken, with a digest behind it.

    MLflow allows no slashes and colons. A model of somebody else may have the name, as the one that
    the audit guards: it is left alone.
    """
    plain, distinct = list_model_names(audit)
    for name in (plain, distinct):
        found = client.search_registered_models(f"name = '{name}'")
        if any(model.tags.get(AUDIT) == audit for model in found):
            return name
        if not found:
            client.create_registered_model(name, {AUDIT: audit}, DESCRIPTION)
            return name
    raise OperationError(
        "MLflow has other registered models under both names for the operators, "
        f"{plain} and {distinct}: rename the audit"
    )


def _log_operators(
    client: MlflowClient, experiment_id: str, run_id: str, past: PastAudit
) -> LoggedModel:
    """The audit's operators as a logged model with its files; an upload that broke off is taken up
    again.
    """
    model = _find_or_create_model(client, experiment_id, run_id, past)
    if model.status == LoggedModelStatus.READY:
        return model
    with TemporaryDirectory(prefix="poisonwatch-") as folder:
        description = Path(folder) / "MLmodel"
        _describe_model(model, run_id, past).save(str(description))
        # Run directories of earlier versions have no checksums.
        checksums = past.run_dir / CHECKSUMS_FILE
        sealed = [checksums] if checksums.exists() else []
        with using_artifacts(model.artifact_location):
            for path in (*(past.run_dir / name for name in EXPLAINING_FILES), *sealed, description):
                client.log_model_artifact(model.model_id, str(path))
    # Ready comes last: until then the next upload sends the files once more.
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _find_or_create_model(
    client: MlflowClient, experiment_id: str, run_id: str, past: PastAudit
) -> LoggedModel:
    """The logged model of an audit, which may have no files yet."""
    wanted = f"tags.`{AUDIT_ID}` = '{past.audit_id}'"
    for model in client.search_logged_models([experiment_id], wanted, max_results=1):
        return model
    return client.create_logged_model(
        experiment_id,
        f"operators-{past.audit_id}",
        run_id,
        tags={AUDIT_ID: past.audit_id},
        model_type="poisonwatch-operators",
    )


def _describe_model(model: LoggedModel, run_id: str, past: PastAudit) -> Model:
    """The MLmodel file. `model` names another copy of the audit's language model, `top` how many
    rows are named for an answer, and `seal` what the files are held to.
    """
    settings = {"model": past.summary["model"]["name"], "top": ROWS_NAMED}
    seal = compute_seal(past.run_dir)
    if seal is not None:
        settings["seal"] = seal
    described = Model(
        artifact_path=model.artifact_location,
        run_id=run_id,
        model_id=model.model_id,
        model_uuid=model.model_id,
        signature=ModelSignature(inputs=INPUTS),
    )
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
    rows = (
        f"{counts['new']} new and {counts['reference']} trusted rows, {counts['flagged']} flagged"
    )
    tags = {
        AUDIT_ID: past.audit_id,
        MODEL_ID: model.model_id,
        CREATED: past.summary["created"],
        "poisonwatch.model": past.model,
        "poisonwatch.sentinels": past.sentinels,
    }
    return client.create_model_version(
        name,
        # Not models:/ID: a SQLite store would look the model up in the default store, not in its
        # own.
        source=model.artifact_location,
        run_id=run_id,
        model_id=model.model_id,
        tags=tags,
        description=f"Audit {past.audit_id}: {rows}.",
        await_creation_for=0,
    )


def find_champions(client: MlflowClient, audit: str) -> set[str]:
    """The ids of the audits whose versions carry an alias."""
    found: set[str] = set()
    for name in list_model_names(audit):
        for model in client.search_registered_models(f"name = '{name}'"):
            if model.tags.get(AUDIT) != audit:
                continue
            for version in model.aliases.values():
                tags = client.get_model_version(name, str(version)).tags
                found |= {tags[AUDIT_ID]} if AUDIT_ID in tags else set()
    return found


def prune_versions(client: MlflowClient, name: str, kept: int = VERSIONS_KEPT) -> None:
    """Delete all but the newest `kept` versions that audits made, with their files; versions that
    carry an alias stay.

    What remains is the logged model's line in MLflow's database, marked as deleted, until `mlflow
    gc`.
    """
    aliased = {str(version) for version in client.get_registered_model(name).aliases.values()}
    found = client.search_model_versions(f"name = '{name}'")
    # Versions that people made by hand are theirs: they carry no id of a logged model of ours.
    made = [version for version in found if MODEL_ID in version.tags]
    made.sort(key=lambda version: int(version.version), reverse=True)
    for version in made[kept:]:
        if str(version.version) not in aliased:
            _delete_version(client, name, version)


def _delete_version(client: MlflowClient, name: str, version: ModelVersion) -> None:
    # Files first and the version last: what breaks off is finished with the next version.
    source = str(version.source)
    delete_artifacts(client, source, f"version {version.version} of {name}")
    try:
        client.delete_logged_model(version.tags[MODEL_ID])
    except MlflowException as error:
        # A deletion that broke off has deleted it already.
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    client.delete_model_version(name, str(version.version))
