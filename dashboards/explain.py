"""Which rows of a past audit push an answer: worked out in the background, one question at a time,
while its page shows how far it is.
"""

import dataclasses
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, TypeVar, cast

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from poisonwatch.config_file import load_config
from poisonwatch.dashboards.audits import find_audit
from poisonwatch.dashboards.pages import get_desk, read_field, read_form, redirect_to, render_page
from poisonwatch.errors import InputError, PoisonwatchError
from poisonwatch.examples import Example
from poisonwatch.ledger.batches import load_examples
from poisonwatch.ledger.history import COMMITTED_STATES, HAD_ROWS, list_past_audits
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import audits
from poisonwatch.run_directory.layout import OPERATORS_FILE
from poisonwatch.run_directory.read import read_nearest
from poisonwatch.run_directory.reread import AuditedRows
from poisonwatch.run_directory.seals import find_seal
from poisonwatch.text.secrets import Secrets

if TYPE_CHECKING:  # loaded with the first question: all other pages do without a model
    from poisonwatch.stride.explain import ExplainedRow
    from poisonwatch.stride.fitted import FittedOperators
    from poisonwatch.stride.saved_rows import SavedRows

T = TypeVar("T")

LONGEST_QUESTION = 8000  # characters of a prompt, or of a response
QUESTIONS_KEPT = 50
MOST_QUESTIONS_WAITING = 5
ROWS_PER_ANSWER = 20
AUDITS_OFFERED = 30


@dataclass(kw_only=True)
class Question:
    """A prompt and a response, and how far the answer is: `share` of its `stage`, then what was
    `found`, or the `problem`.
    """

    audit_id: str
    run_dir: Path
    prompt: str
    response: str
    seal: str | None = None  # of the run directory, as the ledger has it
    ledger: Ledger | None = None  # by default the audit's own
    stage: str = "waiting"
    share: float | None = None
    found: "list[ExplainedRow] | None" = None
    rows: int = 0  # that the audit had
    exactness: str = ""  # which numbers are exact, where not all are
    problem: str | None = None
    # not counted up: a question can only be read by those who know where its answer is
    id: str = dataclasses.field(default_factory=lambda: secrets.token_urlsafe(12))

    @property
    def running(self) -> bool:
        """Neither answered nor given up yet."""
        return self.found is None and self.problem is None

    def progress(
        self,
        items: Iterable[T],
        description: str,
        total: int | None,
        advance: Callable[[T], int] = lambda _: 1,
    ) -> Iterator[T]:
        """Passes items through, and notes how far they are (poisonwatch/progress.py)."""
        self.stage, self.share = description, None
        if not total:
            # nobody knows how many there are: the page shows a bar that has no length
            yield from items
            return
        self.share, done = 0.0, 0
        for item in items:
            yield item
            done += advance(item)
            self.share = min(done / total, 1.0)


class Explainer:
    """Answers questions, one at a time: two models at once may not fit. The last audit's operators
    stay loaded.
    """

    def __init__(self) -> None:
        self.questions: OrderedDict[str, Question] = OrderedDict()
        self._one_at_a_time = Lock()
        self._loaded: tuple[Path, FittedOperators | SavedRows] | None = None

    def ask(self, question: Question) -> None:
        """Begin to work on a question. Raises InputError where too many wait."""
        if sum(other.running for other in self.questions.values()) >= MOST_QUESTIONS_WAITING:
            raise InputError(
                f"{MOST_QUESTIONS_WAITING} questions are waiting for their answers: "
                "ask again once one is answered"
            )
        self.questions[question.id] = question
        # in the order in which they were asked; their answers are nowhere else
        while len(self.questions) > QUESTIONS_KEPT:
            self.questions.popitem(last=False)
        # daemon: the dashboard ends when it is told to, whatever is being worked out
        Thread(target=self._answer, args=(question,), daemon=True).start()

    def _answer(self, question: Question) -> None:
        from poisonwatch.run_directory.operators import load_operators
        from poisonwatch.stride.explain import describe_exactness, explain_response

        with self._one_at_a_time:
            try:
                fitted = self._load_fitted(question)
                stride = load_operators(question.run_dir, question.seal).stride
                config = load_config(question.run_dir / "config.yaml")
                question.stage, question.share = "attribution", None
                found = explain_response(
                    question.run_dir,
                    fitted,
                    question.prompt,
                    question.response,
                    stride=stride,
                    top=ROWS_PER_ANSWER,
                    progress=question.progress,
                    read_rows=AuditedRows(config, question.ledger),
                )
                question.exactness = describe_exactness(found)
                # `found` last: with it the question is answered, for a page on another thread
                question.rows, question.found = len(fitted.ids), found
            except PoisonwatchError as error:
                question.problem = str(error)
            # a thread's error would end on the terminal, and the page would wait for ever
            except Exception as error:
                what = f"{type(error).__name__}: {Secrets().conceal_error(error)}"
                question.problem = f"this went wrong inside Poisonwatch: {what}"

    def _load_fitted(self, question: Question) -> "FittedOperators | SavedRows":
        from poisonwatch.model.pretrained import load_pretrained
        from poisonwatch.run_directory.operators import load_operators

        if self._loaded is None or self._loaded[0] != question.run_dir:
            # let go before the next is loaded: two models at once may not fit
            self._loaded = None
            question.stage = "reading the operators"
            saved = load_operators(question.run_dir, question.seal)
            question.stage = "loading the model"
            config = load_config(question.run_dir / "config.yaml")
            self._loaded = question.run_dir, saved.load_on(load_pretrained(config.model))
        return self._loaded[1]


def get_explainer(request: Request) -> Explainer:
    """The explainer of the dashboard that answers the request."""
    return cast(Explainer, request.app.state.explainer)


def show_question_form(request: Request) -> Response:
    """The question's form, with the audits that can answer it."""
    finished = [audits.c.state.in_(COMMITTED_STATES), HAD_ROWS]
    past = list_past_audits(get_desk(request).ledger, limit=AUDITS_OFFERED, where=finished)
    # run directories are removed, or lie on another machine: without operators there is no answer
    offered = [audit for audit in past if (audit.run_dir / OPERATORS_FILE).is_file()]
    return render_page(
        request,
        "explain.html.j2",
        question=None,
        texts={},
        offered=offered,
        chosen=request.query_params.get("audit", ""),
        prompt="",
        response="",
    )


async def take_question(request: Request) -> Response:
    """Take a question."""
    form = await read_form(request)
    prompt, response = (str(form.get(key, "")).strip() for key in ("prompt", "response"))
    for key, text in (("prompt", prompt), ("response", response)):
        if not text or len(text) > LONGEST_QUESTION:
            raise InputError(
                f"the {key} must say something, in at most {LONGEST_QUESTION:,} characters"
            )
    past = await run_in_threadpool(find_audit, request, read_field(form, "audit") or "none")
    question = Question(
        audit_id=past.audit_id,
        run_dir=past.run_dir,
        seal=await run_in_threadpool(find_seal, get_desk(request).ledger, past.audit_id),
        ledger=get_desk(request).ledger,
        prompt=prompt,
        response=response,
    )
    get_explainer(request).ask(question)
    return redirect_to(f"/explain/{question.id}")


def show_answer(request: Request) -> Response:
    """How far a question is, or its answer."""
    question = get_explainer(request).questions.get(request.path_params["id"])
    if question is None:
        raise HTTPException(404, "This question is not remembered any more: ask it again.")
    texts: dict[str, Example] = {}
    if question.found:
        # An audited row's text is in the ledger; a trusted row's, if anywhere, in the run directory
        # as one that is nearest to a flagged row.
        ids = [row.example_id for row in question.found]
        texts = {**read_nearest(question.run_dir), **load_examples(get_desk(request).ledger, ids)}
    return render_page(
        request,
        "explain.html.j2",
        question=question,
        texts=texts,
        prompt=question.prompt,
        response=question.response,
    )


routes = [
    Route("/explain", show_question_form),
    Route("/explain", take_question, methods=["POST"]),
    Route("/explain/{id}", show_answer),
]
