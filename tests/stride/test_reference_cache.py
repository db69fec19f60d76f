"""What trusted rows set is kept between audits, and changes no number."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from attributions import SENTINELS, fit_stream

from poisonwatch.config import StrideConfig
from poisonwatch.examples import Example, Message
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.stride.reference_cache import KEPT_FILES, compute_moments_key

STRIDE = StrideConfig(background=8, r=6)


def rows(n: int, start: int = 0) -> list[Example]:
    return [
        Example.from_messages(
            [
                Message("user", f"Question {i}: {'why? ' * (i % 4)}"),
                Message("assistant", f"Because {i * i % 7}."),
            ]
        )
        for i in range(start, start + n)
    ]


TRUSTED = rows(12, start=50)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("POISONWATCH_CACHE", str(tmp_path))
    return tmp_path / "statistics"


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many rows went through each backward pass."""
    met: list[int] = []
    whole = FrozenModel.compute_state_gradients

    def counted(self: FrozenModel, batch):  # type: ignore[no-untyped-def]
        met.append(len(batch.rows))
        return whole(self, batch)

    monkeypatch.setattr(FrozenModel, "compute_state_gradients", counted)
    return met


def fitted(
    pretrained: Pretrained, new: list[Example], trusted: list[Example] = TRUSTED, sentinels=()
):  # type: ignore[no-untyped-def]
    examples = new + trusted
    asked = {"trusted": np.arange(len(new), len(examples)), "sentinels": sentinels}
    return fit_stream(pretrained, examples, STRIDE, **asked)


def test_a_second_audit_passes_over_its_new_rows_alone(
    tiny_pretrained: Pretrained, passes: list[int], cache: Path
) -> None:
    """12 + 5 gradients at first, then 3 for 3 new rows."""
    fitted(tiny_pretrained, rows(5))
    assert sum(passes) == 17
    assert len(list(cache.glob("*"))) == 1
    passes.clear()
    fitted(tiny_pretrained, rows(3, start=10))
    assert sum(passes) == 3


def test_kept_statistics_give_the_same_operators(tiny_pretrained: Pretrained, cache: Path) -> None:
    """With a full cache, and with an empty one."""
    fitted(tiny_pretrained, rows(4))
    kept = fitted(tiny_pretrained, rows(5, start=7), sentinels=SENTINELS)
    next(cache.glob("*")).unlink()
    plain = fitted(tiny_pretrained, rows(5, start=7), sentinels=SENTINELS)
    operators = plain.compute_row_operators(np.arange(17), 400)
    torch.testing.assert_close(
        kept.compute_row_operators(np.arange(17), 400),
        operators,
        rtol=1e-4,
        atol=1e-5 * float(operators.abs().max()),
    )
    one, other = kept.measured, plain.measured
    np.testing.assert_allclose(one.effects, other.effects, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.centre, other.centre, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.features, other.features, rtol=1e-4, atol=1e-5)


def test_other_trusted_rows_are_another_key(tiny_pretrained: Pretrained, passes: list[int]) -> None:
    """One trusted row more: everything is computed anew."""
    fitted(tiny_pretrained, rows(2))
    passes.clear()
    fitted(tiny_pretrained, rows(2), trusted=rows(13, start=50))
    assert sum(passes) == 15


@pytest.mark.parametrize("change", [{"r": 5}, {"max_tokens": 64}])
def test_what_shapes_the_statistics_is_in_the_key(
    tiny_pretrained: Pretrained, change: dict[str, int]
) -> None:
    """Damping is not: it is applied afterwards."""
    ids = [row.id for row in TRUSTED]
    key = compute_moments_key(tiny_pretrained, STRIDE, [1], ids)
    assert key != compute_moments_key(tiny_pretrained, STRIDE.model_copy(update=change), [1], ids)
    assert key != compute_moments_key(tiny_pretrained, STRIDE, [1, 2], ids)
    assert key == compute_moments_key(
        tiny_pretrained, STRIDE.model_copy(update={"damping": 0.5}), [1], ids
    )


def test_what_the_model_computes_and_reads_is_in_the_key(
    tiny_pretrained: Pretrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, tokenizer or chat template, precision, libraries, and this library's source."""

    def compute(**changes: str) -> str:
        return compute_moments_key(replace(tiny_pretrained, **changes), STRIDE, [1], ["a"])

    keys = {compute(), compute(fingerprint="1" * 64), compute(reading="1" * 64)}
    halved = replace(tiny_pretrained, model=copy.deepcopy(tiny_pretrained.model).bfloat16())
    keys.add(compute_moments_key(halved, STRIDE, [1], ["a"]))
    with monkeypatch.context() as patch:
        patch.setattr("tokenizers.__version__", "0.0")
        keys.add(compute())
    monkeypatch.setattr("poisonwatch.stride.reference_cache.hash_library", lambda: "edited")
    keys.add(compute())
    assert len(keys) == 6


def test_a_broken_file_is_made_anew(
    tiny_pretrained: Pretrained, passes: list[int], cache: Path
) -> None:
    """Cut short by a crash of the machine."""
    fitted(tiny_pretrained, rows(2))
    (file,) = cache.glob("*")
    file.write_bytes(file.read_bytes()[:1000])
    passes.clear()
    fitted(tiny_pretrained, rows(2))
    assert sum(passes) == 14
    assert file.stat().st_size > 1000


def test_only_the_last_few_are_kept(tiny_pretrained: Pretrained, cache: Path) -> None:
    """One file more than are kept: the first is gone."""
    for i in range(KEPT_FILES + 1):
        fitted(tiny_pretrained, rows(1), trusted=rows(6, start=100 + 10 * i))
    assert len(list(cache.glob("*"))) == KEPT_FILES


def test_a_cache_that_cannot_be_written_costs_nothing_else(
    tiny_pretrained: Pretrained, cache: Path
) -> None:
    """A file stands where the folder should be."""
    cache.write_text("in the way")
    assert len(fitted(tiny_pretrained, rows(2)).measured.spread) == 14
