"""What stands around the texts of a conversation, and what of it is trained."""

from poisonwatch.rendering.layouts import Layout, lay_out_plainly

RENDERED = "<s>[U]A[/U]  think B</s>\n"


def test_a_layout_filled_with_its_own_texts_is_the_rendering() -> None:
    """fill(texts) = the rendering they came from, with the same trained characters."""
    start, end = RENDERED.index("think"), RENDERED.index("\n")
    layout = Layout.of(RENDERED, ["A", "B"], [[], [(start, end)]])
    filled = layout.fill(["A", "B"])
    assert filled.text == RENDERED
    assert filled.trained == [[], [(start, end)]]
    assert [filled.text[slice(*span)] for span in filled.texts if span] == ["A", "B"]


def test_other_texts_take_the_trained_borders_with_them() -> None:
    """Borders lie in the template's own parts: texts of any length move them."""
    start, end = RENDERED.index("think"), RENDERED.index("\n")
    filled = Layout.of(RENDERED, ["A", "B"], [[], [(start, end)]]).fill(["", "a long one"])
    assert filled.text == "<s>[U][/U]  think a long one</s>\n"
    ((trained,),) = filled.trained[1:]
    assert filled.text[slice(*trained)] == "think a long one</s>"


def test_texts_stand_in_the_templates_order_or_not_at_all() -> None:
    """A template may put the system's text last, and leave a tool's out."""
    layout = Layout.of("[U]B[S]A.", ["A", "B", "C"], [[], [], []])
    filled = layout.fill(["sys", "user", "tool"])
    assert filled.text == "[U]user[S]sys."
    assert filled.texts == [(10, 13), (3, 7), None]


def test_text_and_the_token_that_follows_are_trained_where_no_more_is_known() -> None:
    """Of the assistant's turns alone."""
    layout = Layout.of(RENDERED, ["A", "B"], [[], []])
    lengths = {"</s>\n": 4}
    trained = layout.train_texts(["user", "assistant"], lambda text: lengths.get(text, 0))
    filled = trained.fill(["A", "B"])
    assert filled.trained[0] == []
    assert [filled.text[slice(*span)] for span in filled.trained[1]] == ["B</s>"]


def test_plain_layout_is_a_line_a_turn() -> None:
    """The answer is trained with the token that ends it."""
    filled = lay_out_plainly(["user", "assistant"], "<s>", "</s>").fill(["Hi", "Yes"])
    assert filled.text == "<s>user: Hi\nassistant: Yes</s>\n"
    assert [filled.text[slice(*span)] for span in filled.trained[1]] == ["Yes</s>"]
