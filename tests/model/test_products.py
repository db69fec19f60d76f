"""bfloat16 factors, float32 sums: what they change, and what they leave alone."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_models import FAMILIES, build_model
from torch import nn
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

import poisonwatch.model.pretrained
from poisonwatch.config import ModelConfig
from poisonwatch.errors import ModelError
from poisonwatch.model.encoding import Encoded, make_batches
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.model.products import (
    BfloatConv1D,
    BfloatLinear,
    describe_products,
    has_bfloat16_products,
    use_bfloat16_products,
)

Models = Callable[[str], PreTrainedModel]

needs_them = pytest.mark.skipif(
    not has_bfloat16_products(), reason="this processor has no bfloat16 products"
)


@pytest.fixture
def layers() -> dict[str, nn.Module]:
    """A frozen linear layer of either kind, with a bias that counts."""
    torch.manual_seed(0)
    conv = Conv1D(96, 64)
    nn.init.normal_(conv.bias)
    kinds = {"linear": nn.Linear(64, 96), "no bias": nn.Linear(64, 96, bias=False), "conv1d": conv}
    return {name: layer.requires_grad_(False) for name, layer in kinds.items()}


def twin(layer: nn.Module) -> nn.Module:
    """The layer with bfloat16 products."""
    copied = copy.deepcopy(layer)
    use_bfloat16_products(copied)  # type: ignore[arg-type]
    return copied


@needs_them
@pytest.mark.parametrize("kind", ["linear", "no bias", "conv1d"])
def test_products_are_of_rounded_factors_with_float32_sums(
    layers: dict[str, nn.Module], kind: str
) -> None:
    """y = round(x) round(W)^T + b, and dx = round(dy) round(W): both within float32's rounding, and
    not the unrounded products.
    """
    layer = layers[kind]
    x = torch.randn(4, 50, 64, requires_grad=True)
    weight = layer.weight.T if kind == "conv1d" else layer.weight
    W = weight.bfloat16().float()
    b = 0.0 if layer.bias is None else layer.bias
    y = twin(layer)(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, x.bfloat16().float() @ W.T + b, rtol=1e-5, atol=1e-5)
    assert (y - layer(x)).abs().max() > 1e-3
    dy = torch.randn_like(y)
    (dx,) = torch.autograd.grad(y, x, dy)
    torch.testing.assert_close(dx, dy.bfloat16().float() @ W, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_a_layer_in_training_multiplies_as_ever(layers: dict[str, nn.Module], kind: str) -> None:
    """requires_grad: the weight gets the gradient it would get, in float32."""
    layer = layers[kind]
    x = torch.randn(50, 64)
    grads = []
    for trained in (copy.deepcopy(layer), twin(layer)):
        trained.requires_grad_(True)
        trained(x).pow(2).sum().backward()
        grads.append(trained.weight.grad)
    assert torch.equal(grads[0], grads[1])


@needs_them
def test_a_layer_that_nobody_trains_needs_no_freezing() -> None:
    """Under no_grad the weights may require gradients: as of a model that was just loaded."""
    layer = twin(nn.Linear(64, 96))
    x = torch.randn(50, 64)
    with torch.no_grad():
        found = layer(x)
    assert not torch.equal(found, layer(x))
    assert torch.equal(found, layer.requires_grad_(False)(x))


@pytest.mark.parametrize("kind", ["linear", "no bias", "conv1d"])
def test_few_tokens_are_multiplied_as_ever(layers: dict[str, nn.Module], kind: str) -> None:
    """Seven tokens, as in generation: float32's y, from the first bit to the last but one."""
    x = torch.randn(7, 1, 64)
    torch.testing.assert_close(twin(layers[kind])(x), layers[kind](x), rtol=1e-6, atol=1e-6)


@needs_them
@pytest.mark.parametrize("family", FAMILIES)
def test_row_gradients_point_the_same_way(family: str, encoded: list[Encoded]) -> None:
    """cos(g, g_float32) >= .999 for every row of every family; losses within 1 %; not equal."""
    plain = build_model(family, hidden_size=64, intermediate_size=256)
    fast = copy.deepcopy(plain)
    use_bfloat16_products(fast)
    (batch,) = make_batches(encoded, 100_000)
    expected = FrozenModel(plain, 1).compute_state_gradients(batch)
    found = FrozenModel(fast, 1).compute_state_gradients(batch)
    cosine = cosine_similarity(found.g.flatten(1), expected.g.flatten(1))
    assert cosine.min() > 0.999
    torch.testing.assert_close(found.loss, expected.loss, rtol=0.01, atol=0)
    assert not torch.equal(found.g, expected.g)


@needs_them
def test_products_elsewhere_stay_float32() -> None:
    """After a pass, and after one that fails: torch's own products are as they were."""
    a, b = torch.randn(128, 128), torch.randn(128, 128)
    before = a @ b
    layer = twin(nn.Linear(128, 128).requires_grad_(False))
    layer(a)
    assert torch.equal(a @ b, before)
    with pytest.raises(RuntimeError):
        layer(torch.randn(3, 7))
    assert torch.equal(a @ b, before)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_layer_is_changed_and_no_weight(family: str) -> None:
    """Each nn.Linear and Conv1D; ties and the state dict stay."""
    model = build_model(family, tie_word_embeddings=True)
    weights = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    assert describe_products(model) == "torch.float32"
    use_bfloat16_products(model)
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == weights
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    changed = 0
    for module in model.modules():
        if isinstance(module, nn.Linear | Conv1D):
            assert isinstance(module, BfloatLinear | BfloatConv1D)
            changed += 1
    assert changed > 3 * model.config.num_hidden_layers
    assert describe_products(model) == "torch.float32, bfloat16 products"


def test_tiny_models_keep_float32(tiny_folder: Path) -> None:
    """auto: below 20M parameters nothing is rounded; `float32` never is."""
    for products in ("auto", "float32"):
        config = ModelConfig(name=str(tiny_folder), device="cpu", products=products)
        assert load_pretrained(config).precision == "torch.float32"


def test_large_models_are_multiplied_by_what_the_processor_can(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """auto, from 20M parameters on: bfloat16 products where there are any, and for float32 alone."""
    monkeypatch.setattr(poisonwatch.model.pretrained, "LEAST_PARAMETERS", 1)
    config = ModelConfig(name=str(tiny_folder), device="cpu")
    for able, expected in ((True, "torch.float32, bfloat16 products"), (False, "torch.float32")):
        monkeypatch.setattr(
            poisonwatch.model.pretrained, "has_bfloat16_products", lambda able=able: able
        )
        assert load_pretrained(config).precision == expected
    monkeypatch.setattr(poisonwatch.model.pretrained, "has_bfloat16_products", lambda: True)
    half = config.model_copy(update={"dtype": "bfloat16"})
    assert load_pretrained(half).precision == "torch.bfloat16"


def test_products_that_the_processor_lacks_are_refused(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """products: bfloat16, by name, on a processor without."""
    monkeypatch.setattr(poisonwatch.model.pretrained, "has_bfloat16_products", lambda: False)
    with pytest.raises(ModelError, match="leave it at auto"):
        load_pretrained(ModelConfig(name=str(tiny_folder), device="cpu", products="bfloat16"))
