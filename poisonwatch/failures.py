"""What may fail without the verdicts being wrong, and how it is told.

Once rows are judged, what is left explains the verdicts: evidence, pictures, pages, messages. Each
part of that is attempted. One that fails is noted, and told wherever results are: in the summary,
on the terminal, in the report, on the dashboard, in MLflow and in alerts. What was interrupted or
killed did not fail: KeyboardInterrupt and the like go through.
"""

import logging
import re
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from poisonwatch.errors import PoisonwatchError
from poisonwatch.text.display import excerpt
from poisonwatch.text.secrets import Secrets

logger = logging.getLogger(__name__)

LONGEST_WHY = 200  # characters of an error's line
LONGEST_LINE = 300  # of a failure's: with the part's name, which may hold a panel's
PASSAGE = 16  # characters in a row by which an error repeats a text

# What an error quotes may be a row's text. Names of attributes and modules are not, and help.
_QUOTED = re.compile(r"(?<!\w)(['\"`])(.*?)(?:\1(?!\w)|$)", re.ASCII)
_NAME = re.compile(r"[A-Za-z_][\w.]{0,59}", re.ASCII)
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PartFailure:
    """A part of an audit that failed: "group 2" was "not confirmed", and `why`, in one line."""

    part: str
    outcome: str
    why: str


class Attempts:
    """Attempts parts of an audit that its verdicts do not need, and keeps their `failures`, which
    hold none of the `secrets`.
    """

    def __init__(self) -> None:
        self.failures: list[PartFailure] = []
        self._hidden: list[str] = []
        self.secrets = Secrets()

    def hide(self, texts: Iterable[str]) -> None:
        """From now on no failure repeats a passage of these texts: of such an error the type alone
        is told.
        """
        self._hidden.extend(texts)

    def part(self, part: str, outcome: str) -> "_Attempt":
        """A `with` whose block may fail: the block ends there, `outcome` says what did not come
        about, and the audit goes on behind it.
        """
        return _Attempt(self, part, outcome)

    def note(self, part: str, outcome: str, error: Exception) -> str:
        """Keep a failure; returns its line. The stack goes to the log, at debug level alone."""
        failure = PartFailure(part, outcome, self.describe(error))
        self.failures.append(failure)
        logger.debug("%s\n%s", _format_failure(asdict(failure)), _format_stack(error))
        return failure.why

    def describe(self, error: BaseException) -> str:
        """`describe_error`, without what is hidden."""
        why = describe_error(error, self.secrets)
        passages = [why[i : i + PASSAGE] for i in range(len(why) - PASSAGE + 1)]
        for text in self._hidden:
            line = " ".join(text.split())
            if any(passage in line for passage in passages):
                return type(error).__name__
        return why

    def to_records(self) -> list[dict[str, str]]:
        """The failures so far, as `summary.json` has them."""
        return [asdict(failure) for failure in self.failures]


@dataclass(frozen=True, slots=True)
class _Attempt:
    """The attempt of one part."""

    attempts: Attempts
    part: str
    outcome: str

    def __enter__(self) -> None:
        pass

    # A type checker learns from the `bool` that code behind the block is reached.
    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self.attempts.note(self.part, self.outcome, error)
        return True


def tell_failures(summary: Mapping[str, Any]) -> list[str]:
    """A line for each part of an audit that failed, by its summary; earlier versions' have none."""
    return [_format_failure(record) for record in summary.get("failures", ())]


def _format_failure(record: Mapping[str, str]) -> str:
    return excerpt(f"{record['part']} {record['outcome']}: {record['why']}", LONGEST_LINE)


def describe_error(error: BaseException, secrets: Secrets | None = None) -> str:
    """An error in one visible line of at most LONGEST_WHY characters, without addresses, secrets,
    and whatever it quotes that is not a name: that may be a row's text.

    Errors of this package are worded for people; of others the type is told, too.
    """
    line = (secrets or Secrets()).conceal_error(error)
    if not isinstance(error, PoisonwatchError):
        line = _ADDRESS.sub("***", _cut_at_quotation(line))
        line = f"{type(error).__name__}: {line}".removesuffix(f": {type(error).__name__}")
    return excerpt(line, LONGEST_WHY)


def _cut_at_quotation(line: str) -> str:
    """The line up to the first quotation that is not a name; where a quotation ends cannot be told
    from the line, since what is quoted may hold quotation marks.
    """
    for quoted in _QUOTED.finditer(line):
        if not _NAME.fullmatch(quoted[2]):
            return f"{line[: quoted.start()]}…"
    return line


def _format_stack(error: BaseException) -> str:
    """Where an error and those that led to it were raised. Their messages are left out: they may
    hold a row's text.
    """
    frames: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        frames += [f"{type(cause).__name__}\n", *traceback.format_tb(cause.__traceback__)]
        cause = cause.__cause__ or cause.__context__
    return "".join(frames)
