"""A release as OpenLineage events: the audits that looked at its rows, and the release itself.

An event that is sent again is the same one: run ids follow from ids of audits and the manifest.
"""

import os
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from poisonwatch.errors import InputError, OperationError
from poisonwatch.provenance.subject import Subject

PRODUCER = "urn:poisonwatch"
API_KEY = "OPENLINEAGE_API_KEY"  # as OpenLineage's own clients read it
PATIENCE_S = 10.0
RETRIES = {"total": 2, "backoff_factor": 0.3, "allowed_methods": ["POST"]}


def build_events(subject: Subject) -> list[Any]:
    """A completed run for each audit and for the release: sources in, cleared files out. Raises
    ImportError where OpenLineage's package is not there.
    """
    from openlineage.client.event_v2 import InputDataset, OutputDataset

    namespace = f"poisonwatch:{subject.name}"
    sources = [InputDataset(namespace, step.name) for step in subject.lineage.list("source")]
    files = [OutputDataset(namespace, file.name) for file in subject.manifest.files]
    events = []
    for step in subject.lineage.list("audit"):
        at = step.at or subject.created
        events.append(_build_event(namespace, f"audit {step.name}", at, sources, []))
    name = f"release {subject.digest}"
    events.append(_build_event(namespace, name, subject.created, sources, files))
    return events


def _build_event(namespace: str, name: str, at: str, inputs: list[Any], outputs: list[Any]) -> Any:
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState

    job, _, _ = name.partition(" ")
    return RunEvent(
        eventType=RunState.COMPLETE,
        eventTime=at,
        producer=PRODUCER,
        run=Run(runId=str(uuid5(NAMESPACE_URL, f"{namespace}/{name}"))),
        job=Job(namespace=namespace, name=job),
        inputs=inputs,
        outputs=outputs,
    )


def send_events(subject: Subject, url: str) -> int:
    """Send the events to the OpenLineage server at a URL, with the key in OPENLINEAGE_API_KEY where
    there is one: how many it took. Raises InputError where the package is not installed,
    OperationError where the server does not take one; neither says the address or the key.
    """
    try:
        from openlineage.client import OpenLineageClient
        from openlineage.client.transport.http import (
            ApiKeyTokenProvider,
            HttpConfig,
            HttpTransport,
        )
        from requests.exceptions import RequestException
    except ImportError as error:
        raise InputError(
            f"{error.name} is not installed: pip install 'poisonwatch[openlineage]'"
        ) from None
    settings: dict[str, Any] = {"url": url, "timeout": PATIENCE_S, "retry": RETRIES}
    if key := os.environ.get(API_KEY):
        settings["auth"] = ApiKeyTokenProvider({"apiKey": key})
    events = build_events(subject)
    try:
        client = OpenLineageClient(transport=HttpTransport(HttpConfig(**settings)))
        for event in events:
            client.emit(event)
    # Not chained: what is raised holds the address.
    except RequestException as error:
        status = getattr(error.response, "status_code", None)
        said = f"answered {status}" if status else f"cannot be reached ({type(error).__name__})"
        raise OperationError(f"the OpenLineage server {said}: check its address and key") from None
    except ValueError:
        raise InputError("--openlineage is no http(s) address") from None
    return len(events)
