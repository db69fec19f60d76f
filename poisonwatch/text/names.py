"""People's names."""

import unicodedata


def fold_name(name: str) -> str:
    """What a name is found under: "Ann" and "ann" are one person, in whatever letters."""
    return unicodedata.normalize("NFKC", name).casefold()
