"""An audit that does not fit says so before it begins, with settings that make it fit."""

import re
from dataclasses import replace

import pytest
import torch
from allocations import measure_peak
from attributions import ROWS, SENTINELS, STRIDE
from cost_cases import COST_CASES, make_audit, make_shape

from poisonwatch.config import StrideConfig
from poisonwatch.errors import ConfigError
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.stride import capacity, cost_memory
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.capacity import Room, describe_shortage, measure_room
from poisonwatch.stride.cost_memory import estimate_memory
from poisonwatch.stride.cost_shapes import BatchShape, ModelShape
from poisonwatch.stride.operators import Basis
from poisonwatch.stride.sgd import _compute_losses

GB = 10**9

# Llama-3.1-8B in float32, and rows as docs/costs.md has them.
LARGE = ModelShape(
    D=4096,
    depth=32,
    layer=12,
    heads=32,
    kv_heads=8,
    head_width=128,
    F=14_336,
    F_held=14_336,
    V=128_256,
    tied=False,
)
AUDIT = make_audit(
    n=50_000,
    row_tokens=250.0,
    longest=512,
    shortest=30,
    trusted=2000,
    background=512,
    r=64,
    keeps_gradients=False,
)


def on_gpu(gb: float) -> Room:
    return Room(model=int(gb * GB), main=500 * GB, on_gpu=True)


def test_what_fits_is_not_spoken_of() -> None:
    """No line from the estimate's own peak on, on a GPU and without one; one byte below there is
    one.
    """
    memory = estimate_memory(LARGE, AUDIT)
    for peak, gpu in ((memory.model_peak, True), (memory.peak, False)):
        room = Room(model=peak, main=peak, on_gpu=gpu)
        assert describe_shortage(LARGE, AUDIT, room) is None
        assert describe_shortage(LARGE, AUDIT, replace(room, model=peak - 1)) is not None


def test_each_setting_that_is_advised_makes_it_fit() -> None:
    """In one line, with what is taken and free; a larger value of the same setting would not do."""
    memory = estimate_memory(LARGE, AUDIT)
    room = Room(model=memory.model_peak - GB, main=500 * GB, on_gpu=True)
    said = describe_shortage(LARGE, AUDIT, room)
    assert said is not None
    assert "\n" not in said
    assert "of the GPU's memory (32 GB for the model" in said
    advised = dict(re.findall(r"([a-z_]+\.[a-z_]+): (\w+)", said))
    assert set(advised) == {"stride.token_budget", "stride.r", "model.dtype"}

    def fits(**changes: int) -> bool:
        return estimate_memory(LARGE, replace(AUDIT, **changes)).model_peak <= room.model

    budget, r = int(advised["stride.token_budget"]), int(advised["stride.r"])
    assert fits(token_budget=budget)
    assert not fits(token_budget=2 * budget)
    assert fits(r=r)
    assert not fits(r=2 * r)
    assert estimate_memory(replace(LARGE, number_bytes=2), AUDIT).model_peak <= room.model


def test_layers_above_may_be_left_out_where_they_do_not_fit() -> None:
    """What they take is gradients of reference rows, background and queries."""
    several = replace(LARGE, further=(19, 25))
    room = Room(model=estimate_memory(LARGE, AUDIT).model_peak, main=500 * GB, on_gpu=True)
    said = describe_shortage(several, AUDIT, room)
    assert said is not None
    assert "stride.further_layers: []" in said


def test_several_settings_are_advised_where_none_suffices() -> None:
    """Together; a GPU that does not even hold the weights takes a smaller model, or others beside
    it.
    """
    said = describe_shortage(LARGE, AUDIT, on_gpu(24))
    assert said is not None
    assert said.endswith(
        "set stride.token_budget: 512, stride.r: 8, model.dtype: bfloat16 together"
    )
    said = describe_shortage(LARGE, AUDIT, on_gpu(8))
    assert said is not None
    assert said.endswith("or set model.device_map: auto, which uses all GPUs together")


def test_operators_that_are_kept_count(tiny_pretrained: Pretrained) -> None:
    """Where rows share subsets: fewer of them are advised, by stride.memory_gb."""
    audit = replace(AUDIT, operators=8 * 2**30)
    needed = estimate_memory(LARGE, audit)
    assert needed.model_peak > 8 * 2**30 + needed.weights
    room = Room(model=needed.model_peak - 5 * GB, main=500 * GB, on_gpu=True)
    said = describe_shortage(LARGE, audit, room)
    assert said is not None
    assert "stride.memory_gb: 2" in said
    with pytest.raises(ConfigError, match=r"MB for gradients\), and"):
        fit_with_room_for(0.9, tiny_pretrained, StrideConfig(K=20, r=16))


def test_main_memory_counts_beside_a_gpu() -> None:
    """Of a hundred million rows verdicts are too many."""
    many = replace(AUDIT, n=100_000_000)
    said = describe_shortage(LARGE, many, replace(on_gpu(200), main=100 * GB))
    assert said is not None
    assert said.startswith("verdicts of 100,000,000 rows take about")


def fit_with_room_for(share: float, pretrained: Pretrained, stride: StrideConfig) -> None:
    """Fit with that share of the memory that is estimated."""
    estimates = []

    def estimate(model: ModelShape, audit: object) -> object:
        estimates.append(estimate_memory(model, audit))  # type: ignore[arg-type]
        return estimates[-1]

    with pytest.MonkeyPatch.context() as patch:
        room = Room(model=10**15, main=10**15, on_gpu=False)
        patch.setattr(capacity, "measure_room", lambda _: room)
        patch.setattr(capacity, "estimate_memory", estimate)
        fit(pretrained, ROWS, stride, sentinels=SENTINELS)
        free = int(share * estimates[0].peak)  # type: ignore[attr-defined]
        patch.setattr(capacity, "measure_room", lambda _: replace(room, model=free))
        passes = []
        hook = pretrained.model.model.layers[0].register_forward_pre_hook(
            lambda *_: passes.append(1)
        )
        try:
            fit(pretrained, ROWS, stride, sentinels=SENTINELS)
        finally:
            hook.remove()
            # Only that of one token, which says how the model ends.
            assert len(passes) == 1


def test_a_fit_that_does_not_fit_does_not_begin(tiny_pretrained: Pretrained) -> None:
    """ConfigError, exit code 2, before the first pass."""
    with pytest.raises(ConfigError, match=r"this audit takes about .* are free: ") as raised:
        fit_with_room_for(0.5, tiny_pretrained, STRIDE)
    assert raised.value.exit_code == 2


def test_weights_that_are_loaded_count_as_free(tiny_pretrained: Pretrained) -> None:
    """Free memory and the model's own are what an audit may take."""
    room = measure_room(tiny_pretrained.model)
    assert not room.on_gpu
    assert room.model == room.main > sum(p.nbytes for p in tiny_pretrained.model.parameters())


@pytest.mark.parametrize("name", ["logits", "blocks"])
def test_a_step_of_a_training_takes_what_is_counted(name: str) -> None:
    """.7 counted <= measured <= 1.1 counted, of all that PyTorch allocates."""
    case = replace(COST_CASES[name], rows=2)
    model, batch, m = case.build(), case.make_batch(), 4
    a = (0.01 * torch.randn(2, m, case.r, model.width)).requires_grad_()
    sketch = torch.randn(2, m, 8)

    def step() -> object:
        directions = torch.eye(model.width)[:, : case.r - 1].clone().requires_grad_()
        losses = _compute_losses(model, batch, Basis(directions), a, sketch=sketch, d=1, gamma=1.0)
        return torch.autograd.grad(losses.sum(), [a, directions])

    measured, _ = measure_peak(step)
    pairs = BatchShape(rows=2 * m, tokens=2 * m * case.width, answer_tokens=2 * m * case.answers)
    counted = cost_memory.count_training_bytes(make_shape(model), pairs)
    assert 0.7 * counted <= measured <= 1.1 * counted
