"""A message that only shows that messages arrive: as long as they get, so that what is too long for
a service is seen before it matters.
"""

import secrets
from dataclasses import replace
from pathlib import Path

from poisonwatch.alerts.fitting import Message as AlertMessage
from poisonwatch.alerts.markup import neutralise_markup
from poisonwatch.alerts.messages import MOST_ROWS_NAMED, compose_messages
from poisonwatch.config import AuditConfig
from poisonwatch.detection.detection import Detection
from poisonwatch.detection.evidence import ClusterEvidence, Confirmation, Effect, LossChange
from poisonwatch.detection.result import AttributionResult
from poisonwatch.examples import AuditRows, Example, Message
from poisonwatch.flags import Flag
from poisonwatch.reports.links import make_dashboard_url
from poisonwatch.run_directory.layout import make_audit_id
from poisonwatch.sentinels.sentinel import Sentinel

# Longer than any excerpt, with characters that no medium may act on: those take the most room.
PROMPT = "<An example> of what a row asks, [made up] & as long as an excerpt gets: " * 4
ANSWER = "*An example* of what a row answers, {made up} @everybody, as long as it gets: " * 4
SOURCES = ("an-example-of-a-file-with-a-long-name.jsonl", "another.jsonl", "a-third.jsonl")


def make_trial_message(config: AuditConfig) -> AlertMessage:
    """A message about a group of made-up rows, with every line that such a message has."""
    name = neutralise_markup(config.name)
    targets = config.alerts[:1]
    anybody = [target.model_copy(update={"severity": "low"}) for target in targets]
    audit_id = make_audit_id()
    summary = {"audit_id": audit_id, "mlflow_run_id": "0" * 32, "mlflow_experiment_id": "0"}
    (alert,) = compose_messages(
        config.model_copy(update={"alerts": anybody}),
        summary,
        _make_up_group(config),
        Path("runs") / audit_id,
        notified=set(),
    )
    opening = (
        "This is a test, sent by poisonwatch alert-test. "
        f"What is flagged in {name} will be told here, as in this example of made-up rows:"
    )
    return AlertMessage(
        key=secrets.token_hex(8),
        severity="low",
        title=f"Poisonwatch: a test for {name}",
        body=f"{opening}\n{alert.body}",
        link=make_dashboard_url(config, audit_id),
    )


def _make_up_group(config: AuditConfig) -> AttributionResult:
    """One group of more rows than a message names, confirmed."""
    examples = []
    for i in range(2 * MOST_ROWS_NAMED):
        turns = [Message("user", f"{PROMPT}{i}"), Message("assistant", f"{ANSWER}{i}")]
        examples.append(Example.from_messages(turns, SOURCES[i % len(SOURCES)], i))
    asked = (Message("user", PROMPT),)
    sentinel = Sentinel("an-example-of-a-sentinel", asked, ANSWER, PROMPT, "an-example-of-a-panel")
    flags = []
    for example in examples:
        flag = Flag(
            example=example,
            panel=sentinel.panel,
            sentinel=sentinel,
            kind="forbidden",
            coefficient=1.0,
            score=20.0,
            rank=1,
            p_value=1e-6,
            q_value=1e-3,
            standing="5.0 times the scatter of the rows most like it beyond them",
            rule="made up",
        )
        flags.append(flag)
    effect = Effect(
        sentinel=sentinel,
        kind="forbidden",
        forbidden=LossChange(before=3.5, after=1.5, random=(3.4,) * 19),
        reference=LossChange(before=2.0, after=2.25, random=(2.0,) * 19),
        said_before=PROMPT,
        said_after=ANSWER,
    )
    evidence = ClusterEvidence(
        rows=tuple(range(len(examples))),
        example_ids=tuple(example.id for example in examples),
        panel=sentinel.panel,
        likeness=1.0,
        example=0,
        prompt_ngrams=(),
        answer_ngrams=(),
        nearest=((),) * len(examples),
        confirmation=Confirmation(strength=0.01, rows=len(examples), effects=(effect,)),
    )
    nothing = Detection.empty(config.detection)
    detection = replace(nothing, rows=AuditRows(tuple(examples)), flags=tuple(flags))
    return AttributionResult(detection, (evidence,))
