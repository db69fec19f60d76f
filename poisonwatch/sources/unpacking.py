"""Packed files, unpacked as they are read; one that grows beyond all measure is given up."""

import bz2
import gzip
import io
import lzma
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.base import MIB

GB = 10**9
# So much may come out of any file, however small it is.
FREE_BYTES = 64 * MIB
ROW_FRAME_BYTES = 1024  # that a short row may take when it is kept
ROW_BYTES = 256  # that every row counts as, at least
# That may be unpacked at a time: a batch, or a page of each column. Both what is packed and what
# comes out are in memory then, some of it twice: less than 1 GB in all.
MAX_PIECE_BYTES = 320 * MIB
MAX_PLAIN_PIECE_BYTES = 640 * MIB  # of a batch that is not packed


@dataclass(frozen=True, slots=True)
class UnpackingLimits:
    """How much may come out of a packed file: gigabytes, and times what was read of it."""

    gigabytes: float
    ratio: float

    @classmethod
    def of(cls, source: SourceConfig) -> "UnpackingLimits":
        """Those that a source sets."""
        return cls(source.max_unpacked_gb, source.max_unpacked_ratio)

    def check_size(self, size: int, name: str) -> None:
        """Raises SourceError where so many bytes are too many."""
        if size > self.gigabytes * GB:
            raise SourceError(
                f"{name} holds more than {self.gigabytes:g} GB when it is unpacked: raise "
                "`source.max_unpacked_gb`, or split it"
            )

    def check_ratio(self, size: int, packed: int, name: str) -> None:
        """Raises SourceError where so many bytes came out of too few."""
        if size > FREE_BYTES and size > packed * self.ratio:
            raise SourceError(
                f"{name} grows more than {self.ratio:g} times when it is unpacked "
                f"({size // MIB} MiB so far): raise `source.max_unpacked_ratio` if it is really so "
                "repetitive"
            )


class Budget:
    """What may come out of a file of `packed` bytes (None: nobody knows); without limits, anything.

    What is taken is told before it is unpacked; taking raises SourceError beyond the limits.
    """

    def __init__(
        self, name: str, packed: int | None = None, limits: UnpackingLimits | None = None
    ) -> None:
        self.name = name
        self.packed = packed
        self.limits = limits or UnpackingLimits(math.inf, math.inf)
        self._size = self._rows = 0

    def take(self, size: int) -> None:
        """So many bytes more."""
        self._size += size
        self.check(self._size)

    def take_rows(self, count: int) -> None:
        """So many rows more, however short."""
        self._rows += count
        self.check_ratio(self._rows * ROW_BYTES)

    def check(self, size: int) -> None:
        """So many bytes in all."""
        self.limits.check_size(size, self.name)
        self.check_ratio(size)

    def check_ratio(self, size: int) -> None:
        """So many bytes in all, some of which nothing stores."""
        if self.packed is not None:
            self.limits.check_ratio(size, self.packed, self.name)

    def check_piece(self, size: int, what: str, packed: bool = True) -> None:
        """So many bytes that are in memory at a time."""
        most, state = MAX_PLAIN_PIECE_BYTES, ""
        if packed:
            most, state = MAX_PIECE_BYTES, " when it is unpacked"
        if size > most and self.limits.gigabytes < math.inf:
            raise SourceError(
                f"{self.name} holds {what} of {size // MIB} MiB{state}, of at most {most // MIB}: "
                "write it in smaller ones"
            )


def limit_rows(rows: Iterable[RawRow], budget: Budget) -> Iterator[RawRow]:
    """The rows of a packed file.

    Raises SourceError where they go beyond the budget: a dictionary can stand for a text in any
    number of rows, and a few bytes for any number of rows.
    """
    size = beyond = 0
    for row in rows:
        length = len(row.raw)
        size += length
        beyond += ROW_BYTES
        # Of what every row is kept with, the file may know nothing.
        if length > ROW_FRAME_BYTES:
            beyond += length - ROW_FRAME_BYTES
        # Most files are small, and asking takes time in every row.
        if size > FREE_BYTES or beyond > FREE_BYTES or size > budget.limits.gigabytes * GB:
            budget.limits.check_size(size, budget.name)
            budget.check_ratio(beyond)
        yield row


def unpack(
    file: BinaryIO, compression: str, limits: UnpackingLimits, name: str
) -> io.BufferedReader:
    """What a packed file holds, all its members or frames; closing it closes the file.

    Reading raises SourceError where it goes beyond the limits, and what the format's library raises
    where the file is damaged or ends too early.
    """
    return io.BufferedReader(_Unpacked(file, compression, limits, name), MIB)


class _Unpacked(io.RawIOBase):
    """The bytes that come out of a packed file, counted."""

    def __init__(
        self, file: BinaryIO, compression: str, limits: UnpackingLimits, name: str
    ) -> None:
        self._file = file
        self._packed = _CountedFile(file)
        opener = _OPENERS[compression]
        self._unpacked = opener(io.BufferedReader(self._packed, MIB))
        self._limits = limits
        self._name = name
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._unpacked.read(len(buffer))
        size = len(piece)
        self._size += size
        self._limits.check_size(self._size, self._name)
        self._limits.check_ratio(self._size, self._packed.size, self._name)
        buffer[:size] = piece
        return size

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class _CountedFile(io.RawIOBase):
    """A file, and how many bytes of it were read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._file.read(len(buffer))
        self.size += len(piece)
        buffer[: len(piece)] = piece
        return len(piece)


def _open_zstd(file: BinaryIO) -> BinaryIO:
    # pyarrow is always there and reads every frame; other packages end with the first one.
    import pyarrow as pa

    return cast(BinaryIO, pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd"))


class _Streams(io.RawIOBase):
    """What several streams hold, one packed after the other. Python's own readers stop in silence
    where what follows is none.
    """

    def __init__(self, file: BinaryIO, start: Callable[[], Any], padding: int = 0) -> None:
        self._file = file
        self._start = start
        self._padding = padding  # zeros between streams come by so many; 0 where none may
        self._decoder = start()
        self._rest = b""  # read, and not yet unpacked
        self._is_first = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = b""
        while not piece and (not self._decoder.eof or self._begin_next()):
            if self._decoder.needs_input and not self._rest:
                self._rest = self._file.read(MIB)
                if not self._rest:
                    raise EOFError("Compressed file ended before the end-of-stream marker")
            data, self._rest = self._rest, b""
            piece = self._unpack(data, len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def _begin_next(self) -> bool:
        """Whether another stream follows."""
        self._rest = self._decoder.unused_data or self._file.read(MIB)
        zeros = 0
        while self._padding and self._rest.startswith(b"\0"):
            stripped = self._rest.lstrip(b"\0")
            zeros += len(self._rest) - len(stripped)
            self._rest = stripped or self._file.read(MIB)
        if self._padding and zeros % self._padding:
            raise OSError("the padding after its end is damaged")
        self._is_first = False
        if self._rest:
            self._decoder = self._start()
        return bool(self._rest)

    def _unpack(self, data: bytes, size: int) -> bytes:
        try:
            piece: bytes = self._decoder.decompress(data, size)
        except (OSError, lzma.LZMAError) as error:
            if self._is_first:
                raise
            raise OSError(f"more follows after its end, which is damaged ({error})") from None
        return piece


def _open_bz2(file: BinaryIO) -> BinaryIO:
    return io.BufferedReader(_Streams(file, bz2.BZ2Decompressor))


def _open_xz(file: BinaryIO) -> BinaryIO:
    return io.BufferedReader(_Streams(file, lzma.LZMADecompressor, padding=4))


def _open_gzip(file: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(fileobj=file))


_OPENERS: dict[str, Callable[[Any], Any]] = {
    "gzip": _open_gzip,
    "bz2": _open_bz2,
    "xz": _open_xz,
    "zstd": _open_zstd,
}
