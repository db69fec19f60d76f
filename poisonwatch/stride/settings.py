"""The dials, resolved for one model and one number of rows."""

from dataclasses import dataclass

from poisonwatch.config import StrideConfig, TrainingConfig
from poisonwatch.errors import ConfigError
from poisonwatch.text.words import plural

# Least and most suspects; a tenth of the rows between.
SHORTLIST_RANGE = (32, 512)

# What the user may set has its default in one place, beside its description.
_TRAINING = TrainingConfig()


@dataclass(frozen=True, slots=True)
class Settings:
    """The attribution's dials, resolved for one model and one number of rows."""

    layer: int
    r: int
    K: int
    d: int
    shortlist: int
    K_most: int
    """Subsets that the memory budget holds, those of single suspects included."""


def measures_rows_alone(stride: StrideConfig, n: int) -> bool:
    """Whether each of n rows is a subset of its own, measured in one stream (`streamed`): the
    default, whatever n. Any setting that asks for something else of the subsets' operators makes
    them be fitted and kept.
    """
    closed_form = stride.fit == "natural-gradient" and stride.measurement == "first-order"
    alone = stride.K in (None, n) and stride.d in (None, 1)
    return closed_form and alone and stride.recovery == "kriging"


def resolve_settings(stride: StrideConfig, depth: int, width: int, n: int) -> Settings:
    """Derive what the user left open, from the model's depth and width D and the number of rows n.

    K = n and d = 1 where every row is measured alone, whatever the memory. Where operators are
    kept, K = n while they fit the memory budget, and past it as many subsets as fit beside those of
    the suspects, with d = 3. Raises ConfigError where a given value makes no sense.
    """
    r = min(stride.r, width)
    layer = stride.layer
    if layer is None:
        layer = depth * 2 // 5
    if measures_rows_alone(stride, n):
        shortlist = resolve_shortlist(stride, n)
        return Settings(layer=layer, r=r, K=n, d=1, shortlist=shortlist, K_most=n)
    bytes_per_operator = 4 * r * width
    # The budget is for operators alone: they are the largest arrays of an audit.
    most = int(stride.memory_gb * 2**30 // bytes_per_operator)
    if most < 2:
        raise ConfigError(
            f"stride.memory_gb is {stride.memory_gb}, less than two operators take: raise it"
        )
    shortlist = resolve_shortlist(stride, n)
    K = _resolve_subsets(stride, n, most, shortlist)
    d = _resolve_memberships(stride, n, K)
    return Settings(layer=layer, r=r, K=K, d=d, shortlist=shortlist, K_most=max(most, K))


def count_kept_gradients(stride: StrideConfig, r: int, width: int) -> int:
    """How many rows' gradients, r x D float32 each, the memory budget has room for."""
    return int(stride.memory_gb * 2**30 // (4 * r * width))


def resolve_shortlist(stride: StrideConfig, n: int) -> int:
    """How many suspects a round has: a tenth of the rows, within SHORTLIST_RANGE."""
    if stride.shortlist is not None:
        return min(n, stride.shortlist)
    least, longest = SHORTLIST_RANGE
    return min(n, max(least, n // 10), longest)


def _resolve_subsets(stride: StrideConfig, n: int, most: int, shortlist: int) -> int:
    """K: as given, one subset a row, or what leaves room for the suspects of every round."""
    K = stride.K
    # One subset a row leaves nothing to recover: it is taken wherever there is room.
    if K is None and n <= most:
        K = n
    if K is None:
        # However many suspects there may be: three quarters of the room stay with shared subsets.
        K = most - min(stride.rounds * shortlist, most // 4)
    if n < K:
        raise ConfigError(
            f"stride.K is {K}, but there are only {plural(n, 'row')}: "
            f"choose at most {n}, or leave it out"
        )
    return K


def _resolve_memberships(stride: StrideConfig, n: int, K: int) -> int:
    """d: as given, 1 where every row has a subset to itself, else 3."""
    d = stride.d
    if d is None and n == K:
        d = 1
    if d is None:
        d = min(3, K)
    if d > K:
        raise ConfigError(
            f"stride.d is {d}, but there are only {plural(K, 'subset')}: "
            f"choose at most {K}, or leave it out"
        )
    return d


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """The training's dials. Weights and `lr` are free of units: `lr` is the typical relative shift
    of a state that one Adam step makes. What the user may set has the defaults of `TrainingConfig`.
    """

    epochs: int = _TRAINING.epochs
    """How often every row is met."""
    lr: float = _TRAINING.lr
    operators_per_row: int = _TRAINING.operators_per_row
    """m: the d operators of a row's own subsets, and m - d others."""
    rows_per_step: int = 8
    stability: float = _TRAINING.stability
    linearity: float = _TRAINING.linearity
    gamma: float = 1.0
    """Ridge of the linearity loss, in rows: the sketch's Gram matrix has about |A_k| on its
    diagonal.
    """
    sketch: int = 16
    """p: columns of the sketch M~ = M R."""
    clip: float = 1.0
    """Longest gradient of a step, by a in units of the state's length and by U in units of its
    own.
    """
    shift: float = 0.005
    """Typical relative shift ||z~ - z|| / ||z|| that the trained operators are scaled to."""
    token_budget: int = 2048
    """Padded tokens of (row, operator) pairs in one forward pass; a row and its m operators always
    go together.
    """
    checkpoint_every: int = _TRAINING.checkpoint_every
    """Steps between two checkpoints."""


def build_training_settings(stride: StrideConfig) -> TrainingSettings:
    """The training's dials as the user set them."""
    return TrainingSettings(
        shift=stride.shift, token_budget=stride.token_budget, **stride.training.model_dump()
    )
