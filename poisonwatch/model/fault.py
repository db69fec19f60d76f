"""Why a row cannot be measured, in words; how that is found, is in `faults`."""

from dataclasses import dataclass
from enum import IntEnum


class Fault(IntEnum):
    """What keeps a row from being measured; NONE does not."""

    NONE = 0
    NO_ANSWER = 1
    STATES = 2
    LOSS = 3
    GRADIENT = 4


_REASONS = {
    Fault.NO_ANSWER: "no token of its answer is left to learn: it is empty, masked or cut off",
    Fault.STATES: "its states in the model are not finite numbers in {precision}",
    Fault.LOSS: "its loss is not a finite number in {precision}",
    Fault.GRADIENT: "its gradient is not a finite number in {precision}",
}
_GIVE_ANSWER = "give it an answer, or raise stride.max_tokens"
_WIDER_NUMBERS = (
    "set model.dtype to float32, or to bfloat16 where float16 overflows; "
    "where it is float32, look for damaged weights or text that the model was never trained on"
)


@dataclass(frozen=True, slots=True)
class FaultyRow:
    """A row that was left out: its place among the rows of a fit, and the `fault`."""

    row: int
    fault: Fault


def describe_fault(fault: Fault, precision: str) -> str:
    """Why a row cannot be measured by a model of that `precision`, and what to do about it."""
    remedy = _WIDER_NUMBERS
    if fault == Fault.NO_ANSWER:
        remedy = _GIVE_ANSWER
    reason = _REASONS[fault].format(precision=precision.removeprefix("torch."))
    return f"{reason}; {remedy}"
