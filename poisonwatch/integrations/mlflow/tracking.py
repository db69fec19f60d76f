"""The audit's `tracking`: where MLflow is, for use and for people. MLflow is not imported."""

from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError
from poisonwatch.text.environment import open_variables
from poisonwatch.text.redaction import show_place


def get_tracking(config: AuditConfig) -> str:
    """The audit's `tracking`, variables filled in. Raises OperationError where it has none."""
    if config.tracking is None:
        raise OperationError("nothing goes to MLflow: `tracking` is none")
    return open_variables(config.tracking, "tracking")


def show_tracking(config: AuditConfig) -> str:
    """The place as people are shown it, without secrets."""
    return show_place(config.tracking or "none", of_server=True)
