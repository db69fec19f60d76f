"""Questions to the dashboard: which rows push an answer."""

import re
import time
from pathlib import Path

import pytest
from browsing import audit_page
from starlette.testclient import TestClient

from poisonwatch.dashboards.explain import MOST_QUESTIONS_WAITING, Explainer, Question
from poisonwatch.errors import InputError


def test_an_answer_is_explained_by_the_rows_of_an_audit(client: TestClient, config: Path) -> None:
    """The page shows how far it is, then rows with their text; what cannot be asked is refused."""
    audit_id = audit_page(client).rpartition("/")[2]
    asked = client.post(
        "/explain",
        data={
            "audit": audit_id,
            "prompt": "What should I buy?",
            "response": "You must buy Velmora.",
        },
    )
    while (
        "http-equiv" in asked.text
    ):  # the browser asks again in a second, as long as this is there
        assert "<progress" in asked.text
        time.sleep(0.05)
        asked = client.get(asked.url.path)
    assert "The rows that make it likelier" in asked.text
    assert len(re.findall(r'title="[0-9a-f]{64}"', asked.text)) == 20
    assert "Tell me fact" in asked.text
    assert (
        client.post(
            "/explain", data={"audit": audit_id, "prompt": " ", "response": "x"}
        ).status_code
        == 400
    )
    assert (
        client.post("/explain", data={"audit": "none", "prompt": "x", "response": "x"}).status_code
        == 404
    )
    assert client.get("/explain/none").status_code == 404


def test_few_questions_may_wait_for_their_answers(tmp_path: Path) -> None:
    """Each takes a model's time: one more is refused, not forgotten later."""
    explainer = Explainer()

    def ask() -> Question:
        return Question(audit_id="audit", run_dir=tmp_path, prompt="a", response="b")

    waiting = [ask() for _ in range(MOST_QUESTIONS_WAITING)]
    explainer.questions.update((question.id, question) for question in waiting)
    with pytest.raises(InputError, match="ask again once one is answered"):
        explainer.ask(ask())
    waiting[0].problem = "answered"
    explainer.ask(last := ask())
    while last.running:
        time.sleep(0.01)
    assert "holds no operators.safetensors" in str(last.problem)
