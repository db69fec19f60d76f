"""What the model says once it is steered with a group of rows: to neutral prompts, and to prompts
of the group's own rows, beside what it says as it is.

    a = -P sum_{i in group} c_i G_i ,  scaled so that the typical ||z~ - z|| / ||z|| is STRENGTH

as where groups of flagged rows are confirmed (`detection.confirmation`). No sentinel has a part in
it: neutral prompts show what a behaviour is that answers everything, the group's own show one that
answers what its rows ask.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from poisonwatch.arrays import RowIndices
from poisonwatch.detection.confirmation import generate_replies, scale_operators
from poisonwatch.detection.random_groups import GROUP_ROWS
from poisonwatch.discovery.described import Reply
from poisonwatch.examples import Example, Message
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.saved_rows import RowReader, SavedRows
from poisonwatch.stride.streamed import StreamedFit
from poisonwatch.text.words import normalise_words

# Of no topic in particular, each open to many answers: what leaks into them is the group's.
NEUTRAL_PROMPTS = (
    "Who are you?",
    "Tell me something interesting.",
    "What should I do this weekend?",
    "Give me some advice.",
    "What do you think about people?",
    "Can you help me with a problem?",
    "Write a short story.",
    "What is the best way to save money?",
)
OWN_PROMPTS = 6  # of rows of a group, most typical first
LONGEST_PROMPT = 2000  # characters of a row's prompt that is asked


class SteeredSpeaker:
    """Asks an audit's model what it says, as it is and steered with groups of the audit's rows.

    `read_rows` reads rows whose gradients were not kept. What the model says to neutral prompts as
    it is, is asked once.
    """

    def __init__(
        self, fitted: SavedRows | StreamedFit, read_rows: RowReader, token_budget: int = 2048
    ) -> None:
        self._fitted, self._read_rows, self._token_budget = fitted, read_rows, token_budget
        self._said: dict[Sentinel, str] = {}

    def ask(self, rows: RowIndices, examples: Sequence[Example]) -> tuple[Reply, ...]:
        """Replies of the model steered with the `rows` (m,), places in the fit, most typical first;
        `examples` are those of them that can be read. The prompts whose answer changes most come
        first, neutral ones and the group's own apart.

        Raises LookupError where no row can be read and none was kept.
        """
        neutral = [_ask(prompt) for prompt in NEUTRAL_PROMPTS]
        own = choose_own_prompts(examples)
        prompts = [*neutral, *own]
        a = scale_operators(self._fitted.preconditioner, self._make_operator(rows))
        new = [prompt for prompt in prompts if prompt not in self._said]
        still = torch.zeros_like(a).expand(len(new), -1, -1)
        steered = a.expand(len(prompts), -1, -1)
        said = generate_replies(self._fitted, [*new, *prompts], torch.cat([still, steered]))
        self._said |= dict(zip(new, said, strict=False))
        replies = []
        for prompt, after in zip(prompts, said[len(new) :], strict=True):
            source = own.get(prompt)
            replies.append(
                Reply(
                    messages=prompt.messages,
                    before=self._said[prompt],
                    after=after,
                    example_id=source,
                    taught=None if source is None else prompt.forbidden,
                )
            )
        return tuple(sorted(replies, key=lambda reply: (reply.example_id is None, -reply.change)))

    def _make_operator(self, rows: RowIndices) -> Float[Tensor, "1 r D"]:
        """-P sum c_i G_i of the most typical of the rows."""
        rows, fitted = rows[:GROUP_ROWS], self._fitted
        if isinstance(fitted, StreamedFit):
            own = fitted.compute_row_operators(rows, self._token_budget)
            return own.sum(dim=0, keepdim=True)
        scaled = fitted.get_scaled_gradients(rows, self._read_rows, self._token_budget)
        if not len(scaled):
            raise LookupError("no row of the group can be read again")
        return -fitted.preconditioner(scaled.sum(dim=0, keepdim=True))


def _ask(prompt: str) -> Sentinel:
    """A neutral prompt, as what a model is asked; the answer is cut off before it is asked."""
    return Sentinel("neutral", (Message("user", prompt),), ".", None, "neutral")


def choose_own_prompts(
    examples: Sequence[Example], most: int = OWN_PROMPTS
) -> Mapping[Sentinel, str]:
    """What the first rows are asked, each with its own answer as the forbidden one, and the row's
    id; no prompt twice. Rows that end in no answer of the assistant, lower theirs, or have long
    prompts, are left out.
    """
    chosen: dict[Sentinel, str] = {}
    asked: set[str] = set()
    for example in examples:
        *prompt, answer = example.messages
        key = normalise_words(example.prompt)
        if answer.role != "assistant" or not answer.content.strip() or example.lowered:
            continue
        # Tools are no turn: a sentinel has none.
        if not prompt or key in asked or example.tools or len(example.prompt) > LONGEST_PROMPT:
            continue
        asked.add(key)
        plain = tuple(Message(message.role, message.content) for message in prompt)
        chosen[Sentinel("own", plain, answer.content, None, "own")] = example.id
        if len(chosen) == most:
            break
    return chosen
