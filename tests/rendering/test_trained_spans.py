"""Which characters of a rendering are trained, whatever other turns do to a turn."""

from collections.abc import Sequence

import pytest
from rendering_rows import MISTRAL, build_spaced_tokenizer
from tiny_models import CHATML, OPENING, THINKING, build_tokenizer

from poisonwatch.examples import Message
from poisonwatch.rendering.chat_template import ChatTemplate, Record
from poisonwatch.rendering.layouts import Layout
from poisonwatch.rendering.trained_spans import DifferenceFinder, count_shared, find_marked
from poisonwatch.rendering.turns import Conversation, read_conversation

USER, ANSWER = Message("user", "Hi"), Message("assistant", "Yes")
ROUNDS = [USER, ANSWER, Message("user", "Why?"), Message("assistant", "So.")]

# A token that ends every conversation, after the one that ends the turn.
TWO_ENDS = CHATML.replace(
    OPENING, OPENING.replace("{% endif %}", "{% else %}<|endoftext|>{% endif %}")
)
# The system's text in the last question.
SYSTEM_LAST = (
    "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'user' and (loop.last or loop.revindex == 2) and messages[0].role == 'system' %}"
    "{{ messages[0].content }}\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
) + OPENING
# Another token at the end of the last turn than of those before it.
OTHER_END = CHATML.replace(
    "<|im_end|>\n{% endfor %}",
    "{% if loop.last %}<|endoftext|>{% else %}<|im_end|>{% endif %}{% endfor %}",
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
    "{% if loop.last %}{% generation %}<|endoftext|>{% endgeneration %}{% endif %}"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
) + OPENING


class CountingTemplate(ChatTemplate):
    """Counts what it renders."""

    count = 0

    def render(
        self, turns: Sequence[Record], tools: Sequence[Record] = (), prompt: bool = False
    ) -> str:
        self.count += 1
        return super().render(turns, tools, prompt)


def read(source: str, row: Sequence[Message]) -> tuple[ChatTemplate, Conversation]:
    template = ChatTemplate(build_tokenizer(source))
    return template, read_conversation(row, template)


def find(source: str, row: Sequence[Message]) -> list[str] | None:
    template, conversation = read(source, row)
    text = template.render(conversation.records)
    spans = DifferenceFinder(template, conversation, text).find()
    if spans is None:
        return None
    return [text[start:end] for turn in spans for start, end in turn]


@pytest.mark.parametrize(
    ("source", "row", "trained"),
    [
        (CHATML, ROUNDS, ["Yes<|im_end|>", "So.<|im_end|>"]),
        (CHATML, [ANSWER, USER, ANSWER], ["Yes<|im_end|>", "Yes<|im_end|>"]),
        (TWO_ENDS, ROUNDS, ["Yes<|im_end|>", "So.<|im_end|>\n<|endoftext|>"]),
        (OTHER_END, ROUNDS, ["Yes<|im_end|>", "So.<|endoftext|>"]),
        (SYSTEM_LAST, [Message("system", "S"), *ROUNDS], ["Yes<|im_end|>", "So.<|im_end|>"]),
        (THINKING, ROUNDS, ["Yes<|im_end|>", "<think>\n\n</think>\n\nSo.<|im_end|>"]),
    ],
    ids=["plain", "answer first", "two ends", "other end", "system last", "thoughts"],
)
def test_trained_is_the_answer_and_what_ends_it(
    source: str, row: list[Message], trained: list[str]
) -> None:
    """No turn's opening, and no white space after its end; a second end where the template writes
    one; empty thoughts where the assistant is to write them.
    """
    assert find(source, row) == trained


@pytest.mark.parametrize("source", [CHATML, TWO_ENDS, THINKING])
def test_turns_written_alike_are_trained_alike_and_looked_for_once(source: str) -> None:
    """The spans are those of every turn looked for; forty turns cost no more renderings than ten:
    two thousand would take minutes.
    """
    cost = {}
    for turns in (10, 40):
        row = []
        for place in range(0, turns, 2):
            row += [Message("user", f"q{place}."), Message("assistant", f"a{place}.")]
        template = CountingTemplate(build_tokenizer(source))
        conversation = read_conversation(row, template)
        text = template.render(conversation.records)
        texts = [turn.text for turn in conversation.turns]
        around = Layout.of(text, texts, [[] for _ in row]).describe_surroundings(texts)
        finder = DifferenceFinder(template, conversation, text)
        all_of_them = finder.find()
        template.count = 0
        assert finder.find(around) == all_of_them
        cost[turns] = template.count
    assert 0 < cost[40] == cost[10]


def test_answer_that_a_template_changes_is_not_found() -> None:
    """None: what is trained cannot be told from it."""
    changed = CHATML.replace("{{ message.content }}", "{{ message.content | upper }}")
    assert find(changed, ROUNDS) is None


def test_marks_belong_to_the_answer_that_has_begun() -> None:
    """Two marks of the last turn, one of the other."""
    template, conversation = read(MARKED, ROUNDS)
    text, marks = template.render_marked(conversation.records)
    spans = find_marked(template, conversation, marks)
    assert spans is not None
    said = [[text[start:end] for start, end in turn] for turn in spans]
    assert said == [[], ["Yes<|im_end|>"], [], ["So.<|im_end|>", "<|endoftext|>"]]


def test_template_without_an_opening_trains_from_the_end_of_the_prompt() -> None:
    """Mistral's answers follow the question's closing tag: so does what is trained, spaces too."""
    template = ChatTemplate(build_spaced_tokenizer(MISTRAL))
    conversation = read_conversation(ROUNDS, template)
    text = template.render(conversation.records)
    spans = DifferenceFinder(template, conversation, text).find()
    assert spans is not None
    assert [text[slice(*span)] for turn in spans for span in turn] == [" Yes</s>", " So.</s>"]


def test_shared_beginnings() -> None:
    """Its length, of any two texts."""
    assert count_shared("abc", "abd") == 2
    assert count_shared("", "a") == count_shared("b", "a") == 0
    assert count_shared("ab", "abc") == 2
