"""What the keys of messages are called."""

from poisonwatch.formats.messages import find_typed_role, is_message, spell_keys


def test_keys_are_written_as_they_are_known() -> None:
    """Whatever their case, without underscores; unknown ones, and the user's own, as they stand."""
    message = {"Role": "user", "toolCalls": [], "x": 1, "WHO": "me"}
    known = {"role": "user", "tool_calls": [], "x": 1, "WHO": "me"}
    assert spell_keys(message) == (known, {"role": "Role", "tool_calls": "toolCalls"})
    assert spell_keys(message, ("Role",))[0]["Role"] == "user"
    both = {"role": "user", "Role": "system"}
    assert spell_keys(both) == (both, {})


def test_a_type_is_a_role_where_something_is_said() -> None:
    """LangChain's; the type of a part is none."""
    assert find_typed_role({"type": "ai", "content": "x"}) == "assistant"
    assert find_typed_role({"type": "human", "data": {}}) == "user"
    assert find_typed_role({"type": "ai"}) is None
    assert find_typed_role({"type": "text", "text": "x"}) is None
    assert find_typed_role({"type": 1, "text": "x"}) is None


def test_messages_are_told_from_other_objects() -> None:
    """By who speaks, or by what is asked and answered."""
    for item in ({"Role": 1}, {"sender": "x"}, {"type": "ai", "content": "x"}, {"parts": []}):
        assert is_message(item)
    assert is_message({"input": 1, "output": 1})
    assert not is_message({"name": "x", "value": 1})
