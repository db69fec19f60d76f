"""Audits and releases as OpenLineage events: what looked at which files, and what came out.

An event that is sent again is the same one: run ids follow from ids of audits and manifests.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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
    InputError where OpenLineage's package is not there.
    """
    sources = [step.name for step in subject.lineage.list("source")]
    files = [file.name for file in subject.manifest.files]
    events = []
    for step in subject.lineage.list("audit"):
        at = step.at or subject.created
        events.append(build_audit_event(subject.name, step.name, at, sources))
    events.append(
        build_release_event(subject.name, subject.digest, subject.created, sources, files)
    )
    return events


def build_audit_event(
    name: str, audit_id: str, at: str, sources: Sequence[str], *, failed: bool = False
) -> Any:
    """The run of an audit of a `name` that ended `at` a moment (ISO 8601), with its results or
    without. Raises InputError as `build_events` does.
    """
    return _build_event(name, f"audit {audit_id}", at, sources, (), failed=failed)


def build_release_event(
    name: str, digest: str, at: str, sources: Sequence[str], files: Sequence[str]
) -> Any:
    """The run of a release, by the SHA-256 of its manifest. Raises InputError as `build_events`."""
    return _build_event(name, f"release {digest}", at, sources, files)


def _build_event(
    name: str,
    run: str,
    at: str,
    inputs: Iterable[str],
    outputs: Iterable[str],
    *,
    failed: bool = False,
) -> Any:
    with _requiring_package():
        from openlineage.client.event_v2 import (
            InputDataset,
            Job,
            OutputDataset,
            Run,
            RunEvent,
            RunState,
        )
    namespace = f"poisonwatch:{name}"
    job, _, _ = run.partition(" ")
    return RunEvent(
        eventType=RunState.FAIL if failed else RunState.COMPLETE,
        eventTime=at,
        producer=PRODUCER,
        run=Run(runId=str(uuid5(NAMESPACE_URL, f"{namespace}/{run}"))),
        job=Job(namespace=namespace, name=job),
        inputs=[InputDataset(namespace, each) for each in inputs],
        outputs=[OutputDataset(namespace, each) for each in outputs],
    )


@contextmanager
def _requiring_package() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise InputError(
            f"{error.name} is not installed: pip install 'poisonwatch[openlineage]'"
        ) from None


def send_events(events: Sequence[Any], url: str, key: str = "--openlineage") -> int:
    """Send events to the OpenLineage server at a URL, which the option or setting `key` names, with
    the key in OPENLINEAGE_API_KEY where there is one: how many it took.

    Raises InputError where the package is not installed, OperationError where the server does not
    take one; neither says the address or the key.
    """
    with _requiring_package():
        from openlineage.client import OpenLineageClient
        from openlineage.client.transport.http import (
            ApiKeyTokenProvider,
            HttpConfig,
            HttpTransport,
        )
        from requests.exceptions import RequestException
    settings: dict[str, Any] = {"url": url, "timeout": PATIENCE_S, "retry": RETRIES}
    if api_key := os.environ.get(API_KEY):
        settings["auth"] = ApiKeyTokenProvider({"apiKey": api_key})
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
        raise InputError(f"{key} is no http(s) address") from None
    return len(events)
