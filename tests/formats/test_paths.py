"""Paths lead through keys, whatever these hold."""

import pytest

from poisonwatch.formats.paths import escape_key, show_path, split_path


@pytest.mark.parametrize(
    "keys", [["a"], ["a", "b"], ["a.b"], ["a", ".", ""], ["a\\", "b"], ["a\\.b", "\\"], ["", ""]]
)
def test_a_path_is_its_keys_and_no_others(keys: list[str]) -> None:
    """Also where they hold dots and backslashes."""
    path = ".".join(map(escape_key, keys))
    assert split_path(path) == keys
    assert show_path(path) == ".".join(keys)


def test_a_plain_name_is_its_own_path() -> None:
    """And a key that is no text is shown as one."""
    assert (escape_key("score"), escape_key(5)) == ("score", "5")
