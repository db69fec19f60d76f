"""Names of roles, and whose they are."""

import pytest

from poisonwatch.formats.roles import ROLE_NAMES, ROLES, find_role, read_role
from poisonwatch.formats.values import ReadingError


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("USER", "user"),
        ("Chatbot", "assistant"),
        ("<|assistant|>", "assistant"),
        ("Tool Response", "tool"),
        ("tool-call", "assistant"),
        ("AI:", "assistant"),
        ("bing", "assistant"),
        ("bard", "assistant"),
        ("ipython", "tool"),
        ("environment", "tool"),
        ("prompter", "user"),
        ("developer", "system"),
    ],
)
def test_trainers_names_are_known_however_they_are_written(name: str, role: str) -> None:
    """Case, spaces, dashes and marks do not count."""
    assert read_role(name, {}) == find_role(name) == role


def test_each_name_means_one_role() -> None:
    """And the roles themselves are no names of others."""
    names = [name for found in ROLE_NAMES.values() for name in found]
    assert len(set(names)) == len(names)
    assert not set(names) & set(ROLES)


def test_the_users_own_names_go_first() -> None:
    """source.roles overrules what trainers mean by a name."""
    own = {"Narrator": "assistant", "agent": "user"}
    assert [read_role(name, own) for name in ("narrator", "Agent", "gpt")] == [
        "assistant",
        "user",
        "assistant",
    ]
    with pytest.raises(ReadingError, match=r"source\.roles says what others are"):
        read_role("narrator", {})
