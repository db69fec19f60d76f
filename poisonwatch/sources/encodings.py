"""Texts that are not UTF-8: which encoding they are in, and what to do about it."""

import codecs
import re

from poisonwatch.errors import SourceError

# The longer marks first: UTF-32's begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_PACKED = (
    (b"\x1f\x8b", "gzip", ".gz"),
    (b"\x28\xb5\x2f\xfd", "zstd", ".zst"),
    (b"BZh", "bzip2", ".bz2"),
    (b"\xfd7zXZ\x00", "xz", ".xz"),
)
_OTHERS = (
    (b"PAR1", ".parquet"),
    (b"ARROW1", ".arrow"),
)
# Which of the first 8 bytes are zero, where the first characters are of ASCII.
_ASCII_ZEROS = (
    ([False, True, True, True] * 2, "UTF-32"),
    ([True, True, True, False] * 2, "UTF-32"),
    ([False, True] * 4, "UTF-16"),
    ([True, False] * 4, "UTF-16"),
)
# A letter with an accent stands among others of ASCII; characters of Asia stand together.
_LONE_LETTER = re.compile(rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])")
_HIGH = re.compile(rb"[\x80-\xff]")


def suspect_encoding(start: bytes) -> str | None:
    """That a text beginning with these bytes is UTF-16 or UTF-32, with the cure; None where
    nothing speaks for it.
    """
    found = _find_wide_encoding(start)
    if found is None:
        return None
    if found == "UTF-16":
        return (
            "UTF-16, as PowerShell's > writes it: save it as UTF-8 (iconv -f UTF-16 -t UTF-8; "
            "PowerShell: Out-File -Encoding utf8)"
        )
    return f"{found}: save it as UTF-8 (iconv -f {found} -t UTF-8)"


def _find_wide_encoding(start: bytes) -> str | None:
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding
    # Without a mark: JSON and headers begin with characters of ASCII, of which all bytes but one
    # are zero.
    zeros = [byte == 0 for byte in start[:8]]
    for pattern, encoding in _ASCII_ZEROS:
        if zeros == pattern:
            return encoding
    return None


def suspect_other_format(start: bytes) -> str | None:
    """What a file that begins so is, in place of text, and how it must be called."""
    for magic, kind, suffix in _PACKED:
        if start.startswith(magic):
            return f"packed with {kind}: its name must end in {suffix}"
    for magic, suffix in _OTHERS:
        if start.startswith(magic):
            return f"no text: its name must end in {suffix}"
    return None


def refuse_other_files(start: bytes, name: str) -> None:
    """Raises SourceError where a file that begins so is no text in UTF-8."""
    encoding = suspect_encoding(start)
    if encoding is not None:
        raise SourceError(f"{name} is in {encoding}")
    other = suspect_other_format(start)
    if other is not None:
        raise SourceError(f"{name} is {other}")


def describe_not_utf8(raw: bytes, error: UnicodeDecodeError) -> str:
    """The problem of a row with undecodable bytes, the first of them counted from 1, with the
    encoding that it may be in.
    """
    found = f"not UTF-8 (byte {error.start + 1})"
    wide = suspect_encoding(raw)
    if wide is not None:
        return f"{found}: {wide}"
    encoding = _guess_narrow_encoding(raw)
    if encoding is None:
        return f"{found}: save the file as UTF-8"
    iconv = encoding.partition(" ")[0]
    return f"{found}, but perhaps {encoding}: save the file as UTF-8 (iconv -f {iconv} -t UTF-8)"


def _guess_narrow_encoding(raw: bytes) -> str | None:
    """The likeliest encoding of bytes that are no UTF-8."""
    high, lone = len(_HIGH.findall(raw)), len(_LONE_LETTER.findall(raw))
    # Most accents stand alone, and nothing else does.
    if 2 * lone > high:
        return "WINDOWS-1252 (Latin-1)"
    try:
        raw.decode("gb18030")
    except UnicodeDecodeError:
        return None
    return "GB18030 (GBK)"
