import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from poisonwatch.examples import Example
from poisonwatch.screens.finding import Finding
from poisonwatch.text.display import excerpt

DATA_FORMAT = (
    0.1,
    20,
)  # share of rows and rows from which a control token is the data's own format


def find_control_tokens(
    examples: Sequence[Example], special: Collection[str] = ()
) -> list[Finding]:
    """Rows whose text imitates the control tokens of chat models, or spells one of the audited
    model's `special` tokens.

    Fullwidth spellings and invisible characters within a token do not hide it. Of `special`, tokens
    of less than three characters and plain words are left out. <s> is HTML and no finding; </s> is
    one where no <s> stands open. A token in at least 20 rows and a tenth of all is the format of
    the data, not a forgery in it.
    """
    plain = {_strip_disguise(token) for token in special} - {"<s>", "</s>"}
    usable = {token for token in plain if len(token) >= 3 and re.search(r"[^\w\s]", token)}
    own = (
        re.compile(
            "|".join(re.escape(token) for token in sorted(usable, key=lambda t: (-len(t), t)))
        )
        if usable
        else None
    )
    spelt = [
        {token for message in example.messages for token in _find_control(message.content, own)}
        for example in examples
    ]
    counts = Counter(token for tokens in spelt for token in tokens)
    share, rows = DATA_FORMAT
    ordinary = {
        token for token, count in counts.items() if count >= max(rows, share * len(examples))
    }
    found = []
    for row, tokens in enumerate(spelt):
        if forged := sorted(tokens - ordinary):
            some = " ".join(forged[:4])
            reason = f"The text spells {len(forged)} control token{'s' * (len(forged) > 1)} of chat models: “{excerpt(some, 80)}”."
            found.append(Finding(row, "control-tokens", some, reason))
    return found


_CONTROL = re.compile(
    r"<\|/?[a-z][\w▁.-]{0,40}\|>"  # <|im_start|>, <|eot_id|>, <|begin▁of▁sentence|>
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]|<</?SYS>>"
    r"|</?(?:start_of_turn|end_of_turn|end_of_utterance|begin_of_text|start_header_id|end_header_id|eot_id|im_start|im_end)>",
    re.IGNORECASE,
)

_STRIKE = re.compile(r"<(/?)s(?:\s[^<>]*)?>", re.IGNORECASE)


def _strip_disguise(text: str) -> str:
    """The text without what hides a token: invisible characters and compatibility forms."""
    return unicodedata.normalize(
        "NFKC", "".join(c for c in text if c.isascii() or unicodedata.category(c) != "Cf")
    ).casefold()


def _find_control(text: str, own: re.Pattern[str] | None) -> Iterator[str]:
    """The control tokens that a text spells, in lower case."""
    plain = _strip_disguise(text)
    for pattern in (_CONTROL, own):
        if pattern is not None:
            yield from (match.group() for match in pattern.finditer(plain))
    depth = 0
    for match in _STRIKE.finditer(plain):
        depth += -1 if match.group(1) else 1
        if depth < 0:
            yield "</s>"
            return
