"""Texts that are no UTF-8 are named, with what to do about them."""

import pytest

from poisonwatch.sources.encodings import (
    describe_not_utf8,
    suspect_encoding,
    suspect_other_format,
)

TEXT = '{"prompt": "naïve 红", "response": "x"}\n'


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("text", [TEXT, "[" + TEXT, "prompt,response\n", "\n" + TEXT])
def test_wide_encodings_are_named_with_the_cure(encoding: str, text: str) -> None:
    """With a byte-order mark or without."""
    found = suspect_encoding(text.encode(encoding))
    assert found is not None
    assert found.startswith(encoding[:6].upper())
    assert "iconv -f" in found


@pytest.mark.parametrize(
    "start",
    [b"", b"{", TEXT.encode(), b"\xef\xbb\xbf" + TEXT.encode(), b'{"a": "\x00\x00"}', b"\0" * 64],
)
def test_utf8_and_zeros_are_none_of_them(start: bytes) -> None:
    """Not even with a byte-order mark of its own."""
    assert suspect_encoding(start) is None


@pytest.mark.parametrize(
    ("encoding", "text", "named"),
    [
        ("latin-1", "un café très naïve", "WINDOWS-1252 (Latin-1)"),
        ("cp1252", "it’s “quoted” – so", "WINDOWS-1252 (Latin-1)"),
        ("gb18030", "今天天气很好，我们去公园吧", "GB18030 (GBK)"),
    ],
)
def test_narrow_encodings_are_guessed(encoding: str, text: str, named: str) -> None:
    """With the first byte that is not UTF-8, and a command."""
    raw = text.encode(encoding)
    with pytest.raises(UnicodeDecodeError) as caught:
        raw.decode()
    said = describe_not_utf8(raw, caught.value)
    assert said.startswith(f"not UTF-8 (byte {caught.value.start + 1})")
    assert named in said
    assert f"iconv -f {named.split()[0]} -t UTF-8" in said


def test_bytes_of_no_encoding_ask_for_utf8() -> None:
    """Nothing is guessed."""
    raw = b"\xff\xff\xff\xff"
    with pytest.raises(UnicodeDecodeError) as caught:
        raw.decode()
    assert describe_not_utf8(raw, caught.value) == "not UTF-8 (byte 1): save the file as UTF-8"


@pytest.mark.parametrize(
    ("start", "suffix"),
    [
        (b"\x1f\x8b\x08", ".gz"),
        (b"\x28\xb5\x2f\xfd", ".zst"),
        (b"PAR1", ".parquet"),
        (b"ARROW1", ".arrow"),
    ],
)
def test_files_of_other_formats_are_told_their_suffix(start: bytes, suffix: str) -> None:
    """By their first bytes."""
    assert str(suspect_other_format(start)).endswith(suffix)
    assert suspect_other_format(TEXT.encode()) is None
