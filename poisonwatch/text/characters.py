"""Texts that say nothing, were damaged, or hold control characters, as validation refuses them."""

import re

# Format characters and fillers by themselves say nothing. Written out, since Python's \s knows of
# spaces alone.
SAYS_SOMETHING = (
    r"[^\s\u00ad\u034f\u115f\u1160\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800"
    r"\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
REPLACEMENT = "\ufffd"  # what broken Unicode turns into
# C0 and C1 without white space: line ends, tabs, form feeds and vertical tabs of source code and
# slides.
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")
