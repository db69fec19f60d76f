"""What a fit that keeps operators is said to take, beside what it is seen to take."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from allocations import measure_peak
from slow_tests import slow
from tiny_models import build_model, build_tokenizer

from poisonwatch.config import StrideConfig
from poisonwatch.examples import Example, Message
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.recovery.gaussian_process import Kernel, gp_regress
from poisonwatch.recovery.membership import draw_random_membership
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride import operator_memory
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.operator_memory import OperatorMemory
from poisonwatch.stride.recover import recover_influence

D, R, N, SHORTLIST = 256, 96, 90, 6
GRADIENT = 4 * R * D
SENTINEL = Sentinel(
    id="a", messages=(Message("user", "?"),), forbidden="Yes.", reference="No.", panel="p"
)


@pytest.fixture(scope="module")
def wide() -> Pretrained:
    """A model whose operators are larger than what else its passes hold."""
    return Pretrained(build_model("llama", hidden_size=D), build_tokenizer(), "")


@pytest.mark.parametrize(
    "changes",
    [
        {"K": 60, "rounds": 2},
        pytest.param({"K": 60, "rounds": 1, "recovery": "lasso"}, marks=slow),
        {"measurement": "forward"},
        pytest.param({"K": 10, "background": 60, "rounds": 0}, marks=slow),
    ],
)
def test_a_fit_and_its_recovery_take_what_is_counted(
    wide: Pretrained, changes: dict[str, object]
) -> None:
    """.6 counted <= measured <= counted, of all that PyTorch allocates, a batch's states left
    out.
    """
    chosen = {"r": R, "token_budget": 64, "background": 8, "shortlist": SHORTLIST, **changes}
    stride = StrideConfig(**chosen)
    rows = []
    for i in range(N):
        said = (Message("user", f"{i}?"), Message("assistant", f"{i * i % 997}."))
        rows.append(Example.from_messages(said))
    fitted = fit(wide, rows, stride)
    after = recover_influence(fitted, [SENTINEL], stride)[1]
    fitting, _ = measure_peak(lambda: fit(wide, rows, stride))
    recovering, _ = measure_peak(lambda: recover_influence(fitted, [SENTINEL], stride))
    batch, _ = measure_peak(lambda: fitted.compute_row_gradients(np.arange(2), 64, ""))
    measured = max(fitting, recovering + fitted.operators.a.nbytes) - batch
    memory = OperatorMemory(stride, N, R, D, SHORTLIST, known=stride.background, step=0)
    K = fitted.settings.K
    counted = memory.count_bytes(K, len(after.operators.a) - K)
    assert 0.6 * counted <= measured <= counted


def test_a_recovery_takes_what_is_counted() -> None:
    """.5 counted <= measured <= counted, of all that NumPy allocates."""
    n, K, s = 1200, 500, 30
    M = draw_random_membership([str(i) for i in range(n)], K, 3).matrix()
    draw = np.random.default_rng(0)
    phi = draw.standard_normal((n, 8)).astype(np.float32)
    kernel, Y = Kernel(phi / np.linalg.norm(phi, axis=1, keepdims=True)), draw.random((K, s))
    tracemalloc.start()
    try:
        gp_regress(M, Y, kernel)
        measured = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    memory = OperatorMemory(StrideConfig(), n, 1, 1, s, known=0, step=0)
    counted = memory.count_bytes(K)
    assert 0.5 * counted <= measured <= counted


def test_memory_grows_with_all_that_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """One subset, suspect, known gradient, or number of width more never takes less, where V is
    formed and where it is not.
    """
    monkeypatch.setattr(operator_memory, "DENSE_UP_TO", 100)
    memory = OperatorMemory(StrideConfig(), 1000, 8, 32, 32, known=50, step=64)
    counted = []
    for K in range(1, 1000, 7):
        counted.append(memory.count_bytes(K, 10))
    assert counted == sorted(counted)
    least = memory.count_bytes(300, 10)
    assert memory.count_bytes(300, 20) >= least
    for larger in ({"known": 5000}, {"width": 64}, {"shortlist": 64}, {"r": 16}):
        assert replace(memory, **larger).count_bytes(300, 10) >= least
