"""What an audit recovered, in a file: benchmarks judge the same audits again and again."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from poisonwatch.atomic import replace_file
from poisonwatch.recovery.neighbour_graph import NeighbourGraph
from poisonwatch.recovery.neighbours import find_neighbours
from poisonwatch.stride.influence import Influence, LayerInfluence, Query

ARRAYS = ("w", "first_pass", "suspects", "mutual_influence", "features")
# What not every fit looks at.
ANSWERS = ("leaning", "wording")


def save_influence(path: Path, influence: Influence) -> None:
    """Write it, whole or not at all; without its queries."""
    arrays = {name: getattr(influence, name) for name in (*ARRAYS, *ANSWERS)}
    for number, layer in enumerate(influence.further):
        graph = layer.neighbours
        arrays |= {f"w{number}": layer.w, f"neighbours{number}": graph.rows}
        arrays[f"similarity{number}"] = graph.similarity
    kept = {name: values for name, values in arrays.items() if values is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as part, part.open("wb") as file:
        np.savez(file, certificate=influence.certificate, **kept)


def load_influence(path: Path, queries: tuple[Query, ...]) -> Influence:
    """What was written, of these queries."""
    stored = np.load(path)
    further = []
    while f"w{len(further)}" in stored:
        number = len(further)
        graph = NeighbourGraph(stored[f"neighbours{number}"], stored[f"similarity{number}"])
        further.append(LayerInfluence(stored[f"w{number}"], graph))
    arrays: dict[str, NDArray] = {name: stored[name] for name in ARRAYS}
    return Influence(
        queries=queries,
        neighbours=find_neighbours(stored["features"]),
        certificate=float(stored["certificate"]),
        further=tuple(further),
        leaning=stored.get("leaning"),
        wording=stored.get("wording"),
        **arrays,
    )
