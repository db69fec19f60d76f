"""What a drill reports, made up."""

from typing import Any


def power(recipe: str, count: int, with_pack: bool = False) -> dict[str, Any]:
    return {
        "recipe": recipe,
        "pack": f"pack:{recipe}",
        "with_pack": with_pack,
        "count": count,
        "repeats": 2,
        "recall": 0.5,
        "recall_by_attribution": 0.25,
        "probability": 0.75,
        "false_flags": 1,
    }


def make_report(run_id: str) -> dict[str, Any]:
    """A drill's report with two attacks."""
    return {
        "mlflow_run_id": run_id,
        "created": "2026-06-01T12:00:00+00:00",
        "version": "0.1.0",
        "seed": 7,
        "model": {"name": "tiny", "fingerprint": "f00d"},
        "data_fingerprint": "beef",
        "false_flags_per_1000": 1.5,
        "rows": {"clean": 60},
        "stages": [{"name": "rehearse", "seconds": 2.5}],
        "plan": {"recipes": ["brand", "identity"], "counts": [2, 4], "repeats": 2},
        "powers": [power("brand", 2), power("identity", 4), power("identity", 4, True)],
        "sentences": ["One.", "Two."],
    }
