"""The split model against computations that share no hook with it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from families import build_family
from tiny_models import FAMILIES, build_model
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from poisonwatch.errors import ModelError
from poisonwatch.examples import Message
from poisonwatch.model.architecture import find_decoder_blocks
from poisonwatch.model.encoding import Batch, ChatEncoder, Encoded, make_batches
from poisonwatch.model.frozen import FrozenModel, StateGradients, find_answer_positions

Models = Callable[[str], PreTrainedModel]

TURNS = [
    [Message("user", "Hi"), Message("assistant", "Hello there")],
    [Message("user", "What is the capital of France?"), Message("assistant", "Paris")],
    [
        Message("user", "a"),
        Message("assistant", "b"),
        Message("user", "c"),
        Message("assistant", "d, and then a longer answer"),
    ],
]


@pytest.fixture(scope="module")
def encoded(tiny_tokenizer: PreTrainedTokenizerFast) -> list[Encoded]:
    return [ChatEncoder(tiny_tokenizer).encode(turns) for turns in TURNS]


@pytest.fixture(scope="module")
def batch(encoded: list[Encoded]) -> Batch:
    (whole,) = make_batches(encoded, 10_000)
    return whole


def labels_of(batch: Batch) -> Tensor:
    return torch.where(batch.answer, batch.input_ids, -100)


def row_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """L_i = mean_t -log softmax(o_{i,t})[y_{i,t+1}] over labelled tokens, one row at a time."""
    return torch.stack(
        [
            cross_entropy(o[:-1], y[1:], ignore_index=-100)
            for o, y in zip(logits, labels, strict=True)
        ]
    )


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_states_and_gradients_equal_autograd_through_the_unhooked_model(
    tiny_model: Models, unfrozen: Models, batch: Batch, family: str, layer: int
) -> None:
    """z = hidden_states[layer] and g = dL_i/dz of a float64 copy without hooks, at every real
    token.
    """
    seen = FrozenModel(tiny_model(family), layer).compute_state_gradients(batch)
    free = unfrozen(family)
    embedded = free.get_input_embeddings()(batch.input_ids).requires_grad_()
    output = free(
        inputs_embeds=embedded,
        attention_mask=batch.attention_mask,
        output_hidden_states=True,
        use_cache=False,
    )
    z = output.hidden_states[layer]
    loss = row_losses(output.logits, labels_of(batch))
    (g,) = torch.autograd.grad(loss.sum(), z)
    real = batch.attention_mask.bool()
    torch.testing.assert_close(seen.z[real], z[real].float(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        seen.g[real], g[real].float(), rtol=1e-2, atol=1e-4 * float(g.abs().max())
    )
    torch.testing.assert_close(seen.loss, loss.detach().float(), rtol=1e-5, atol=1e-5)
    assert torch.equal(seen.mask, real)


@pytest.mark.parametrize("family", FAMILIES)
def test_further_splits_see_what_a_split_there_sees(
    tiny_model: Models, batch: Batch, family: str
) -> None:
    """States, gradients and losses at the blocks above, from the one pass."""
    model = FrozenModel(tiny_model(family), 0, [1, 2])
    seen, states = model.compute_state_gradients(batch), model.compute_all_states(batch)
    for layer, (at_split, z) in enumerate(zip(seen.splits, states, strict=True)):
        alone = FrozenModel(tiny_model(family), layer).compute_state_gradients(batch)
        torch.testing.assert_close(at_split.z, alone.z)
        torch.testing.assert_close(at_split.g, alone.g, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(at_split.loss, alone.loss)
        torch.testing.assert_close(z, alone.z)


@pytest.mark.parametrize("further", [[0], [1], [2, 2], [3], [-1]])
def test_further_layers_that_are_not_above_are_refused(
    tiny_model: Models, further: list[int]
) -> None:
    """Above the split, each once, in rising order, and of the model."""
    with pytest.raises(
        ModelError, match=r"stride\.further_layers are .*: choose blocks from 2 to 2"
    ):
        FrozenModel(tiny_model("llama"), 1, further)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_at_the_split_equals_finite_difference(
    unfrozen: Models, batch: Batch, family: str
) -> None:
    """<g, v> = (L(z + h v) - L(z - h v)) / 2h for a random direction v of every state."""
    free, layer = unfrozen(family), 1
    seen = FrozenModel(free, layer).compute_state_gradients(batch)
    v = torch.randn(seen.z.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def loss_at(step: float) -> Tensor:
        def move(
            _: object, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]
        ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
            return (args[0] + step * v, *args[1:]), kwargs

        handle = find_decoder_blocks(free)[layer].register_forward_pre_hook(move, with_kwargs=True)
        logits = free(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        ).logits
        handle.remove()
        return row_losses(logits, labels_of(batch))

    h = 2e-3  # some families normalise in float32: smaller steps drown in rounding
    numeric = (loss_at(h) - loss_at(-h)) / (2 * h)
    analytic = (seen.g.double() * v * seen.mask[..., None]).sum(dim=(1, 2))
    torch.testing.assert_close(analytic, numeric, rtol=1e-3, atol=1e-3 * float(numeric.abs().max()))


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_equals_the_labels_loss_of_transformers(
    tiny_model: Models, encoded: list[Encoded], family: str
) -> None:
    """L_i = model(input_ids, labels).loss of each row alone, in nats a token."""
    model = tiny_model(family)
    for row in encoded:
        (alone,) = make_batches([row], 1)
        with torch.no_grad():
            expected = model(input_ids=alone.input_ids, labels=labels_of(alone)).loss
        torch.testing.assert_close(
            FrozenModel(model, 1).compute_state_gradients(alone).loss[0],
            expected,
            rtol=1e-5,
            atol=1e-5,
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_no_row(
    tiny_model: Models, encoded: list[Encoded], batch: Batch, family: str
) -> None:
    """(z, g, L) of a row are the same alone and beside longer rows; no gradient falls on padding."""
    model = FrozenModel(tiny_model(family), 1)
    together = model.compute_state_gradients(batch)
    for b, row in enumerate(batch.rows.tolist()):
        (single,) = make_batches([encoded[row]], 1)
        alone: StateGradients = model.compute_state_gradients(single)
        width = len(encoded[row])
        torch.testing.assert_close(together.loss[b], alone.loss[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.z[b, :width], alone.z[0], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(
            together.g[b, :width], alone.g[0], rtol=1e-2, atol=1e-4 * float(alone.g.abs().max())
        )
        assert not together.g[b, width:].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_states_equal_the_states_of_the_backward_pass(
    tiny_model: Models, batch: Batch, family: str
) -> None:
    """compute_states(batch) = compute_state_gradients(batch).z, without a graph."""
    model = FrozenModel(tiny_model(family), 2)
    z = model.compute_states(batch)
    assert torch.equal(z, model.compute_state_gradients(batch).z)
    assert not z.requires_grad


@pytest.mark.parametrize("family", FAMILIES)
def test_model_is_left_as_it_was_found(tiny_model: Models, batch: Batch, family: str) -> None:
    """Before and after: the same logits, no hook left, no parameter with a gradient; also where a
    row is refused.
    """
    model = tiny_model(family)
    split = FrozenModel(model, 1)
    with torch.no_grad():
        before = model(input_ids=batch.input_ids).logits

    def attached() -> list[
        tuple[int, int, bool]
    ]:  # other tests share the model, and transformers leaves hooks of its own
        return [
            (len(m._forward_pre_hooks), len(m._forward_hooks), "forward" in vars(m))
            for m in model.modules()
        ]

    found = attached()
    split.compute_states(batch)
    split.compute_state_gradients(batch)
    run = split.run(batch)
    split.resume(run, run.z[:, None])
    silent = replace(batch, answer=torch.zeros_like(batch.answer), answers=None)
    with pytest.raises(ModelError):
        split.compute_state_gradients(silent)
    bad = replace(batch, input_ids=batch.input_ids + 10_000)
    with pytest.raises(IndexError):
        split.compute_state_gradients(bad)
    with pytest.raises(RuntimeError):
        split.resume(run, run.z[:, None, :, :-1])
    with pytest.raises(ValueError, match="states of 1 rows cannot go on with a run of 3"):
        split.resume(run, run.z[:1, None])
    with torch.no_grad():
        assert torch.equal(model(input_ids=batch.input_ids).logits, before)
    assert attached() == found
    assert all(parameter.grad is None for parameter in model.parameters())


def test_answer_positions_predict_the_answer_tokens(batch: Batch) -> None:
    """predicts[b, t] holds where answer[b, t+1] does; the targets are those tokens, row by row."""
    predicts, targets = find_answer_positions(batch)
    assert torch.equal(predicts[:, :-1], batch.answer[:, 1:])
    assert not predicts[:, -1].any()
    assert torch.equal(targets, batch.input_ids[batch.answer])


def test_row_without_answer_tokens_is_refused_with_what_to_do(tiny_model: Models) -> None:
    """A mean over no tokens is not a loss."""
    (batch,) = make_batches([Encoded.of([1, 2, 3], [False, False, False])], 8)
    with pytest.raises(
        ModelError, match=r"no assistant tokens left: raise stride\.max_tokens or drop the row"
    ):
        FrozenModel(tiny_model("llama"), 0).compute_state_gradients(batch)
    with pytest.raises(ModelError, match="no assistant tokens left"):
        FrozenModel(tiny_model("llama"), 0).run(batch)


@pytest.mark.parametrize("layer", [-1, 3, 100])
@pytest.mark.parametrize("family", FAMILIES)
def test_layer_outside_the_model_is_refused_with_the_range(
    tiny_model: Models, family: str, layer: int
) -> None:
    """0 <= layer < depth."""
    with pytest.raises(
        ModelError, match=rf"stride\.layer is {layer}, but this model has blocks 0 to 2"
    ):
        FrozenModel(tiny_model(family), layer)


def test_bfloat16_model_gives_float32_results(batch: Batch) -> None:
    """z, g, L and o are float32 whatever the weights are."""
    model = FrozenModel(build_model("llama").to(torch.bfloat16), 1)
    seen, run = model.compute_state_gradients(batch), model.run(batch)
    assert (seen.z.dtype, seen.g.dtype, seen.loss.dtype) == (torch.float32,) * 3
    assert (run.z.dtype, run.o[0].dtype, model.resume(run, run.z[:, None])[0].dtype) == (
        torch.float32,
    ) * 3


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_run_gives_the_logits_and_tokens_that_the_loss_is_made_of(
    tiny_model: Models, batch: Batch, family: str, layer: int
) -> None:
    """o_i = the unhooked model's logits where row i's next token is an answer token; their mean
    cross-entropy is L_i; z = states(batch).
    """
    model = FrozenModel(tiny_model(family), layer)
    run = model.run(batch)
    with torch.no_grad():
        logits = tiny_model(family)(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask
        ).logits
    predicts, _ = find_answer_positions(batch)
    for b, (o, targets) in enumerate(zip(run.o, run.targets, strict=True)):
        torch.testing.assert_close(o, logits[b, predicts[b]], rtol=1e-4, atol=1e-5)
        assert torch.equal(targets, batch.input_ids[b, batch.answer[b]])
    losses = torch.stack(
        [cross_entropy(o, targets) for o, targets in zip(run.o, run.targets, strict=True)]
    )
    torch.testing.assert_close(
        losses, model.compute_state_gradients(batch).loss, rtol=1e-5, atol=1e-5
    )
    assert torch.equal(run.z, model.compute_states(batch))
    assert not any(t.requires_grad for t in (run.z, *run.o))


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_resuming_equals_moving_the_states_of_the_whole_model(
    unfrozen: Models, batch: Batch, family: str, layer: int
) -> None:
    """o~(z + v_j) = the logits of a whole float64 pass whose states are moved by v_j before block
    `layer`, for m directions at once.
    """
    free = unfrozen(family)
    model = FrozenModel(free, layer)
    run = model.run(batch)
    v = 0.1 * torch.randn(
        len(run.z),
        3,
        *run.z.shape[1:],
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(0),
    )
    resumed = model.resume(run, run.z[:, None] + v)
    predicts, _ = find_answer_positions(batch)
    for j in range(3):

        def move(
            _: object, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], j: int = j
        ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
            return (args[0] + v[:, j], *args[1:]), kwargs

        handle = find_decoder_blocks(free)[layer].register_forward_pre_hook(move, with_kwargs=True)
        logits = free(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        ).logits
        handle.remove()
        for b, o in enumerate(resumed):
            assert o.dtype == torch.float64
            torch.testing.assert_close(o[j], logits[b, predicts[b]], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_resumed_gradient_equals_the_gradient_of_the_loss(
    tiny_model: Models, batch: Batch, family: str
) -> None:
    """dL_i(o~)/dz~ at z~ = z is g of the ordinary backward pass, for each of m copies of a row."""
    model = FrozenModel(tiny_model(family), 1)
    run = model.run(batch)
    z = run.z[:, None].repeat(1, 2, 1, 1).requires_grad_()
    losses = [
        cross_entropy(each, targets)
        for o, targets in zip(model.resume(run, z), run.targets, strict=True)
        for each in o
    ]
    (g,) = torch.autograd.grad(torch.stack(losses).sum(), z)
    expected = model.compute_state_gradients(batch).g
    for j in range(2):
        torch.testing.assert_close(
            g[:, j], expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_resuming_runs_nothing_below_the_split(
    tiny_model: Models, batch: Batch, family: str
) -> None:
    """Of 3 blocks split below the last, a resumed pass runs the parts of the last alone."""
    model = FrozenModel(tiny_model(family), 2)
    run = model.run(batch)
    model.resume(run, run.z[:, None])  # what is asked once and kept
    ran = set()
    handles = [
        part.register_forward_hook(lambda *_, depth=depth: ran.add(depth))
        for depth, block in enumerate(find_decoder_blocks(model.model))
        for part in block.children()
    ]
    model.resume(run, run.z[:, None])
    for handle in handles:
        handle.remove()
    assert ran == {2}


def test_blocks_that_return_tuples_are_skipped_in_their_own_form(batch: Batch) -> None:
    """Falcon's blocks return (states, attention): resuming from z itself gives o."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 300}
    special = {"bos_token_id": None, "eos_token_id": None}
    model = FrozenModel(
        FalconForCausalLM(FalconConfig(alibi=False, initializer_range=0.2, **sizes, **special)), 2
    )
    run = model.run(batch)
    assert run.extras is not None
    for o, resumed in zip(run.o, model.resume(run, run.z[:, None]), strict=True):
        torch.testing.assert_close(resumed[0], o, rtol=1e-4, atol=1e-5)


def test_forward_that_was_wrapped_on_a_block_is_put_back(batch: Batch) -> None:
    """Tools that place a model on devices replace `forward` on the module itself."""
    model = FrozenModel(build_model("llama"), 1)
    run = model.run(batch)
    block = find_decoder_blocks(model.model)[0]
    wrapped = block.forward
    block.forward = wrapped
    model.resume(run, run.z[:, None])
    assert vars(block)["forward"] is wrapped


@pytest.mark.parametrize("family", FAMILIES)
def test_resumed_losses_are_those_of_resumed_logits(
    tiny_model: Models, batch: Batch, family: str
) -> None:
    """L_i(o~_j) (b, m) = mean cross-entropy of `resume`'s logits, under m moves of the states."""
    model = FrozenModel(tiny_model(family), 1)
    run = model.run(batch)
    v = torch.randn(len(run.z), 3, *run.z.shape[1:], generator=torch.Generator().manual_seed(0))
    z = run.z[:, None] + 0.1 * v
    found = model.resume_losses(run, z)
    expected = [
        [float(cross_entropy(each.detach(), targets)) for each in o]
        for o, targets in zip(model.resume(run, z), run.targets, strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=1e-5, atol=1e-5)
    assert not found.requires_grad


def test_logits_that_are_capped_after_the_head_are_what_counts(batch: Batch) -> None:
    """Gemma 2 caps its logits: losses and gradients are of the capped ones."""
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(
        Gemma2Config(
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            intermediate_size=64,
            vocab_size=300,
            initializer_range=0.2,
            final_logit_softcapping=1.0,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )
    ).eval()
    split = FrozenModel(model, 1)
    seen = split.compute_state_gradients(batch)
    embedded = model.get_input_embeddings()(batch.input_ids).requires_grad_()
    output = model(
        inputs_embeds=embedded,
        attention_mask=batch.attention_mask,
        output_hidden_states=True,
        use_cache=False,
    )
    assert output.logits.abs().max() <= 1
    loss = row_losses(output.logits, labels_of(batch))
    (g,) = torch.autograd.grad(loss.sum(), output.hidden_states[1])
    torch.testing.assert_close(seen.loss, loss.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen.g, g, rtol=1e-2, atol=1e-4 * float(g.abs().max()))
    run = split.run(batch)
    torch.testing.assert_close(
        split.resume_losses(run, run.z[:, None])[:, 0].float(), seen.loss, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("family", ["llama", "gemma2", "granite", "cohere"])
def test_logits_are_made_a_few_at_a_time(
    batch: Batch, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a family caps or scales what its head says: no more than LOGITS_AT_ONCE numbers,
    and the same losses and gradients.
    """
    model = build_family(family)
    split = FrozenModel(model, 1)
    run, _ = split.run_losses(batch)
    moved = 1.1 * run.z[:, None].repeat(1, 2, 1, 1)
    whole, losses = split.compute_state_gradients(batch), split.resume_losses(run, moved)
    monkeypatch.setattr("poisonwatch.model.head.LOGITS_AT_ONCE", 5 * 300)
    sizes = []
    hook = model.lm_head.register_forward_hook(lambda _, __, o: sizes.append(o.numel()))
    with hook:
        parts = split.compute_state_gradients(batch)
        found = split.resume_losses(run, moved)
    assert max(sizes) == 5 * 300
    assert len(sizes) > 10
    torch.testing.assert_close(parts.loss, whole.loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(parts.g, whole.g, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found, losses, rtol=1e-5, atol=1e-5)
    assert torch.equal(split.run_losses(batch)[0].z, run.z)


class Asking(TorchDispatchMode):
    """Remembers what would make a host wait for its GPU: numbers read, sizes that depend on
    numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.name().split("::")[1].split(".")[0]
        masks = [t for t in (args[1] if name in INDEXING else ()) if t is not None]
        if name in WAITING or any(mask.dtype == torch.bool for mask in masks):
            self.asked.append(name)
        return func(*args, **(kwargs or {}))


WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique_dim"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}


@pytest.mark.parametrize("family", FAMILIES)
def test_passes_ask_the_device_nothing(tiny_model: Models, batch: Batch, family: str) -> None:
    """No number is read by us and no size depends on one, so that on a GPU a pass is sent off while
    the last one is computed. transformers reads one number a pass: are conversations packed?
    """
    model = FrozenModel(tiny_model(family), 1)
    run = model.run(batch)
    model.compute_state_gradients(batch)
    model.resume(run, run.z[:, None])  # what is asked once and kept
    with Asking() as device:
        model.compute_states(batch)
        model.compute_state_gradients(batch)
        run = model.run(batch)
        model.resume(run, run.z[:, None])
        model.resume_losses(run, run.z[:, None].repeat(1, 2, 1, 1))
    assert device.asked in ([], ["_local_scalar_dense"] * 5)
    with Asking() as device:
        bool((batch.input_ids > 0).any())
        batch.input_ids[batch.answer]
    assert device.asked == ["_local_scalar_dense", "index"]
