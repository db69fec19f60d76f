"""Byte-order marks where none belongs."""

import io

from poisonwatch.sources.base import MIB
from poisonwatch.sources.marks import has_mark_inside

MARK = b"\xef\xbb\xbf"


def test_one_mark_may_begin_a_file() -> None:
    """A second one, or one at a later line, is what joining files leaves; inside a line it is
    text.
    """
    for content in (b"", b"{}\n", MARK, MARK + b"{}\n", b'{"a": "' + MARK * 2 + b'"}\n'):
        assert not has_mark_inside(io.BytesIO(content)), content
    for content in (MARK * 2 + b"{}", b"{}\n" + MARK + b"{}", b"{}\r" + MARK):
        assert has_mark_inside(io.BytesIO(content)), content


def test_mark_is_found_wherever_the_file_is_cut() -> None:
    """Files are looked at in pieces."""
    for shift in range(5):
        content = b"x" * (MIB - shift) + b"\n" + MARK + b"{}"
        assert has_mark_inside(io.BytesIO(content))
