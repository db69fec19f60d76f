"""What an audit scored, row by row, by its `scores.parquet`: of one row, and of all of them."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from poisonwatch.run_directory.pairs import read_lines
from poisonwatch.run_directory.read import read_cached

SCORES_FILE = "scores.parquet"
COLUMNS = ["example_id", "source", "position", "panel", "score", "p_value", "q_value"]


@dataclass(frozen=True, slots=True)
class RowScore:
    """A row's score on a panel: robust standard deviations from the median row; `position` is
    zero-based.
    """

    example_id: str
    source: str
    position: int
    panel: str
    score: float
    p_value: float
    q_value: float


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """The rows of one file in an audit: how many, how many of them flagged, and their scores."""

    source: str
    rows: int
    flagged: int
    median_score: float
    largest_score: float


def read_row_scores(run_dir: Path | None, example_id: str) -> list[RowScore]:
    """The scores of one row, one a panel, strongest first; none where the audit left none. Raises
    RunError where the file is not what the audit wrote.
    """
    nothing = pa.table({name: [] for name in COLUMNS})
    lines = read_cached(_read_lines_of, nothing, run_dir, SCORES_FILE, example_id)
    best: dict[str, RowScore] = {}
    for line in lines.to_pylist():
        score = RowScore(**line)
        best.setdefault(score.panel, score)
    return sorted(best.values(), key=lambda score: -score.score)


def list_row_scores(
    run_dir: Path | None, source: str = "", page: int = 1, size: int = 50
) -> tuple[list[RowScore], int]:
    """The `page`th `size` rows of an audit (of a file), each by the panel that it scores highest
    on, strongest first; and how many there are in all. Raises what `read_row_scores` does.
    """
    ranked = _rank(run_dir)
    if source:
        ranked = ranked.filter(pc.equal(ranked["source"], source))
    some = ranked.slice((page - 1) * size, size)
    return [RowScore(**line) for line in some.to_pylist()], ranked.num_rows


def summarise_sources(run_dir: Path | None, flagged: Collection[str]) -> list[SourceSummary]:
    """Each file of an audit's rows, `flagged` being the ids of those that it flagged; the one with
    the largest score first. Raises what `read_row_scores` does.
    """
    ranked = _rank(run_dir)
    is_flagged = pc.is_in(ranked["example_id"], pa.array(sorted(flagged), pa.string()))
    columns = ranked.append_column("flagged", pc.cast(is_flagged, pa.int64()))
    summaries = []
    for source in pc.unique(columns["source"]).to_pylist():
        of_file = columns.filter(pc.equal(columns["source"], source))
        scores = of_file["score"].to_numpy()
        summary = SourceSummary(
            source=source,
            rows=of_file.num_rows,
            flagged=pc.sum(of_file["flagged"]).as_py(),
            median_score=float(np.median(scores)),
            largest_score=float(scores[0]),
        )
        summaries.append(summary)
    return summaries


def _rank(run_dir: Path | None) -> Any:
    nothing = pa.table({name: pa.array([], pa.string()) for name in COLUMNS})
    return read_cached(_read_ranked, nothing, run_dir, SCORES_FILE, keep=_keep_one)


# Of the audit that somebody pages through.
@lru_cache(maxsize=2)
def _keep_one(parse: Any, _: int, path: Path) -> Any:
    return parse(path)


def _read_lines_of(path: Path, example_id: str) -> Any:
    return read_lines(path, "example_id", [example_id], COLUMNS)


def _read_ranked(path: Path) -> Any:
    """Each row once, by its highest score; in order of it."""
    table = pq.read_table(path, columns=COLUMNS)
    table = table.filter(pc.is_finite(table["score"]))
    table = table.take(pc.sort_indices(table, [("score", "descending")]))
    codes = table["example_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    _, first = np.unique(codes, return_index=True)
    return table.take(pa.array(np.sort(first)))
