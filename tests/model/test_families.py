"""Tiny random models of the families that transformers ships, each through all that an audit does
with a model. POISONWATCH_ALL_TESTS=1 tries all of them, else every kind is there.

Experts are routed to one by one: a move of the states that sends a token to another expert is a
jump. So what is said of small moves is tried at several lengths, of which one has to be right: a
longer one may jump, a shorter one drowns in norms that some families take in float32.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attributions import FORBIDDEN, benign, fit_operators, sentinel
from families import FAMILIES, REFUSED, build_family, list_families
from paths import ROOT
from tiny_models import build_tokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from poisonwatch.config import ModelConfig, StrideConfig
from poisonwatch.detection.confirmation import confirm
from poisonwatch.detection.random_groups import RANDOM_GROUPS, draw_pool
from poisonwatch.errors import ModelError
from poisonwatch.model.architecture import find_decoder_blocks
from poisonwatch.model.encoding import Batch, ChatEncoder, Encoded, make_batches
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.pretrained import Pretrained, load_pretrained
from poisonwatch.stride.explain import attribute_conversation
from poisonwatch.stride.fitted import NaturalGradientFit
from poisonwatch.stride.influence import Query
from poisonwatch.stride.measurement import measure_first_order, measure_forward
from poisonwatch.stride.operators import Basis, Operators, compute_typical_eta
from poisonwatch.stride.queries import prepare_answers

TOKENIZER = build_tokenizer()
ENCODER = ChatEncoder(TOKENIZER)
ROWS = benign(10)
SENTINEL = sentinel("a")
STEPS = (1e-3, 1e-4, 1e-5)  # of the states' typical length
LIMIT = 2e-2  # of a relative error


@dataclass(frozen=True, slots=True)
class Split:
    """A family's model split in the middle, as float32 and as float64, and rows for it."""

    name: str
    model: PreTrainedModel
    frozen: FrozenModel
    wide: FrozenModel
    encoded: tuple[Encoded, ...]
    batch: Batch
    stride: StrideConfig

    @property
    def blocks(self) -> torch.nn.ModuleList:
        return find_decoder_blocks(self.model)

    def move_states(self, move: Callable[[Tensor], Tensor]) -> RemovableHandle:
        """Put move(z) in the place of z before the split block of the model itself."""

        def replace_states(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                return (move(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": move(kwargs["hidden_states"])}

        block = self.blocks[self.frozen.layer]
        return block.register_forward_pre_hook(replace_states, with_kwargs=True)


@pytest.fixture(scope="module", params=list_families())
def split(request: pytest.FixtureRequest) -> Split:
    name = request.param
    model, wide = build_family(name), build_family(name).double()
    wide.set_experts_implementation("eager")  # the fast one takes no float64
    layer = len(find_decoder_blocks(model)) // 2
    encoded = tuple(ENCODER.encode_example(row) for row in ROWS[:3])
    (batch,) = make_batches(encoded, 10_000)
    return Split(
        name=name,
        model=model,
        frozen=FrozenModel(model, layer),
        wide=FrozenModel(wide, layer),
        encoded=encoded,
        batch=batch,
        stride=StrideConfig(r=8, background=8, token_budget=600, layer=layer),
    )


@pytest.fixture(scope="module")
def fitted(split: Split) -> NaturalGradientFit:
    return fit_operators(Pretrained(split.model, TOKENIZER, "0" * 64), ROWS, split.stride)


def find_error(found: Any, expected: Any) -> float:
    """max |found - expected| / max |expected|."""
    difference, size = abs(found - expected).max(), abs(expected).max()
    assert size > 0
    return float(difference / size)


def compute_losses_without_hooks(model: PreTrainedModel, batch: Batch) -> list[float]:
    """The mean cross-entropy over each row's answer tokens, by transformers alone."""
    with torch.no_grad():
        logits = model(input_ids=batch.input_ids, use_cache=False).logits
    losses = []
    for o, ids, answer in zip(logits, batch.input_ids, batch.answer, strict=True):
        losses.append(float(cross_entropy(o[:-1][answer[1:]], ids[1:][answer[1:]])))
    return losses


def test_a_further_split_sees_what_a_split_there_sees(split: Split) -> None:
    """Whatever a family's blocks do to the states that they are given."""
    last = len(split.blocks) - 1
    (above,) = FrozenModel(split.model, 0, [last]).compute_state_gradients(split.batch).further
    alone = FrozenModel(split.model, last).compute_state_gradients(split.batch)
    assert find_error(above.z, alone.z) < 1e-5
    assert find_error(above.g, alone.g) < 1e-4


def test_gradients_equal_finite_differences(split: Split) -> None:
    """<g, v> = (L(z + h v) - L(z - h v)) / 2h for a random direction v of every state."""
    seen, run = split.wide.compute_state_gradients(split.batch), split.wide.run(split.batch)
    v = torch.randn(run.z.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v *= run.z.abs().mean()
    analytic = (seen.g.double() * v * seen.mask[..., None]).sum(dim=(1, 2))
    errors = []
    for h in STEPS:
        loss = split.wide.resume_losses(run, torch.stack([run.z + h * v, run.z - h * v], dim=1))
        errors.append(find_error((loss[:, 0] - loss[:, 1]) / (2 * h), analytic))
    assert min(errors) < LIMIT


def test_padding_changes_no_row(split: Split) -> None:
    """Loss and gradients of a row are the same alone and beside longer ones, and its loss is what
    transformers says.
    """
    together = split.frozen.compute_state_gradients(split.batch)
    expected = torch.tensor(compute_losses_without_hooks(split.model, split.batch))
    assert find_error(together.loss, expected) < 1e-4
    for b, row in enumerate(split.batch.rows.tolist()):
        (single,) = make_batches([split.encoded[row]], 1)
        alone = split.frozen.compute_state_gradients(single)
        length = len(split.encoded[row])
        assert find_error(together.loss[b], alone.loss[0]) < 1e-4
        assert find_error(together.g[b, :length], alone.g[0]) < 1e-3
        assert not together.g[b, length:].any()


def test_resuming_equals_a_whole_pass_from_moved_states(split: Split) -> None:
    """L(z~) for two moves a row, laid out in memory as products of matrices are, and L(z)."""
    run = split.frozen.run(split.batch)
    v = torch.randn(2, *run.z.shape, generator=torch.Generator().manual_seed(0))
    moves = [run.z + 0.1 * run.z.std() * v[0], run.z + 0.1 * run.z.std() * v[1], run.z]
    found = split.frozen.resume_losses(run, _scatter(torch.stack(moves, dim=1)))
    for j, z in enumerate(moves):
        with split.move_states(lambda _, z=z: z):
            expected = compute_losses_without_hooks(split.model, split.batch)
        assert find_error(found[:, j], torch.tensor(expected)) < 1e-4


def _scatter(z: Tensor) -> Tensor:
    """The same numbers, laid out in memory as products of matrices are."""
    return z.mT.contiguous().mT


def test_first_order_equals_forward_steering(split: Split, fitted: NaturalGradientFit) -> None:
    """-<G_q, a> = (L(z - B a) - L(z + B a)) / 2 for the operators of two rows."""
    wide = replace(fitted, model=split.wide)
    answer = ENCODER.encode(SENTINEL.add_answer(FORBIDDEN))
    queries = prepare_answers(wide, [answer], np.eye(1), split.stride)
    queries = replace(queries, G=queries.G.double())
    A, power = fitted.preconditioner.A, fitted.preconditioner.mean_power
    basis = Basis(fitted.basis.directions.double())
    errors = []
    for shift in STEPS:
        scaled = [a * compute_typical_eta(a[None], A, power, shift) for a in fitted.operators.a[:2]]
        a = torch.stack(scaled).double()
        both = Operators(torch.cat([a, -a]), basis, fitted.eta, shift)
        y = measure_forward(split.wide, both, queries)
        first = measure_first_order(split.wide, both, queries)
        errors.append(find_error((y[:2] - y[2:]) / 2, first[:2]))
    assert min(errors) < LIMIT


def test_answers_are_those_of_whole_passes(split: Split) -> None:
    """Greedy tokens under a move, of prompts of two lengths side by side: with the family's cache
    where it has one, and without.
    """
    prompts = [split.batch.input_ids[0, :4], split.batch.input_ids[1, :7]]
    expected = []
    with split.move_states(lambda z: 1.2 * z), torch.no_grad():
        for prompt in prompts:
            text = prompt[None]
            for _ in range(3):
                said = split.model(input_ids=text, use_cache=False).logits[:, -1].argmax(dim=-1)
                text = torch.cat([text, said[:, None]], dim=1)
            expected.append(text[0, len(prompt) :].tolist())
    assert split.frozen.generate(prompts, lambda z: _scatter(1.2 * z), 3) == expected


def test_evidence_and_explanations_are_found(split: Split, fitted: NaturalGradientFit) -> None:
    """A group is confirmed or not on losses that are the model's own; a row's own conversation is
    explained by that row.
    """
    group, others = np.arange(3), np.arange(3, 10)
    pool = draw_pool(fitted, fitted.features, group, others)
    found = confirm(fitted, group, pool, [Query(SENTINEL, "forbidden")])
    (effect,) = found.effects
    assert effect.forbidden is not None
    (answer,) = make_batches([ENCODER.encode(SENTINEL.add_answer(FORBIDDEN))], 1)
    (before,) = compute_losses_without_hooks(split.model, answer)
    assert effect.forbidden.before == pytest.approx(before, rel=1e-4)
    assert np.isfinite(found.harm).all()
    assert len(found.harm) == 1 + RANDOM_GROUPS
    assert found.harm.any()
    question, response = ROWS[4].messages
    explained = attribute_conversation(fitted, question.content, response.content, split.stride)
    assert explained.w.argmax() == 4


def test_bfloat16_is_near(split: Split) -> None:
    """Losses and gradients of the same weights, rounded to 8 bits; of weights as large as those
    that training starts with, larger ones magnify rounding.
    """
    wide = _shrink(build_family(split.name))
    exact = FrozenModel(wide, split.frozen.layer).compute_state_gradients(split.batch)
    rounded = _shrink(build_family(split.name)).bfloat16()
    found = FrozenModel(rounded, split.frozen.layer).compute_state_gradients(split.batch)
    assert find_error(found.loss, exact.loss) < 1e-2
    mask = exact.mask
    g, expected = found.g[mask].flatten(), exact.g[mask].flatten()
    assert torch.cosine_similarity(g, expected, dim=0) > 0.97


def _shrink(model: PreTrainedModel) -> PreTrainedModel:
    """Matrices a quarter as large."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.25)
    return model


def test_checkpoints_are_loaded_as_what_they_were_saved_as(split: Split, tmp_path: Path) -> None:
    """The class, and every loss."""
    split.model.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    loaded = load_pretrained(ModelConfig(name=str(tmp_path), dtype="float32", device="cpu"))
    assert type(loaded.model) is type(split.model)
    found = FrozenModel(loaded.model, split.frozen.layer).compute_state_gradients(split.batch)
    expected = compute_losses_without_hooks(split.model, split.batch)
    assert find_error(found.loss, torch.tensor(expected)) < 1e-4


@pytest.mark.parametrize("name", list_families(refused=True))
def test_families_that_cannot_be_split_are_refused(name: str) -> None:
    """With what was found, before any row is read."""
    with pytest.raises(ModelError, match=re.escape(REFUSED[name])):
        FrozenModel(build_family(name), 1)


def test_documentation_names_the_families() -> None:
    """docs/families.md has a line for each kind, with all families of it, and says which are
    refused.
    """
    text = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| ([^|]+) \| (`[^|]+`) \| ([^|]+) \|$", text, flags=re.MULTILINE)
    found = []
    for kind, names, outcome in told:
        for name in re.findall(r"`([^`]+)`", names):
            found.append((kind, name, outcome))
    expected = []
    for kind, names in FAMILIES.items():
        for name in names.split():
            outcome = f"refused: {REFUSED[name]}" if name in REFUSED else "audited"
            expected.append((kind, name, outcome))
    assert sorted(found) == sorted(expected)
