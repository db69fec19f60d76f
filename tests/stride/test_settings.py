"""What is derived for a fit from the model and the number of rows."""

from dataclasses import replace

import pytest

from poisonwatch.config import StrideConfig
from poisonwatch.errors import ConfigError
from poisonwatch.stride.operator_memory import OperatorMemory
from poisonwatch.stride.settings import (
    Settings,
    count_kept_gradients,
    measures_rows_alone,
    resolve_settings,
    warn_of_few_subsets,
)


def test_settings_left_open_are_derived() -> None:
    """layer = 2/5 of the depth; r <= D; K = n, d = 1; a tenth of the rows is shortlisted. Operators
    that are kept are as many while they fit the memory.
    """
    found = resolve_settings(StrideConfig(), depth=30, width=576, n=1000)
    assert found == Settings(12, 64, K=1000, d=1, shortlist=100, K_most=1000, further=(18, 24))
    kept = resolve_settings(StrideConfig(measurement="forward"), depth=30, width=576, n=1000)
    assert kept == replace(found, further=())
    assert resolve_settings(StrideConfig(), depth=3, width=32, n=10).r == 32


@pytest.mark.parametrize(
    ("depth", "layer", "further"),
    [(1, None, ()), (3, None, (2,)), (28, None, (16, 22)), (30, 20, (24,)), (30, 29, ())],
)
def test_rows_are_measured_at_layers_above(
    depth: int, layer: int | None, further: tuple[int, ...]
) -> None:
    """Three and four fifths of the depth, as far as they are above the layer; or as given."""
    stride = StrideConfig(layer=layer)
    assert resolve_settings(stride, depth, width=8, n=10).further == further
    given = stride.model_copy(update={"further_layers": [depth - 1]})
    assert resolve_settings(given, depth, width=8, n=10).further == (depth - 1,)
    none = stride.model_copy(update={"further_layers": []})
    assert resolve_settings(none, depth, width=8, n=10).further == ()


def test_layers_above_need_rows_that_are_measured_alone() -> None:
    """Subsets have operators at one layer."""
    with pytest.raises(ConfigError, match=r"stride\.further_layers are measured where every row"):
        resolve_settings(StrideConfig(further_layers=[2], K=5, d=2), depth=3, width=8, n=10)


@pytest.mark.parametrize(("n", "shortlist"), [(10, 10), (100, 32), (1000, 100), (100_000, 512)])
def test_shortlist_is_a_tenth_within_bounds(n: int, shortlist: int) -> None:
    """min(n, clip(n / 10, 32, 512))."""
    assert resolve_settings(StrideConfig(), depth=3, width=32, n=n).shortlist == shortlist


@pytest.mark.parametrize("changes", [{}, {"recovery": "lasso"}, {"fit": "sgd"}, {"rounds": 0}])
@pytest.mark.parametrize("gigabytes", [1.5, 2.0, 2.5])
def test_settings_stay_within_the_memory_budget(
    changes: dict[str, object], gigabytes: float
) -> None:
    """Past the budget: K < n subsets, d = 3, and room for the suspects of every round; one subset
    more would take more than the budget.
    """
    kept = StrideConfig(**{"memory_gb": gigabytes, "measurement": "forward", **changes})
    settings = resolve_settings(kept, depth=30, width=576, n=20_000)
    memory = OperatorMemory(kept, 20_000, 64, 576, settings.shortlist, known=512, step=64)
    assert settings.K < 20_000
    assert settings.d == 3
    single = settings.K_most - settings.K
    suspects = 3 * settings.shortlist
    if "rounds" in changes or "fit" in changes:
        suspects = 0
    assert single == min(suspects, settings.K_most // 4)
    assert memory.count_bytes(settings.K, single) <= gigabytes * 2**30
    assert memory.count_bytes(settings.K + 2, single) > gigabytes * 2**30


def test_known_gradients_take_room_from_subsets() -> None:
    """The more trusted rows, whose gradients are known before the pass, the fewer subsets."""
    kept = StrideConfig(memory_gb=2.0, recovery="lasso", rounds=0, shortlist=1)
    few = resolve_settings(kept, depth=30, width=576, n=20_000)
    many = resolve_settings(kept, depth=30, width=576, n=20_000, known=5000)
    assert many.K == few.K - (5000 - 512)


def test_what_is_asked_for_is_done_whatever_the_memory() -> None:
    """K as given, and single rows after it as far as there is room."""
    asked = StrideConfig(K=5000, memory_gb=0.5)
    assert resolve_settings(asked, depth=30, width=576, n=20_000).K_most == 5000
    asked = StrideConfig(K=500, memory_gb=2.0)
    found = resolve_settings(asked, depth=30, width=576, n=20_000)
    assert found.K == 500
    assert found.K_most >= 500 + 3 * 512


@pytest.mark.parametrize(("K", "n", "told"), [(10, 10, False), (10, 20, False), (10, 21, True)])
def test_few_subsets_are_warned_of(K: int, n: int, told: bool) -> None:
    """Below K = n / 2: how many there are, what that costs, and what to leave out."""
    settings = resolve_settings(StrideConfig(K=K), depth=3, width=32, n=n)
    warning = warn_of_few_subsets(settings, n)
    assert (warning is not None) == told
    if warning is not None:
        assert warning.startswith("10 subsets for 21 rows: ")
        assert "leave out stride.K" in warning
        assert "\n" not in warning


def test_settings_given_are_kept() -> None:
    """What the user says stands."""
    found = resolve_settings(
        StrideConfig(layer=7, r=8, K=50, d=2, shortlist=5), depth=30, width=576, n=100
    )
    assert (found.layer, found.r, found.K, found.d, found.shortlist) == (7, 8, 50, 2, 5)
    assert resolve_settings(StrideConfig(K=100), depth=30, width=576, n=100).d == 1
    assert resolve_settings(StrideConfig(K=2), depth=30, width=576, n=100).d == 2


def test_settings_that_make_no_sense_are_refused_with_the_numbers() -> None:
    """K > n, d > K, and a memory budget below two operators."""
    with pytest.raises(
        ConfigError,
        match=r"stride\.K is 41, but there are only 40 rows: choose at most 40, or leave it out",
    ):
        resolve_settings(StrideConfig(K=41), depth=3, width=32, n=40)
    with pytest.raises(
        ConfigError,
        match=r"stride\.d is 9, but there are only 8 subsets: choose at most 8, or leave it out",
    ):
        resolve_settings(StrideConfig(K=8, d=9), depth=3, width=32, n=40)
    with pytest.raises(
        ConfigError,
        match=r"stride\.memory_gb is 1e-06, but a fit that keeps operators takes at least 0\.\d+ here: "
        r"raise it, or lower stride\.background",
    ):
        resolve_settings(
            StrideConfig(memory_gb=1e-6, measurement="forward"), depth=3, width=32, n=40
        )


@pytest.mark.parametrize("n", [1, 40, 1_000_000])
def test_by_default_every_row_is_measured_alone_however_many_there_are(n: int) -> None:
    """Whatever the memory: K = n, d = 1."""
    for stride in (StrideConfig(), StrideConfig(memory_gb=1e-6), StrideConfig(K=n, d=1)):
        assert measures_rows_alone(stride, n)
        settings = resolve_settings(stride, depth=30, width=4096, n=n)
        assert (settings.K, settings.d) == (n, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"K": 20},
        {"d": 2},
        {"measurement": "forward"},
        {"recovery": "lasso"},
        {"fit": "sgd"},
    ],
)
def test_who_asks_for_operators_gets_operators(changes: dict[str, object]) -> None:
    """Each of these settings says something about subsets' operators."""
    assert not measures_rows_alone(StrideConfig(**changes), 40)


def test_gradients_are_kept_as_far_as_memory_goes() -> None:
    """4 r D bytes a row."""
    row = 4 * 64 * 576
    assert count_kept_gradients(StrideConfig(memory_gb=10 * row / 2**30), 64, 576) == 10
    assert count_kept_gradients(StrideConfig(memory_gb=9.9 * row / 2**30), 64, 576) == 9
