"""Rows as a notebook holds them, on their way into an audit and back out of it.

list of records, pandas DataFrame, datasets.Dataset     written to a file of the audit's folder
path, glob, URL, or a mapping as `source` takes it      read where they are
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import numpy as np
import pandas as pd

from poisonwatch.atomic import replace_file
from poisonwatch.errors import InputError
from poisonwatch.text.environment import expand_home

# What rows of a notebook may be.
Rows: TypeAlias = (
    str | Path | Mapping[str, Any] | Sequence[Mapping[str, Any]] | pd.DataFrame | datasets.Dataset
)


class GivenRows(ABC):
    """Rows in the type that they were given in."""

    @abstractmethod
    def list_records(self) -> Iterable[Mapping[str, Any]]:
        """The rows in order, as plain records."""

    @abstractmethod
    def choose(self, numbers: Sequence[int]) -> Any:
        """The rows of these numbers, from 0, in the type that they were given in."""

    @property
    @abstractmethod
    def labels(self) -> Sequence[Any]:
        """What rows are called where they come from, in order."""


class GivenList(GivenRows):
    """A list of records, or another sequence of them."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._rows = list(rows)

    def list_records(self) -> Iterable[Mapping[str, Any]]:
        return self._rows

    def choose(self, numbers: Sequence[int]) -> list[Mapping[str, Any]]:
        return [self._rows[number] for number in numbers]

    @property
    def labels(self) -> Sequence[Any]:
        return range(len(self._rows))


class GivenFrame(GivenRows):
    """A DataFrame; what pandas says is missing is no part of its row."""

    def __init__(self, frame: pd.DataFrame) -> None:
        # later changes are none of this audit's
        self._frame = frame.copy()

    def list_records(self) -> Iterable[Mapping[str, Any]]:
        for record in self._frame.to_dict("records"):
            yield {str(name): value for name, value in record.items() if not _is_missing(value)}

    def choose(self, numbers: Sequence[int]) -> pd.DataFrame:
        return self._frame.iloc[list(numbers)]

    @property
    def labels(self) -> Sequence[Any]:
        return list(self._frame.index)


class GivenDataset(GivenRows):
    """One split of a data set."""

    def __init__(self, rows: datasets.Dataset) -> None:
        self._rows = rows

    def list_records(self) -> Iterable[Mapping[str, Any]]:
        yield from self._rows

    def choose(self, numbers: Sequence[int]) -> datasets.Dataset:
        return self._rows.select(list(numbers))

    @property
    def labels(self) -> Sequence[Any]:
        return range(len(self._rows))


def take_rows(rows: Any, what: str) -> GivenRows | dict[str, Any]:
    """The rows, or the settings of a source that has them; `what` is what errors call them.

    Raises InputError where they are of no type that is known.
    """
    if isinstance(rows, (str, Path)):
        return {"path": _make_absolute(str(rows))}
    # is a mapping, too
    if isinstance(rows, datasets.DatasetDict):
        splits = ", ".join(map(str, rows))
        raise InputError(f"{what} is a data set of several splits ({splits}): give one of them")
    if isinstance(rows, Mapping):
        return dict(rows)
    if isinstance(rows, pd.DataFrame):
        return GivenFrame(rows)
    if isinstance(rows, datasets.Dataset):
        return GivenDataset(rows)
    if isinstance(rows, Sequence) and all(isinstance(row, Mapping) for row in rows):
        return GivenList(rows)
    raise InputError(
        f"{what} is of the type {type(rows).__name__}: give a list of dictionaries, a pandas "
        "DataFrame, a datasets.Dataset, or a path, glob or URL"
    )


def write_rows(rows: GivenRows, file: Path) -> None:
    """One JSON object a line, in order. Raises InputError where a row holds what JSON cannot."""
    lines = []
    for number, record in enumerate(rows.list_records()):
        try:
            lines.append(json.dumps(dict(record), ensure_ascii=False, default=_to_plain))
        except (TypeError, ValueError) as error:
            raise InputError(f"row {number} cannot be audited: {error}") from None
    if not lines:
        raise InputError("there are no rows to audit: give one at least")
    with replace_file(file) as part:
        part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _make_absolute(place: str) -> str:
    # the audit file lies elsewhere, and its paths start there
    if "://" in place or place.startswith("${"):
        return place
    return str(expand_home(place).absolute())


def _is_missing(value: Any) -> bool:
    return pd.api.types.is_scalar(value) and bool(pd.isna(value))


def _to_plain(value: Any) -> Any:
    """Values of numpy and of Python that JSON has no form of its own for."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (date, datetime, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"JSON has no form for a {type(value).__name__}: leave that column out")
