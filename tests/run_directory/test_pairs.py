"""Tables of rows and sentinels, written and read a row group at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poisonwatch.examples import Example, Message
from poisonwatch.run_directory import pairs
from poisonwatch.run_directory.pairs import read_lines, read_places, write_pairs
from poisonwatch.sentinels.sentinel import Sentinel

N, S = 25, 4
PLACES = ("example_id", "source", "position", "sentinel_id", "panel")
SENTINELS = [
    Sentinel(f"s-{k}", (Message("user", "?"),), "yes", None, "ab"[k % 2]) for k in range(S)
]
ROWS = [
    Example.from_messages([Message("user", f"row {i}")], f"file {i % 3}\u202e.jsonl", i)
    for i in range(N)
]
DRAW = np.random.default_rng(0)
COEFFICIENTS, SCORES = DRAW.normal(size=(N, S)).astype(np.float32), DRAW.normal(size=(N, 2))


class Once(Sequence[Example]):
    """Rows that are made when they are looked at, and may be looked at once."""

    def __init__(self) -> None:
        self.passes = 0

    def __len__(self) -> int:
        return N

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Example]: ...
    def __getitem__(self, place: int | slice) -> Example | Sequence[Example]:
        raise AssertionError("rows are to be iterated over")

    def __iter__(self) -> Iterator[Example]:
        self.passes += 1
        return iter(ROWS)


def expected() -> pd.DataFrame:
    """The table, pair by pair."""
    lines = []
    for i, row in enumerate(ROWS):
        for k, sentinel in enumerate(SENTINELS):
            place = (row.id, row.source, row.position, sentinel.id, sentinel.panel)
            lines.append((*place, float(COEFFICIENTS[i, k]), SCORES[i, k % 2]))
    return pd.DataFrame(lines, columns=[*PLACES, "coefficient", "score"])


@pytest.fixture(params=[1, 7, 8192])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The table in row groups of one row, of some, and of all."""
    monkeypatch.setattr(pairs, "ROWS_IN_GROUP", request.param)
    rows = Once()
    write_pairs(
        tmp_path / "pairs.parquet",
        rows,
        SENTINELS,
        places=PLACES,
        values={"coefficient": (COEFFICIENTS, None), "score": (SCORES, [0, 1, 0, 1])},
    )
    assert rows.passes == 1
    return tmp_path / "pairs.parquet"


def test_a_file_has_a_line_for_every_pair_in_the_order_of_the_rows(path: Path) -> None:
    """Whatever the row groups; numbers come back to the bit, texts and types as anybody reads
    them.
    """
    table = pq.read_table(path)
    pd.testing.assert_frame_equal(table.to_pandas(), expected())
    kinds = [table.schema.field(name).type for name in table.column_names]
    text = pa.string()
    assert kinds == [text, text, pa.int64(), text, text, pa.float64(), pa.float64()]


def test_lines_are_found_by_row_and_by_sentinel(path: Path) -> None:
    """As a filter over the whole table finds them, with the columns in the order asked for."""
    whole, columns = expected(), ["score", "sentinel_id"]
    for column, wanted in (
        ("example_id", [ROWS[20].id, ROWS[3].id, "0" * 64]),
        ("sentinel_id", ["s-2"]),
        ("panel", ["a", "b"]),
        ("panel", []),
    ):
        found = read_lines(path, column, wanted, columns)
        assert found.column_names == columns
        chosen = whole[whole[column].isin(wanted)][columns].reset_index(drop=True)
        assert found.to_pylist() == chosen.to_dict("records")


def test_every_row_has_one_place(path: Path) -> None:
    """Id, source and position, in the order of the rows."""
    places = read_places(path).to_pylist()
    assert places == [
        {"example_id": row.id, "source": row.source, "position": row.position} for row in ROWS
    ]


def test_files_written_whole_by_earlier_versions_are_read_alike(tmp_path: Path) -> None:
    """Plain strings in one row group, with Arrow's schema."""
    old = tmp_path / "old.parquet"
    pq.write_table(pa.Table.from_pandas(expected(), preserve_index=False), old)
    lines = read_lines(old, "sentinel_id", ["s-1"], ["coefficient"])
    assert lines["coefficient"].to_pylist() == COEFFICIENTS[:, 1].tolist()
    assert read_places(old)["position"].to_pylist() == list(range(N))


def test_no_rows_leave_a_table_without_lines(tmp_path: Path) -> None:
    """With its columns, so that readers find what they ask for."""
    empty = tmp_path / "empty.parquet"
    nothing = np.zeros((0, S))
    write_pairs(empty, [], SENTINELS, places=PLACES, values={"coefficient": (nothing, None)})
    assert pq.read_table(empty).column_names == [*PLACES, "coefficient"]
    assert read_lines(empty, "example_id", ["x"], ["panel"]).num_rows == 0
    assert read_places(empty).num_rows == 0


def test_a_table_may_lack_columns(tmp_path: Path) -> None:
    """As that of trusted rows does: what is asked for is found, or an error."""
    few = tmp_path / "few.parquet"
    write_pairs(
        few,
        ROWS,
        SENTINELS,
        places=("example_id", "sentinel_id"),
        values={"coefficient": (COEFFICIENTS, None)},
    )
    found = read_lines(few, "sentinel_id", ["s-3"], ["coefficient"])
    assert found["coefficient"].to_pylist() == COEFFICIENTS[:, 3].tolist()
    assert read_places(few).to_pylist() == [{"example_id": row.id} for row in ROWS]
    with pytest.raises(LookupError, match="panel"):
        read_lines(few, "sentinel_id", ["s-3"], ["panel"])
