"""What training is on: an answer, alone or in turns, the chosen and the rejected one of a
preference, and which turns of the assistant the loss is on.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from poisonwatch.formats.contents import add_thoughts, is_bare_call, join_speech
from poisonwatch.formats.conversations import Turn
from poisonwatch.formats.fields import Fields
from poisonwatch.formats.messages import read_mark
from poisonwatch.formats.values import (
    ReadingError,
    describe_kind,
    get_answer_text,
    get_truth,
    is_nothing,
    parse_json_text,
    refuse_printed,
)
from poisonwatch.source_config import TrainedTurns

# Beside an answer, `reasoning` may say whether to think, or how much.
_SWITCHES = ("", "on", "off", "true", "false", "yes", "no", "low", "medium", "high", "none")


def read_answer(fields: Fields, name: str) -> tuple[Turn, ...]:
    """The turns of the answer field `name`: a text, one message, or a list of them."""
    value = fields.read_side(name)
    if isinstance(value, str):
        if name in ("chosen", "rejected"):
            refuse_printed(value, fields.get_path(name))
        return (Turn("assistant", value),)
    path = fields.get_path(name)
    if isinstance(value, list | tuple):
        return _read_answers(fields, value, path)
    if isinstance(value, Mapping):
        return tuple(fields.reader.read_message(value, path, "assistant"))
    return (Turn("assistant", get_answer_text(value)),)


def _read_answers(fields: Fields, listed: Sequence[Any], path: str) -> tuple[Turn, ...]:
    """The turns of a list: messages, calls of tools, or the only answer in it.

    Raises ReadingError where it holds several answers, or none.
    """
    # Most are messages.
    if listed and isinstance(listed[0], Mapping) and not is_bare_call(listed[0]):
        return fields.reader.read_turns(listed, path)
    items = [parse_json_text(item) for item in listed]
    if items and all(isinstance(item, Mapping) and is_bare_call(item) for item in items):
        return (Turn("assistant", join_speech([], None, items)),)
    if all(isinstance(item, Mapping | list | tuple) for item in items):
        return fields.reader.read_turns(listed, path)
    if len(items) == 1 and isinstance(listed[0], str):
        return (Turn("assistant", listed[0]),)
    kinds = sorted({describe_kind(item) for item in items})
    raise ReadingError(
        f"{path} is a list of {len(items)} ({', '.join(kinds)}), not one answer or messages; "
        "source.fields says which field is the answer, as in {response: best_answer}"
    )


def choose_answer(fields: Fields) -> str:
    """Which of response and completion is the answer; where both say the same, both are read.

    Raises ReadingError where they differ.
    """
    mapped = fields.names.mapped
    both = ("response", "completion")
    # What the user mapped counts alone.
    names = [name for name in both if name in mapped] or list(both)
    found = [name for name in names if not is_nothing(fields.peek_own(name))]
    # A row must not show one and train the other.
    if found[1:] and fields.peek_own(found[0]) != fields.peek_own(found[1]):
        raise ReadingError(
            "its response and its completion differ; "
            "source.fields says which counts, as in {response: completion}"
        )
    for name in found:
        fields.use(name)
    return (found or names)[0]


def add_reasoning(fields: Fields, answer: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """An answer of one turn, after the thoughts that stand in a field of their own."""
    thought = get_thought(fields)
    if thought is None or len(answer) != 1 or answer[0].text is None:
        return answer
    fields.use("reasoning")
    return (answer[0]._replace(text=add_thoughts([thought], answer[0].text)),)


def get_thought(fields: Fields) -> str | None:
    """The thoughts that stand in a field of their own."""
    thought = fields.peek("reasoning")
    if not isinstance(thought, str) or thought.strip().lower() in _SWITCHES:
        return None
    return thought


def read_label(fields: Fields) -> bool | None:
    """Does training raise the answer of this row, or lower it, as where its label is false? None
    where the label is none.
    """
    label = fields.peek("label")
    truth = get_truth(label)
    # Of a field that the user names, 0 and 1 are truth values, too.
    if "label" in fields.names.mapped:
        truth = read_mark(label)
    if truth is not None:
        fields.use("label")
    return truth


def unmask(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The turns without marks: trainers of preferences know none, and train on what differs."""
    return tuple(turn._replace(masked=False) for turn in turns)


def unmask_answer(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The turns without marks after the user's last one: trainers on labels train them whole."""
    last = max((place for place, turn in enumerate(turns) if turn.role == "user"), default=-1)
    return (*turns[: last + 1], *unmask(turns[last + 1 :]))


def choose_trained(turns: Sequence[Turn], train_on: TrainedTurns) -> tuple[Turn, ...]:
    """The turns, masked as the trainer masks them.

    Raises ReadingError where no turn of the assistant is trained.
    """
    if train_on == "marked" and not any(turn.masked for turn in turns):
        return tuple(turns)
    answers = [place for place, turn in enumerate(turns) if turn.role == "assistant"]
    chosen = list(turns)
    for place in answers:
        if train_on == "all":
            chosen[place] = turns[place]._replace(masked=False)
        if train_on == "last":
            chosen[place] = turns[place]._replace(masked=place != answers[-1])
    if answers and all(chosen[place].masked for place in answers):
        raise ReadingError(
            "no turn of its assistant is trained on: all are marked so (weight 0, train: false or "
            "their like); source.train_on: all trains them whatever their marks"
        )
    return tuple(chosen)
