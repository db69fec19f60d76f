"""The MLflow server of an audit: how it is reached, and what is said when it cannot be.

Only `MlflowClient` with an explicit run id is used: the fluent API keeps its active run per thread,
and tasks may run in any.
"""

import atexit
import logging
import os
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from alembic.util import CommandError
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError
from poisonwatch.integrations.mlflow.direct import make_unreachable_error
from poisonwatch.integrations.mlflow.tracking import get_tracking, show_tracking
from poisonwatch.text.sqlite_files import find_sqlite_file

# MLflow's own errors, those of a database that this process opens itself (its driver missing, its
# tables somebody else's), and those of sockets and of folders of artifacts.
UNAVAILABLE = (MlflowException, SQLAlchemyError, CommandError, ImportError, OSError)

# MLflow's own patience with a server that is down is four minutes a request; what an audit owes is
# sent with the next one.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
# A server's address may hold a password.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

# It logs the traceback, with statement and values, of what it raises, too.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
logging.getLogger("alembic").setLevel(logging.WARNING)
# Every retry would be a warning on the terminal; what fails is said once, at the end.
logging.getLogger("urllib3.connectionpool").addFilter(
    lambda record: "/mlflow" not in record.getMessage()
)


def make_mlflow_client(config: AuditConfig) -> MlflowClient:
    """A client of the audit's tracking server, whose model registry is used too, whatever this
    process or its environment have set.
    """
    uri = get_store_uri(config)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def get_store_uri(config: AuditConfig) -> str:
    """The audit's tracking server as MLflow is to be told of it."""
    uri = get_tracking(config)
    scheme, _, place = uri.partition(":///")
    # MLflow takes SQLite's own form for a folder of that name, and makes it.
    file = find_sqlite_file(place)
    if scheme != "sqlite" or file is None or not place.startswith("file:"):
        return uri
    return f"sqlite:///{_link_folder(file.parent)}/{file.name}"


@cache
def _link_folder(folder: Path) -> Path:
    """A link to a folder whose name no address of MLflow's can hold, for this process."""
    above = Path(mkdtemp(prefix="poisonwatch-"))
    atexit.register(shutil.rmtree, above, ignore_errors=True)
    link = above / "tracking"
    link.symlink_to(folder.absolute(), target_is_directory=True)
    return link


def make_mlflow_error(config: AuditConfig, what: str, error: BaseException) -> OperationError:
    """What MLflow did, without secrets, as an error to be raised."""
    server = f"MLflow at {show_tracking(config)}"
    if "Max retries exceeded" in str(error):
        return make_unreachable_error(config)
    if isinstance(error, CommandError):
        return OperationError(
            f"{server} {what}: its database is of a newer MLflow, or of another program "
            f"({config.find_secrets().conceal_error(error)}); upgrade MLflow here, or give "
            "`tracking` a database of its own"
        )
    # MLflow's messages repeat the address, at times with the password.
    cause = config.find_secrets().conceal_error(_find_database_error(error))
    return OperationError(f"{server} {what}: {cause}")


def _find_database_error(error: BaseException) -> BaseException:
    """What the driver of MLflow's own database said, where that is the cause: the layers above it
    speak of themselves first.
    """
    cause = error.__cause__
    if isinstance(cause, DBAPIError) and cause.orig is not None:
        return cause.orig
    return error
