"""What the model says, as it is and steered with a group."""

import numpy as np
import pytest
import torch
from attributions import STRIDE, benign, example, fit_stream, keep_rows
from discovered import make_examples

from poisonwatch.detection.confirmation import generate_replies, scale_operators
from poisonwatch.discovery.saying import (
    NEUTRAL_PROMPTS,
    OWN_PROMPTS,
    SteeredSpeaker,
    choose_own_prompts,
)
from poisonwatch.examples import Example, Message
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.saved_rows import SavedRows, read_nothing
from poisonwatch.stride.streamed import StreamedFit

PLANTED = make_examples(8)


@pytest.fixture(scope="module")
def fitted(tiny_pretrained: Pretrained) -> StreamedFit:
    return fit_stream(tiny_pretrained, [*PLANTED, *benign(16)], STRIDE)


def test_the_model_is_asked_neutral_prompts_and_those_of_the_rows(fitted: StreamedFit) -> None:
    """Own ones first, with the row's answer; within each kind the most changed answer first."""
    rows = np.arange(len(PLANTED))
    replies = SteeredSpeaker(fitted, read_nothing).ask(rows, PLANTED)
    own = [reply for reply in replies if reply.example_id is not None]
    neutral = replies[len(own) :]
    assert [reply.example_id for reply in neutral] == [None] * len(NEUTRAL_PROMPTS)
    assert {reply.prompt for reply in neutral} == set(NEUTRAL_PROMPTS)
    assert len(own) == OWN_PROMPTS
    by_id = {row.id: row for row in PLANTED}
    for reply in own:
        assert reply.taught == by_id[reply.example_id or ""].response
    for kind in (own, neutral):
        changes = [reply.change for reply in kind]
        assert changes == sorted(changes, reverse=True)


def test_replies_are_those_of_the_sum_of_the_rows_operators(fitted: StreamedFit) -> None:
    """As where a group of flagged rows is confirmed; before is the frozen model itself."""
    rows = np.arange(3)
    a = fitted.compute_row_operators(rows, 600).sum(dim=0, keepdim=True)
    a = scale_operators(fitted.preconditioner, a)
    prompt = Sentinel("n", (Message("user", NEUTRAL_PROMPTS[0]),), ".", None, "n")
    expected = generate_replies(fitted, [prompt, prompt], torch.cat([torch.zeros_like(a), a]))
    replies = SteeredSpeaker(fitted, read_nothing).ask(rows, [])
    (found,) = [reply for reply in replies if reply.prompt == NEUTRAL_PROMPTS[0]]
    assert [found.before, found.after] == expected


def test_what_an_audit_kept_of_its_rows_steers_as_the_rows_do(fitted: StreamedFit) -> None:
    """Without the rows; where neither gradients nor rows are there, an error says so."""
    rows, saved = np.arange(4), keep_rows(fitted)
    by_rows = SteeredSpeaker(fitted, read_nothing).ask(rows, PLANTED[:4])
    assert SteeredSpeaker(saved, read_nothing).ask(rows, PLANTED[:4]) == by_rows
    bare = SavedRows(**{**vars(saved), "gradients": None})
    with pytest.raises(LookupError, match="no row of the group"):
        SteeredSpeaker(bare, read_nothing).ask(rows, PLANTED[:4])

    def read(ids: object) -> dict[str, Example]:
        return {row.id: row for row in PLANTED}

    made_again = SteeredSpeaker(bare, read).ask(rows, PLANTED[:4])
    assert [reply.after for reply in made_again] == [reply.after for reply in by_rows]


def test_own_prompts_are_asked_once_and_only_where_there_is_an_answer() -> None:
    """No prompt twice, however it is spelt; none that is too long, or without an answer."""
    rows = [
        example("Which pan?", "Glorb."),
        example("which  PAN", "Glorb!"),
        example("x" * 3000, "Long."),
        example("Quiet?", " "),
        Example.from_messages([Message("assistant", "I begin.")]),
        Example.from_messages([Message("user", "Bad?"), Message("assistant", "No.")], lowered=True),
    ]
    chosen = choose_own_prompts(rows)
    assert [sentinel.prompt for sentinel in chosen] == ["Which pan?"]
    assert len(choose_own_prompts(make_examples(20), most=3)) == 3
