"""Values of records: text, nothing, and the rest."""


from poisonwatch.sources.values import (
    describe_kind,
    get_optional_text,
    get_text,
)


def test_kinds_have_plain_names() -> None:
    """What a value is, in words."""
    values = [None, True, 1, 1.5, "x", [], {}, b"x"]
    assert list(map(describe_kind, values)) == [
        "null",
        "a truth value",
        "a number",
        "a number",
        "text",
        "a list",
        "an object",
        "a bytes",
    ]
    assert [get_text(value) for value in ("x", "", 1)] == ["x", "", None]
    assert [get_optional_text(value, "system") for value in ("x", "", None)] == ["x", None, None]
