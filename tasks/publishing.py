import httpx
from prefect import task
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError
from poisonwatch.integrations.prefect.artifacts import _flags, show
from poisonwatch.integrations.prefect.events import emit, events
from poisonwatch.ledger.history import debtors, settle
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import PREFECT
from poisonwatch.tasks.options import OWED
from poisonwatch.text.display import first_line


@task(**OWED)
def publish(ledger: Ledger, config: AuditConfig) -> int:
    """Show in the Prefect UI the audits that owe it, and emit their events: how many. Raises OperationError where no server answers."""
    owing = debtors(ledger, config.name, PREFECT)
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}):  # else a server that is down holds the audit up for minutes
            for past in owing:
                if past.came_to_results:
                    flags = _flags(past)
                    show(config, past, flags)
                    emit(list(events(config, past, flags)))
                settle(ledger, past.number, PREFECT)
    except (httpx.HTTPError, PrefectHTTPStatusError, RuntimeError) as error:  # "Failed to reach API" is a RuntimeError
        raise OperationError(f"the Prefect server did not take the audit's artifacts and events: {first_line(error)}") from error
    return len(owing)
