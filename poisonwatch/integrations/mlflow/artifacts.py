"""Files that go to where MLflow keeps its artifacts: a folder, a bucket, or the server itself.

MLflow may keep them where only its clients reach, as in a bucket of S3. What fails there is told
apart from a server that is down: all but the files is there.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from sqlalchemy.exc import SQLAlchemyError

from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError, PoisonwatchError
from poisonwatch.failures import describe_error
from poisonwatch.integrations.mlflow.tracking import show_tracking
from poisonwatch.text.redaction import show_place

logger = logging.getLogger(__name__)

# What brings the library of a place that files lie at, by the module that is missing.
PACKAGES = {
    "azure": "azure-storage-blob azure-identity",
    "boto3": "'poisonwatch[s3]'",
    "botocore": "'poisonwatch[s3]'",
    "google": "'poisonwatch[gcs]'",
}
_TOO_LARGE = re.compile(r"\b413\b")


class ArtifactsError(Exception):
    """Files could not be sent to `place`, or removed from there, for its `__cause__`. That one is
    too large (`is_too_large`) says nothing of the others.
    """

    def __init__(self, place: str, error: BaseException) -> None:
        super().__init__(place)
        self.place = place
        self.is_too_large = is_too_large(error)


@contextmanager
def using_artifacts(place: str | None) -> Iterator[None]:
    """Turn whatever fails inside into an ArtifactsError, but for a tracking server that is down.

    Each kind of store has errors of its own: those of boto3, of Google, of requests.
    """
    try:
        yield
    except (PoisonwatchError, SQLAlchemyError):
        raise
    except Exception as error:
        if isinstance(error, MlflowException) and "Max retries exceeded" in str(error):
            raise
        raise ArtifactsError(place or "", error) from error


def delete_artifacts(client: MlflowClient, place: str, of: str) -> None:
    """Delete the files at a place; `of` says whose they are. Where they lie in a store that can
    delete none, they stay, and a warning says so. Raises ArtifactsError.
    """
    try:
        with using_artifacts(place):
            get_artifact_repository(place, tracking_uri=client.tracking_uri).delete_artifacts()
    except ArtifactsError as error:
        if not isinstance(error.__cause__, NotImplementedError):
            raise
        logger.warning("the files of %s stay at %s, which can delete none", of, show_place(place))


def is_too_large(error: BaseException) -> bool:
    """Whether a server, or what stands before it, refused a request for its length."""
    response = getattr(error, "response", None)
    if getattr(response, "status_code", None) == 413:
        return True
    return isinstance(error, MlflowException) and bool(_TOO_LARGE.search(str(error)))


def make_artifacts_error(
    config: AuditConfig,
    error: ArtifactsError,
    then: str = "`poisonwatch sync` sends what is missing",
) -> OperationError:
    """What kept files from their place, or at it, what to do, and what does the rest `then`;
    without secrets.
    """
    server = f"MLflow at {show_tracking(config)}"
    if error.is_too_large:
        return OperationError(
            f"{server} refused a file as too large (413): raise the limit of the proxy before it, "
            f"and {then}"
        )
    cause = error.__cause__ or error
    why = describe_error(cause, config.find_secrets())
    return OperationError(
        f"{server} keeps files at {show_place(error.place)}, which could not be used ({why}): "
        f"{_advise(cause)}, and {then}"
    )


def _advise(cause: BaseException) -> str:
    if isinstance(cause, ImportError):
        module = (cause.name or "").partition(".")[0]
        if module in PACKAGES:
            return f"pip install {PACKAGES[module]}"
        return "install the package that it needs"
    if isinstance(cause, OSError) and cause.filename is not None:
        return "mend the folder or its permissions"
    return (
        "give this process the credentials for it, or have the server send files on "
        "(mlflow server --artifacts-destination)"
    )
