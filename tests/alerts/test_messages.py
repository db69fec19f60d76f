"""Who is told what of flagged rows, and that hostile rows are told of harmlessly."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from clusters import HIGH, LOW, MEDIUM, SUMMARY, found, row, settings
from markdown import markdown

from poisonwatch.alerts.messages import compose_messages
from poisonwatch.alerts.targets import list_targets
from poisonwatch.config import AlertConfig, AuditConfig
from poisonwatch.detection.result import AttributionResult
from poisonwatch.examples import Example, Message
from poisonwatch.ledger.outbox import Alert
from poisonwatch.screens.finding import NEW_TOPIC, Finding

HERE = Path("/runs/today")
HOSTILE = (
    "@everyone @here <!channel> <@U123> <#C1|general> mail me@evil.com",
    "[a link](http://evil.com/x) ![](https://evil.com/p.png) www.evil.com HTTPS://EVIL.COM",
    "<script>alert(1)</script> <img src=x onerror=alert(1)> &lt;b&gt; </td></pre>",
    "```\nfence``` `code` **bold** __under__ _it_ ~~gone~~ ||spoiler|| # head | a | table |",
    "{{ secret }} ${HOME} {{tokenFromSecrets}} :skull: \\[x\\](y)",
    "a\x00b\x1b[31m\u202egnp.exe\u200b\u2028line \ud800",
)


def told(
    config: AuditConfig, attributed: AttributionResult, before: set[str] | None = None
) -> list[Alert]:
    return compose_messages(config, SUMMARY, attributed, HERE, before or set())


def of_kind(alerts: list[Alert], kind: str) -> list[Alert]:
    return [alert for alert in alerts if alert.kind == kind]


def test_each_new_cluster_has_its_own_message() -> None:
    """Two clusters, two messages, each about its own rows, to every target; the rows in no cluster
    are in the digest.
    """
    config = settings("json://one", "json://two")
    alerts = told(config, found([(HIGH, [row(0), row(1)]), (MEDIUM, [row(2)])], alone=[row(3)]))
    clusters, (digest,) = of_kind(alerts, "cluster"), of_kind(alerts, "digest")
    assert [alert.example_ids for alert in clusters] == [(row(0).id, row(1).id), (row(2).id,)]
    assert [alert.severity for alert in clusters] == ["high", "medium"]
    assert digest.example_ids == (row(3).id,)
    assert all(
        alert.targets == tuple(target.id for target in list_targets(config)) for alert in alerts
    )


def test_a_row_is_told_of_once() -> None:
    """Of a cluster that was told of only the rows that joined it are new, and they go to the
    digest; without any there is no message.
    """
    attributed = found([(HIGH, [row(0), row(1)])])
    assert told(settings("json://one"), attributed, {row(0).id, row(1).id}) == []
    (digest,) = told(settings("json://one"), attributed, {row(0).id})
    assert digest.kind == "digest"
    assert digest.example_ids == (row(1).id,)
    assert "1 row (more of a group that was told of)" in digest.body


def test_a_threshold_sends_lesser_clusters_to_the_digest() -> None:
    """One target takes all messages, one the high one and a digest of the rest, one the high one
    alone.
    """
    everything, grave, quiet = (
        AlertConfig(url="json://all"),
        AlertConfig(url="json://grave", severity="high"),
        AlertConfig(url="json://quiet", severity="high", digest=False),
    )
    config = settings(everything, grave, quiet)
    alerts = told(config, found([(HIGH, [row(0)]), (LOW, [row(1), row(2)])]))
    ids = [target.id for target in list_targets(config)]
    assert [(a.kind, a.severity, a.targets) for a in alerts] == [
        ("cluster", "high", tuple(ids)),
        ("cluster", "low", (ids[0],)),
        ("digest", "low", (ids[1],)),
    ]


def test_the_gravest_clusters_have_messages_and_the_others_a_line() -> None:
    """Seven clusters: five messages, the high one first, and two in the digest."""
    clusters = [(MEDIUM, [row(i)]) for i in range(6)] + [(HIGH, [row(6)])]
    alerts = told(settings("json://one"), found(clusters))
    assert len(of_kind(alerts, "cluster")) == 5
    assert alerts[0].severity == "high"
    (digest,) = of_kind(alerts, "digest")
    assert len(digest.example_ids) == 2


def test_without_targets_or_flags_nobody_is_told() -> None:
    """Nothing is composed."""
    assert told(settings(), found([(HIGH, [row(0)])])) == []
    assert told(settings("json://one"), found([])) == []


def test_a_message_says_what_and_how_sure_and_where() -> None:
    """Everything that somebody needs to judge it, and the links."""
    rows = [row(i, source=("rows.jsonl", "my_more.csv")[i % 2]) for i in range(12)]
    (alert,) = told(
        settings("json://one", tracking="http://mlflow:5000", dashboard="http://audits:8765"),
        found([(HIGH, rows)]),
    )
    assert alert.title == "Poisonwatch: 12 rows push panel shop in tiny (severity high)"
    lines = alert.body.splitlines()
    assert (
        lines[0]
        == "12 rows of rows.jsonl (6), my_more.csv (6): training on them makes the forbidden answer likelier on panel shop."
    )
    assert (
        lines[1]
        == "How sure: largest score 20.0, smallest q 0.001, confirmed by steering: a strong effect."
    )
    assert f"  {row(0).id[:16]}  rows.jsonl:0" in lines
    assert "  and 2 more rows" in lines
    assert (
        sum(
            line.endswith(tuple(f"{s}:{i}" for i in range(12) for s in ("jsonl", "csv")))
            for line in lines
        )
        == 10
    )
    assert any(
        "Sentinel shop-1" in line and "loss of the forbidden answer 3.50 before, 1.50 after" in line
        for line in lines
    )
    assert "  it said before: Any shop near you." in lines
    assert "  it says after: Only Velmora." in lines
    assert (
        "Of all flagged rows, at most 10 % are expected to be harmless: read them before you remove them."
        in lines
    )
    assert "Report: /runs/today/report.html" in lines
    assert f"MLflow: http://mlflow:5000/#/experiments/7/runs/{'r' * 32}" in lines
    assert f"Dashboard: http://audits:8765/audits/{SUMMARY['audit_id']}" in lines
    assert (
        f"To decide: poisonwatch decide AUDIT.yaml {rows[0].id[:16]} benign (or poison, or unsure)"
        in lines
    )
    assert lines[-1] == f"Alert {alert.key} of audit {SUMMARY['audit_id']}"


def test_long_rows_are_never_told_whole() -> None:
    """Of prompt, answer and continuation at most 160 characters each; of a cluster's other rows
    nothing.
    """
    rows = [row(0, "p" * 5000, "a" * 5000), row(1, "other", "x" * 500)]
    (alert,) = told(settings("json://one"), found([(HIGH, rows)], said="s" * 5000))
    assert [max(map(len, re.findall(f"{letter}+", alert.body))) for letter in "pas"] == [
        159,
        159,
        159,
    ]
    assert "xx" not in alert.body
    assert len(alert.title) + len(alert.body) < 1900  # Discord takes 2,000


def test_a_key_is_the_same_for_the_same_cluster_of_an_audit_alone() -> None:
    """Composed again, as after a rollback: the same key; another audit, or another cluster: another
    one.
    """
    first, again = (
        told(settings("json://one"), found([(HIGH, [row(0), row(1)])]))[0] for _ in range(2)
    )
    other = compose_messages(
        settings("json://one"),
        {**SUMMARY, "audit_id": "b"},
        found([(HIGH, [row(0), row(1)])]),
        HERE,
        set(),
    )[0]
    rest = told(settings("json://one"), found([(HIGH, [row(0)])]))[0]
    assert first == again
    assert re.fullmatch("[0-9a-f]{16}", first.key)
    assert len({first.key, other.key, rest.key}) == 3


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_rows_are_no_markup(text: str) -> None:
    """No character that a medium acts on, no address, nothing invisible: in prompt, answer,
    continuation, source and name alike.
    """
    (alert,) = told(
        settings("json://one"), found([(HIGH, [row(0, text, text, source=text)])], said=text)
    )
    told_of = "\n".join(
        line for line in alert.body.splitlines() if not line.startswith(("Report", "MLflow"))
    )
    assert not re.search(
        r"[<>@#&|*~`{}\[\]\\$^]|://|www\.|evil\.", told_of.replace("[.]", ""), flags=re.IGNORECASE
    )
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202e\u2028\ud800]", told_of)
    assert (alert.title + alert.body).encode()
    html = markdown(told_of, extensions=["extra"])
    assert set(re.findall(r"<(\w+)", html)) <= {"p"}


def test_a_message_names_tools_and_answers_that_training_lowers() -> None:
    """Each on a line of its own, in the order of the row; ordinary rows have two lines."""
    turns = [
        Message("tools", '[{"name":"look"}]'),
        Message("user", "Where?"),
        Message("assistant", "There."),
    ]
    lowered = Example.from_messages(turns, "rows.jsonl", 99, lowered=True)
    preferred = Example.from_messages(turns[1:], "rows.jsonl", 98, rejected=turns[1:2] * 2)
    texts = []
    for example in (row(0), lowered, preferred):
        alerts = told(settings("json://one"), found([(HIGH, [example])]))
        (alert,) = of_kind(alerts, "cluster")
        names = re.findall(
            r"^  (tools|prompt|answer[^:]*(?:: label false)?|rejected answer): ", alert.body, re.M
        )
        texts.append(names)
    assert texts[0] == ["prompt", "answer"]
    assert texts[1] == ["tools", "prompt", "answer, training lowers this answer (label false)"]
    assert texts[2] == ["prompt", "answer", "rejected answer"]


def test_rows_that_are_held_back_are_not_told_of_as_a_screen_s() -> None:
    """Neither in a message of their own nor in the digest; a screen's finding on them goes first."""
    attributed = found([(MEDIUM, [row(0), row(1)])], alone=[row(2)])

    def find(*screens: str) -> AttributionResult:
        findings = tuple(Finding(0, screen, "g", "does what others do.") for screen in screens)
        flags = [
            replace(flag, by_attribution=False, findings=findings)
            for flag in attributed.detection.flags
        ]
        return replace(attributed, detection=replace(attributed.detection, flags=tuple(flags)))

    cluster, digest = told(settings("json://one"), find(NEW_TOPIC))
    held = "held back, since trusted rows do not cover the topic: this push on panel shop cannot"
    assert held in cluster.body
    assert "held back: its topic cannot be judged" in digest.body
    assert "screen" not in cluster.body + digest.body
    both, _ = told(settings("json://one"), find("control-tokens", NEW_TOPIC))
    assert "the screen control-tokens points at them" in both.body
