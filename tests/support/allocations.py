"""What code really allocates and computes, by torch's own accounts."""

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count


def measure_peak(work: Callable[[], Any]) -> tuple[int, int]:
    """The most bytes of tensors on the CPU that `work` held at once beyond those that were there,
    and the bytes that it left.
    """
    work()  # what is allocated once, at first use, is nobody's
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        kept = work()
    assert watched.profiler is not None
    results = watched.profiler.kineto_results
    assert results is not None
    changes = [
        (event.start_ns(), event.nbytes())
        for event in results.events()
        if event.name() == "[memory]"
    ]
    changes.sort(key=lambda change: change[0])
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    del kept
    return peak, held


class FlopCount(TorchDispatchMode):
    """Counts in `total` the operations of matrix products and attention by torch's own formulas,
    those of `FlopCounterMode`, which cannot follow a gradient that ends at a leaf.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        # The registry knows the attention of GPUs alone.
        own = torch.ops.aten
        self._formulas = {
            **flop_registry,
            own._scaled_dot_product_flash_attention_for_cpu: _count_attention,
            own._scaled_dot_product_flash_attention_for_cpu_backward: _count_attention_backward,
        }

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = self._formulas.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=out)
        return out


def _count_attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(q.shape, k.shape, v.shape))


def _count_attention_backward(out: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(out.shape, q.shape, k.shape, v.shape))
