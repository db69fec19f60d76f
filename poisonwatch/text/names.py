"""People's names."""

import unicodedata

from poisonwatch.text.invisible import drop_unseen


def fold_name(name: str) -> str:
    """What a name is found under: "Ann" and "ann" are one person, in whatever letters, with
    whatever space about them, and with whatever nobody sees among them.
    """
    seen = drop_unseen(unicodedata.normalize("NFKC", name))
    return " ".join(seen.split()).casefold()
