"""Byte-order marks in files of JSON: one may begin a file, as in what Windows writes."""

from typing import BinaryIO

from poisonwatch.sources.base import MIB
from poisonwatch.sources.json_row import BOM


def has_mark_inside(file: BinaryIO) -> bool:
    """Whether a mark begins a line of a file other than the first, or the first begins with two."""
    # The beginning of a file is that of a line, too.
    end = b"\n"
    piece = file.read(MIB).removeprefix(BOM)
    while piece:
        seen = end + piece
        if b"\n" + BOM in seen or b"\r" + BOM in seen:
            return True
        end = seen[-len(BOM) :]
        piece = file.read(MIB)
    return False
