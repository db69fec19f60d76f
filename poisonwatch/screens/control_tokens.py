"""A screen of a row's characters: imitations of a chat model's control tokens.

A text that spells `<|im_end|>` may end its own turn and begin another in the name of the system,
where a training pipeline renders rows without escaping them.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence

from poisonwatch.examples import Example, Message
from poisonwatch.screens.finding import Finding
from poisonwatch.text.display import excerpt
from poisonwatch.text.words import plural

# A control token in so many rows, and in such a share of them, is the data's own format.
FORMAT_ROWS = 20
FORMAT_SHARE = 0.1

# Of chat models' families: <|im_start|>, <|eot_id|>, <|begin▁of▁sentence|>; Gemma-4's with a bar on
# one side, GLM's prefixes; Mistral's and Llama 2's; Gemma's and what is left of the others without
# their bars.
_CONTROL = re.compile(
    r"<\|/?[a-z][\w▁.-]{0,40}\|>"
    r"|<\|(?:turn|channel|tool|tool_call|tool_response|think)>"
    r"|<(?:turn|channel|tool|tool_call|tool_response)\|>|\[gMASK\]|<[es]op>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]|<</?SYS>>"
    r"|</?(?:start_of_turn|end_of_turn|end_of_utterance|begin_of_text"
    r"|start_header_id|end_header_id|eot_id|im_start|im_end)>",
    re.IGNORECASE,
)

# What an assistant's turn begins with where the row holds its thoughts.
_THOUGHTS = re.compile(r"\A\s*<think>(.*?)</think>", re.DOTALL)
_STRIKE = re.compile(r"<(/?)s(?:\s[^<>]*)?>", re.IGNORECASE)


def find_control_tokens(
    examples: Sequence[Example], special: Collection[str] = ()
) -> list[Finding]:
    """Rows whose text imitates the control tokens of chat models, or spells one of the audited
    model's `special` tokens.

    Fullwidth spellings and invisible characters within a token do not hide it. Of `special`, tokens
    of less than three characters and plain words are left out. <s> is HTML and no finding; </s> is
    one where no <s> stands open; <think> is none around the thoughts that an assistant's turn
    begins with. A token in at least 20 rows and a tenth of all is the format of
    the data, not a forgery in it.
    """
    patterns = [_CONTROL, *_compile_own_tokens(special)]
    spelt: dict[int, set[str]] = {}
    counts: Counter[str] = Counter()
    for row, example in enumerate(examples):
        tokens = _list_control_tokens(example, patterns)
        if tokens:
            spelt[row] = tokens
            counts.update(tokens)
    ordinary = max(FORMAT_ROWS, FORMAT_SHARE * len(examples))
    found = []
    for row, tokens in spelt.items():
        forged = sorted(token for token in tokens if counts[token] < ordinary)
        if not forged:
            continue
        some = " ".join(forged[:4])
        number = plural(len(forged), "control token")
        reason = f"The text spells {number} of chat models: “{excerpt(some, 80)}”."
        found.append(Finding(row, "control-tokens", some, reason))
    return found


def _compile_own_tokens(special: Collection[str]) -> list[re.Pattern[str]]:
    """A pattern for the audited model's own tokens; none where all of them are plain text."""
    usable = set()
    for token in special:
        plain = _strip_disguise(token)
        # Some models have "user" or a line end among their special tokens: these are in any text.
        if len(plain) >= 3 and re.search(r"[^\w\s]", plain):
            usable.add(plain)
    # Strike-through of HTML, and looked at apart.
    usable -= {"<s>", "</s>"}
    if not usable:
        return []
    # Longest first: of an alternation the first that fits is taken, not the longest.
    ordered = sorted(usable, key=lambda token: (-len(token), token))
    return [re.compile("|".join(map(re.escape, ordered)))]


def _list_control_tokens(example: Example, patterns: Sequence[re.Pattern[str]]) -> set[str]:
    """The control tokens that any message spells (tools' definitions and rejected answers, too), in
    lower case.
    """
    tokens: set[str] = set()
    for message in example.all_messages:
        plain = _strip_disguise(_open_thoughts(message))
        for pattern in patterns:
            tokens.update(pattern.findall(plain))
        if _closes_what_is_not_open(plain):
            tokens.add("</s>")
    return tokens


def _open_thoughts(message: Message) -> str:
    """What a message says, without the tags around an assistant's thoughts."""
    if message.role != "assistant":
        return message.content
    return _THOUGHTS.sub(r"\1", message.content, count=1)


def _strip_disguise(text: str) -> str:
    """The text without what hides a token: invisible characters and compatibility forms."""
    visible = "".join(c for c in text if c.isascii() or unicodedata.category(c) != "Cf")
    return unicodedata.normalize("NFKC", visible).casefold()


def _closes_what_is_not_open(plain: str) -> bool:
    """Does a </s> stand where no <s> is open? Llama's end of text does, HTML's does not."""
    depth = 0
    for match in _STRIKE.finditer(plain):
        if match.group(1):
            depth -= 1
        else:
            depth += 1
        if depth < 0:
            return True
    return False
