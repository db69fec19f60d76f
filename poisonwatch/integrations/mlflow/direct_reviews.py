"""Whether people answered in a review queue, asked of a store in a file of SQLite without MLflow's
client: mostly nobody did, and importing it takes longer than all the rest of `poisonwatch sync`.

Answers themselves are read by the client (`reviews`).
"""

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.mlflow.direct import (
    NotDirectError,
    find_experiments,
    find_store_file,
    reading_store,
)
from poisonwatch.integrations.mlflow.names import make_queue_name
from poisonwatch.integrations.mlflow.tracking import show_tracking

QUESTION = "verdict"  # the name of the assessment that a person makes

_QUEUE = "SELECT queue_id FROM review_queues WHERE experiment_id = ? AND name = ?"
_COMPLETED = "SELECT item_id FROM review_queue_items WHERE queue_id = ? AND status = 'complete'"
_ANSWERS = """
    SELECT assessment_id, last_updated_timestamp FROM assessments
    WHERE trace_id = ? AND name = ? AND source_type = 'HUMAN'
    ORDER BY last_updated_timestamp DESC LIMIT 1
    """


def read_completed(config: AuditConfig) -> dict[str, str | None] | None:
    """The traces of an audit's review queue that people are done with, each with the id of its
    newest answer (`ReviewAnswer.id`), if any; None where there is no queue. Raises NotDirectError.
    """
    file = find_store_file(config)
    if file is None:
        raise NotDirectError(show_tracking(config))
    with reading_store(file) as database:
        for experiment in find_experiments(database, config.name):
            place = (experiment, make_queue_name(config.name))
            for (queue,) in database.execute(_QUEUE, place):
                completed = {}
                for (trace,) in database.execute(_COMPLETED, (queue,)):
                    found = database.execute(_ANSWERS, (trace, QUESTION)).fetchone()
                    completed[trace] = None if found is None else f"{found[0]}:{found[1]}"
                return completed
    return None
