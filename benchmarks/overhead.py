"""What everything beside attribution costs an audit: Prefect, validation, MLflow, report, ledger,
alerts.

    python benchmarks/overhead.py [--rows 2000] [--trusted 400]

One audit as a flow run on a Prefect server that is up, tracked by an MLflow server that is up, on a
small random model: attribution takes next to nothing, the rest takes what it takes with any model,
but for the size of the operators. Seconds by stage, and of the whole call.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

ATTRIBUTION = {
    "find_model",
    "load_model",
    "check_sentinels",
    "screen",
    "add_copies",
    "fit_operators",
    "recover",
    "judge",
    "gather_evidence",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--trusted", type=int, default=400)
    asked = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
    from audits import benign, planted, write_audit, write_rows
    from prefect.testing.utilities import prefect_test_harness
    from servers import mlflow_server
    from tiny_models import build_model, build_tokenizer

    from poisonwatch.flows import audit as flow

    costs: dict[str, float] = {}
    timed = flow.Engine.__call__

    def kept(self: flow.Engine, task: object, *args: object) -> object:
        try:
            return timed(self, task, *args)  # type: ignore[arg-type]
        finally:
            cost = self.clock.costs[-1]
            costs[cost.name] = costs.get(cost.name, 0.0) + cost.seconds

    flow.Engine.__call__ = kept  # type: ignore[method-assign, assignment]
    with (
        tempfile.TemporaryDirectory() as name,
        mlflow_server(Path(name) / "mlflow") as tracking,
        prefect_test_harness(120),
    ):
        folder = Path(name)
        build_model("llama").save_pretrained(folder / "model")
        build_tokenizer().save_pretrained(folder / "model")
        rows = [*benign(asked.rows - 3, start=10_000), *planted()]
        config = write_audit(folder / "audit", folder / "model", rows, tracking=tracking)
        write_rows(folder / "audit" / "trusted.jsonl", benign(asked.trusted, start=50_000))
        start = time.perf_counter()
        outcome = flow.audit(str(config), str(folder / "run"))
        whole = time.perf_counter() - start
    attribution = sum(seconds for name, seconds in costs.items() if name in ATTRIBUTION)
    beside = {name: round(seconds, 2) for name, seconds in costs.items() if name not in ATTRIBUTION}
    found = {
        "rows": outcome.summary["counts"]["new"],
        "flagged": outcome.summary["counts"]["flagged"],
        "whole": round(whole, 1),
    }
    print(
        json.dumps(
            {
                **found,
                "attribution": round(attribution, 1),
                "beside attribution": round(whole - attribution, 1),
                **beside,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
