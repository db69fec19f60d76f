from dataclasses import dataclass

from poisonwatch.config import StrideConfig
from poisonwatch.errors import ConfigError

SHORTLIST_RANGE = (32, 512)  # least and most suspects; a tenth of the rows between


@dataclass(frozen=True, slots=True)
class Settings:
    """The attribution's dials, resolved for one model and one number of rows."""

    layer: int
    r: int
    K: int
    d: int
    shortlist: int
    K_most: int  # subsets that the memory budget holds, those of single suspects included
    memory_bytes: int  # K x r x D float32


def resolve_settings(stride: StrideConfig, depth: int, width: int, n: int) -> Settings:
    """Derive what the user left open, from the model's depth and width D and the number of rows n.

    K = n while the operators fit the memory budget: one subset a row and exact recovery. Past it,
    as many subsets as fit beside those of
    the suspects, with d = 3. Raises ConfigError where a given value makes no sense.
    """
    r = min(stride.r, width)
    most = int(stride.memory_gb * 2**30 // (4 * r * width))
    if most < 2:
        raise ConfigError(
            f"stride.memory_gb is {stride.memory_gb}, less than two operators take: raise it"
        )
    least, longest = SHORTLIST_RANGE
    shortlist = min(
        n, stride.shortlist if stride.shortlist is not None else min(max(least, n // 10), longest)
    )
    reserved = min(stride.rounds * shortlist, most // 4)
    K = stride.K if stride.K is not None else n if n <= most else most - reserved
    if n < K:
        raise ConfigError(
            f"stride.K is {K}, but there are only {n} rows: choose at most {n}, or leave it out"
        )
    d = stride.d if stride.d is not None else 1 if n == K else min(3, K)
    if d > K:
        raise ConfigError(
            f"stride.d is {d}, but there are only {K} subsets: choose at most {K}, or leave it out"
        )
    layer = stride.layer if stride.layer is not None else depth * 2 // 5
    return Settings(layer, r, K, d, shortlist, max(most, K), 4 * K * r * width)


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """The training's dials. Weights and `lr` are free of units: `lr` is the typical relative shift
    of a state that one Adam step makes.
    """

    epochs: int = 4
    """How often every row is met."""
    lr: float = 1e-3
    operators_per_row: int = 8
    """m: the d operators of a row's own subsets, and m - d others."""
    rows_per_step: int = 8
    stability: float = 1.0
    linearity: float = 1.0
    gamma: float = 1.0
    """Ridge of the linearity loss, in rows: the sketch's Gram matrix has about |A_k| on its diagonal."""
    sketch: int = 16
    """p: columns of the sketch M~ = M R."""
    clip: float = 1.0
    """Longest gradient of a step, by a in units of the state's length and by U in units of its own."""
    shift: float = 0.005
    """Typical relative shift ||z~ - z|| / ||z|| that the trained operators are scaled to."""
    token_budget: int = 2048
    """Padded tokens of (row, operator) pairs in one forward pass; a row and its m operators always go together."""
    checkpoint_every: int = 100
    """Steps between two checkpoints."""
