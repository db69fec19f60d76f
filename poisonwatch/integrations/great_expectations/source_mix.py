"""An expectation that Great Expectations does not have: that rows come from where they used to."""

from typing import Any

from great_expectations.expectations.expectation import ColumnAggregateExpectation

from poisonwatch.validation import compute_mix_distance, estimate_chance_distance


class ExpectSourceMixToBeNear(ColumnAggregateExpectation):
    """Expect the shares of a column's values to be within a total variation distance of earlier
    ones.
    """

    shares: dict[str, float]
    max_value: float

    metric_dependencies = ("column.value_counts",)
    success_keys = ("shares", "max_value")

    def _validate(
        self,
        metrics: dict[str, Any],
        runtime_configuration: Any = None,  # noqa: ARG002  (Great Expectations calls it so)
        execution_engine: Any = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        counts = {str(value): int(count) for value, count in metrics["column.value_counts"].items()}
        total = sum(counts.values())
        if not total:
            return {"success": True, "result": {"observed_value": "no rows"}}
        shares = {value: count / total for value, count in counts.items()}
        distance = compute_mix_distance(shares, self.shares)
        # A few rows are far from any mix by chance alone.
        allowed = self.max_value + estimate_chance_distance(self.shares, total)
        return {"success": distance <= allowed, "result": {"observed_value": f"{distance:.0%}"}}
