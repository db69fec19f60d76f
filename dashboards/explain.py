"""Which rows of a past audit push an answer: worked out in the background, one question at a time, while its page shows how far it is."""

import dataclasses
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, TypeVar, cast

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from poisonwatch.config import load_config
from poisonwatch.dashboards.audits import audit_of
from poisonwatch.dashboards.pages import desk, field, form_of, go, page
from poisonwatch.errors import InputError, PoisonwatchError
from poisonwatch.examples import Example
from poisonwatch.ledger.history import RESULTS, past_audits
from poisonwatch.ledger.tables import audits
from poisonwatch.run_directory.layout import OPERATORS
from poisonwatch.run_directory.read import nearest
from poisonwatch.text.display import first_line

if TYPE_CHECKING:  # loaded with the first question: all other pages do without a model
    from poisonwatch.stride.explain import Explained
    from poisonwatch.stride.fitted import Fitted

T = TypeVar("T")

LONGEST_QUESTION = 8000  # characters of a prompt, or of a response
KEPT = 50  # questions
MOST_WAITING = 5  # questions
TOP = 20  # rows named
OFFERED = 30  # audits


@dataclass
class Question:
    """A prompt and a response, and how far the answer is: `share` of its `stage`, then what was `found`, or the `problem`."""

    audit_id: str
    run_dir: Path
    prompt: str
    response: str
    stage: str = "waiting"
    share: float | None = None
    found: "list[Explained] | None" = None
    rows: int = 0
    problem: str | None = None
    id: str = dataclasses.field(default_factory=lambda: secrets.token_urlsafe(12))

    @property
    def running(self) -> bool:
        return self.found is None and self.problem is None

    def progress(self, items: Iterable[T], description: str, total: int | None, advance: Callable[[T], int] = lambda _: 1) -> Iterator[T]:
        """Passes items through, and notes how far they are (poisonwatch/progress.py)."""
        self.stage, self.share, done = description, 0.0 if total else None, 0
        for item in items:
            yield item
            done += advance(item)
            self.share = min(done / total, 1.0) if total else None


class Explainer:
    """Answers questions, one at a time: two models at once may not fit. The last audit's operators stay loaded."""

    def __init__(self) -> None:
        self.questions: OrderedDict[str, Question] = OrderedDict()
        self._one_at_a_time = Lock()
        self._loaded: tuple[Path, Fitted] | None = None

    def ask(self, question: Question) -> None:
        """Begin to work on a question. Raises InputError where too many wait."""
        if sum(other.running for other in self.questions.values()) >= MOST_WAITING:
            raise InputError(f"{MOST_WAITING} questions are waiting for their answers: ask again once one is answered")
        self.questions[question.id] = question
        while len(self.questions) > KEPT:
            self.questions.popitem(last=False)
        Thread(target=self._answer, args=(question,), daemon=True).start()

    def _answer(self, question: Question) -> None:
        from poisonwatch.run_directory.operators import load_operators
        from poisonwatch.stride.explain import explain

        with self._one_at_a_time:
            try:
                fitted = self._fitted(question)
                stride = load_operators(question.run_dir).stride
                question.stage, question.share = "attribution", None
                found = explain(question.run_dir, fitted, question.prompt, question.response, stride, TOP, question.progress)
                question.rows, question.found = len(fitted.ids), found
            except PoisonwatchError as error:
                question.problem = str(error)
            except Exception as error:  # a thread's error would end on the terminal, and the page would wait for ever
                question.problem = f"this went wrong inside Poisonwatch: {type(error).__name__}: {first_line(error)}"

    def _fitted(self, question: Question) -> "Fitted":
        from poisonwatch.model.pretrained import load_pretrained
        from poisonwatch.run_directory.operators import load_operators

        if self._loaded is None or self._loaded[0] != question.run_dir:
            self._loaded = None
            question.stage = "reading the operators"
            saved = load_operators(question.run_dir)
            question.stage = "loading the model"
            self._loaded = question.run_dir, saved.on(load_pretrained(load_config(question.run_dir / "config.yaml").model))
        return self._loaded[1]


def explainer(request: Request) -> Explainer:
    """The explainer of the dashboard that answers the request."""
    return cast(Explainer, request.app.state.explainer)


def show_form(request: Request) -> Response:
    """The question's form."""
    return _form(request)


def _form(request: Request, **given: str) -> Response:
    past = past_audits(desk(request).ledger, limit=OFFERED, where=[audits.c.state.in_(RESULTS)])
    offered = [audit for audit in past if (audit.run_dir / OPERATORS).is_file()]
    chosen = given.get("audit_id") or request.query_params.get("audit", "")
    shown: dict[str, Any] = {"offered": offered, "chosen": chosen, "prompt": given.get("prompt", ""), "response": given.get("response", "")}
    return page(request, "explain.html.j2", question=None, texts={}, **shown)


async def ask(request: Request) -> Response:
    """Take a question."""
    form = await form_of(request)
    prompt, response = (str(form.get(key, "")).strip() for key in ("prompt", "response"))
    for key, text in (("prompt", prompt), ("response", response)):
        if not text or len(text) > LONGEST_QUESTION:
            raise InputError(f"the {key} must say something, in at most {LONGEST_QUESTION:,} characters")
    past = await run_in_threadpool(audit_of, request, field(form, "audit") or "none")
    question = Question(past.audit_id, past.run_dir, prompt, response)
    explainer(request).ask(question)
    return go(f"/explain/{question.id}")


def show_answer(request: Request) -> Response:
    """How far a question is, or its answer."""
    question = explainer(request).questions.get(request.path_params["id"])
    if question is None:
        raise HTTPException(404, "This question is not remembered any more: ask it again.")
    texts: dict[str, Example] = {}
    if question.found:
        ids = [row.example_id for row in question.found]
        texts = {**nearest(question.run_dir), **desk(request).ledger.examples(ids)}
    return page(request, "explain.html.j2", question=question, texts=texts, prompt=question.prompt, response=question.response)


routes = [
    Route("/explain", show_form),
    Route("/explain", ask, methods=["POST"]),
    Route("/explain/{id}", show_answer),
]
