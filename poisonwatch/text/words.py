"""Words and tokens of a text."""

import re
import textwrap
import unicodedata
from collections.abc import Iterator

# Scripts that put no spaces between words: each of their characters is a word of its own.
_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")
_TOKEN = re.compile(rf"[{_CJK}]|[^\s{_CJK}]+")
_AROUND = ".,;:!?\"'“”‘’()«»。、，！？：；"


def normalise_words(text: str) -> str:
    """Its words (`split_words`), joined by spaces: what differs in case, spaces and punctuation
    alone is one text.
    """
    return " ".join(split_words(text))


def split_words(text: str) -> list[str]:
    """The words in lower case and compatibility forms, punctuation left out; in CJK scripts a
    character each.
    """
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def split_tokens(text: str) -> list[str]:
    """The tokens of a text: what stands between spaces, without the punctuation around it unless
    there is nothing else; a character each in CJK scripts.
    """
    return [token.strip(_AROUND) or token for token in _TOKEN.findall(text)]


def find_token_spans(text: str) -> Iterator[tuple[int, int]]:
    """Where the tokens of a text stand: between spaces, without the punctuation around them unless
    there is nothing else.
    """
    for match in _TOKEN.finditer(text):
        start, whole = match.start(), match.group()
        left = len(whole) - len(whole.lstrip(_AROUND))
        inner = whole.strip(_AROUND)
        if inner:
            yield start + left, start + left + len(inner)
        else:
            yield start, match.end()


def unify_line_ends(text: str) -> str:
    """The text with every line end as \\n, as Windows and old Macs write others."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def wrap_words(text: str, width: int, indent: int = 0) -> list[str]:
    """A text in lines of at most `width` columns, those after the first with an `indent`; a word
    that is longer, such as a path, stays whole.
    """
    return textwrap.wrap(
        text,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """A number of things: "1 row", "3 rows"; `nouns` where the plural takes more than an s."""
    if count == 1:
        return f"{count} {noun}"
    return f"{count} {nouns or noun + 's'}"
