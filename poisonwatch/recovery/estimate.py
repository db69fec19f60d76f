from dataclasses import dataclass

from poisonwatch.arrays import Array


@dataclass(frozen=True, slots=True)
class Estimate:
    """Coefficients w (n, Q) with the recovery's certificate, and the phantoms' quantile (Q,) where
    there were any.
    """

    w: Array
    certificate: float
    decoy_quantile: Array | None = None
