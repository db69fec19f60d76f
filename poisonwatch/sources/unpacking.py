"""Packed files, unpacked as they are read; one that grows beyond all measure is given up."""

import bz2
import gzip
import io
import lzma
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


def limit_rows(
    rows: Iterable[RawRow], packed: int | None, limits: UnpackingLimits, name: str
) -> Iterator[RawRow]:
    """The rows of a file that packs its columns itself into `packed` bytes (None: nobody knows).

    Raises SourceError where they go beyond the limits: a dictionary can stand for a text in any
    number of rows.
    """
    size = beyond = 0
    for row in rows:
        size += len(row.raw)
        limits.check_size(size, name)
        # What every row is kept with says nothing of the file.
        beyond += max(0, len(row.raw) - ROW_FRAME_BYTES)
        if packed is not None:
            limits.check_ratio(beyond, packed, name)
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


def _open_gzip(file: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(fileobj=file))


_OPENERS: dict[str, Callable[[Any], Any]] = {
    "gzip": _open_gzip,
    "bz2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
    "zstd": _open_zstd,
}
