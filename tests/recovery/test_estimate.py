"""What goes into a recovery and comes out of it, whichever recovery it is."""

import subprocess
import sys

import jaxtyping
import numpy as np
import pytest
from scipy.sparse import csr_array, eye_array, vstack

from poisonwatch.recovery.estimate import Estimate, Measurements, RecoveryMethod
from poisonwatch.recovery.gaussian_process import SmoothRecovery
from poisonwatch.recovery.lasso import SparseRecovery
from poisonwatch.recovery.membership import draw_random_membership

N, K, Q = 30, 12, 2
IDS = [f"row-{i}" for i in range(N)]


@pytest.fixture(scope="module")
def measured() -> Measurements:
    """12 shared subsets of 30 rows, and rows 7 and 3 alone."""
    shared = draw_random_membership(IDS, K, 3).matrix()
    alone = csr_array((np.ones(2), ([0, 1], [7, 3])), shape=(2, N))
    y = np.random.default_rng(0).standard_normal((K + 2, Q))
    features = np.eye(N, 8, dtype=np.float32)
    M = csr_array(vstack([shared, alone]))
    return Measurements(M, y, features, np.ones(N), single=2)


def test_shared_subsets_and_single_rows_are_parted(measured: Measurements) -> None:
    """The last rows of M, in their order; without single rows all subsets are shared."""
    assert (measured.n, measured.K_shared) == (N, K)
    assert measured.shared.shape == (K, N)
    assert measured.known.tolist() == [7, 3]
    none = Measurements(measured.shared, measured.y[:K], measured.features, measured.signs)
    assert (none.shared != measured.shared).nnz == 0
    assert none.known.tolist() == []


@pytest.mark.parametrize("method", [SmoothRecovery(), SparseRecovery(0.1)])
def test_a_row_that_does_the_opposite_changes_its_own_coefficient_alone(
    method: RecoveryMethod,
) -> None:
    """With a subset a row: y_i turned round and -1 among the signs give w with w_i turned round."""
    M, draw = csr_array(eye_array(N)), np.random.default_rng(1)
    y, features = draw.standard_normal((N, Q)), draw.standard_normal((N, 4)).astype(np.float32)
    signs = np.where(np.arange(N) % 3, 1.0, -1.0)
    before = method(Measurements(M, y, features, np.ones(N))).w
    after = method(Measurements(M, signs[:, None] * y, features, signs)).w
    np.testing.assert_allclose(after, signs[:, None] * before, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", [SmoothRecovery(), SparseRecovery(0.1)])
def test_every_recovery_certifies_its_answer(
    measured: Measurements, method: RecoveryMethod
) -> None:
    """w (n, Q) and a certificate (Q,) that says it is solved."""
    found = method(measured)
    assert found.w.shape == (N, Q)
    assert found.certificate.shape == (Q,)
    assert found.worst <= 1e-6


def test_the_worst_certificate_is_the_largest() -> None:
    """max_q; 0 where nothing was asked."""
    assert Estimate(np.zeros((3, 2)), np.array([0.1, 0.3])).worst == 0.3
    assert Estimate(np.zeros((3, 0)), np.zeros(0)).worst == 0.0


def test_shapes_are_checked_while_tests_run() -> None:
    """One certificate for each query: two for one are refused here, as annotated."""
    with pytest.raises(jaxtyping.TypeCheckError, match="certificate"):
        Estimate(np.zeros((3, 1)), np.zeros(2))


def test_shapes_cost_an_audit_nothing() -> None:
    """Outside of tests nothing checks them: beartype is not even imported, and what scores is
    written in needs no PyTorch.
    """
    found = "[name for name in ('beartype', 'torch') if name in sys.modules]"
    code = f"""
import sys, poisonwatch.recovery.lasso, poisonwatch.stride.influence
print({found})
import poisonwatch.stride.attribution
print({found})
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "['torch']"]
