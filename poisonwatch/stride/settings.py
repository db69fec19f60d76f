"""The dials, resolved for one model and one number of rows."""

from dataclasses import dataclass

from poisonwatch.config import StrideConfig, TrainingConfig
from poisonwatch.errors import ConfigError
from poisonwatch.stride.operator_memory import OperatorMemory
from poisonwatch.text.words import plural

# Least and most suspects; a tenth of the rows between.
SHORTLIST_RANGE = (32, 512)

# Of the depth: the blocks below which rows are measured as well.
FURTHER = (0.6, 0.8)

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
    further: tuple[int, ...] = ()
    """Blocks above `layer` below which rows are measured as well."""


def measures_rows_alone(stride: StrideConfig, n: int) -> bool:
    """Whether each of n rows is a subset of its own, measured in one stream (`streamed`): the
    default, whatever n. Any setting that asks for something else of the subsets' operators makes
    them be fitted and kept.
    """
    closed_form = stride.fit == "natural-gradient" and stride.measurement == "first-order"
    alone = stride.K in (None, n) and stride.d in (None, 1)
    return closed_form and alone and stride.recovery == "kriging"


def resolve_settings(
    stride: StrideConfig, depth: int, width: int, n: int, known: int | None = None
) -> Settings:
    """Derive what the user left open, from the model's depth and width D, the number of rows n, and
    how many rows' gradients are `known` before the pass (default: the background's).

    K = n and d = 1 where every row is measured alone, whatever the memory. Where operators are
    kept, K = n while all that a fit holds is within the memory budget (`operator_memory`), and past
    it as many subsets as fit beside those of the suspects, with d = 3. Raises ConfigError where a
    given value makes no sense.
    """
    r = min(stride.r, width)
    layer = stride.layer
    if layer is None:
        layer = depth * 2 // 5
    shortlist = resolve_shortlist(stride, n)
    if measures_rows_alone(stride, n):
        further = resolve_further_layers(stride, layer, depth)
        return Settings(layer, r, K=n, d=1, shortlist=shortlist, K_most=n, further=further)
    if stride.further_layers:
        raise ConfigError(
            "stride.further_layers are measured where every row is measured alone: leave them out, "
            "or leave out stride.K, d, fit, measurement and recovery"
        )
    memory = _plan_memory(stride, r, width, n, shortlist, known)
    K, K_most = _resolve_subsets(stride, memory)
    d = _resolve_memberships(stride, n, K)
    return Settings(layer=layer, r=r, K=K, d=d, shortlist=shortlist, K_most=K_most)


def resolve_further_layers(stride: StrideConfig, layer: int, depth: int) -> tuple[int, ...]:
    """The layers above `layer` that rows are measured at as well: as given, or those of FURTHER of
    the depth that are above it.
    """
    if stride.further_layers is not None:
        return tuple(stride.further_layers)
    usual = {int(depth * share) for share in FURTHER}
    return tuple(sorted(above for above in usual if layer < above < depth))


def warn_of_few_subsets(settings: Settings, n: int) -> str | None:
    """What K subsets of n rows cost in precision, and what to do about it; None from n / 2 on.

    Mean average precision of 10 planted rows on the three hard cases of the data folder: .874 with
    a subset a row; among 50,000 rows .63 with the 14,500 subsets that 2 GB of operators are at a
    width of 576, and .14 with the 2,000 at 4,096; .05 with these among a million rows.
    """
    if n <= 2 * settings.K:
        return None
    return (
        f"{plural(settings.K, 'subset')} for {plural(n, 'row')}: the fewer subsets, the less "
        "precisely planted rows are found (average precision .87 with one a row, .63 with one for "
        "3 rows, .14 with one for 25, .05 with one for 500); leave out stride.K, d, fit, "
        "measurement and recovery, and each row is measured alone, at any number of rows"
    )


def _plan_memory(
    stride: StrideConfig, r: int, width: int, n: int, shortlist: int, known: int | None
) -> OperatorMemory:
    """What a fit takes that keeps operators."""
    if known is None:
        known = min(n, stride.background)
    training = build_training_settings(stride)
    step = training.rows_per_step * training.operators_per_row
    return OperatorMemory(stride, n, r, width, shortlist, known, step)


def count_operator_bytes(
    stride: StrideConfig, settings: Settings, width: int, n: int, trusted: int = 0
) -> int:
    """Bytes of a fit that keeps operators, with its recovery, beside the model: 0 where every row
    is measured alone.
    """
    if measures_rows_alone(stride, n):
        return 0
    known = min(n, trusted + stride.background)
    memory = _plan_memory(stride, settings.r, width, n, settings.shortlist, known)
    # No more rows are singled out than there are suspects, however many there is room for.
    single = min(settings.K_most - settings.K, stride.rounds * settings.shortlist)
    return memory.count_bytes(settings.K, single)


def count_kept_gradients(stride: StrideConfig, r: int, width: int) -> int:
    """How many rows' gradients, r x D float32 each, the memory budget has room for."""
    return int(stride.memory_gb * 2**30 // (4 * r * width))


def resolve_shortlist(stride: StrideConfig, n: int) -> int:
    """How many suspects a round has: a tenth of the rows, within SHORTLIST_RANGE."""
    if stride.shortlist is not None:
        return min(n, stride.shortlist)
    least, longest = SHORTLIST_RANGE
    return min(n, max(least, n // 10), longest)


def _resolve_subsets(stride: StrideConfig, memory: OperatorMemory) -> tuple[int, int]:
    """K, as given, one subset a row, or what leaves room for the suspects of every round; and how
    many subsets there may be with these.
    """
    K, n, budget = stride.K, memory.n, stride.memory_gb * 2**30
    # Single rows are added to a closed form alone.
    suspects = stride.rounds * memory.shortlist * (stride.fit != "sgd")
    if K is not None and n < K:
        raise ConfigError(
            f"stride.K is {K}, but there are only {plural(n, 'row')}: "
            f"choose at most {n}, or leave it out"
        )
    # One subset a row leaves nothing to recover: it is taken wherever there is room.
    if K in (None, n) and memory.count_bytes(n) <= budget:
        if stride.d in (None, 1):
            return n, n
        K = n

    def part_room(subsets: int) -> tuple[int, int]:
        """Shared subsets, and single rows after them: at most a quarter, however many suspects."""
        single = min(suspects, subsets // 4)
        if K is None:
            return subsets - single, single
        return K, subsets - K

    least = 2 if K is None else K
    if memory.count_bytes(*part_room(least)) > budget:
        if K is not None:
            # What is asked for is done, without single rows.
            return K, K
        needed = memory.count_bytes(*part_room(least)) / 2**30
        raise ConfigError(
            f"stride.memory_gb is {stride.memory_gb}, but a fit that keeps operators takes at "
            f"least {needed:.2g} here: raise it, or lower stride.background"
        )
    # Memory grows with the subsets: the most of them are between what fits and what does not.
    fits, most = least, n + suspects + 1
    while most - fits > 1:
        middle = (fits + most) // 2
        if memory.count_bytes(*part_room(middle)) <= budget:
            fits = middle
        else:
            most = middle
    return part_room(fits)[0], fits


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
