"""Where a model's blocks and its head are, whatever its family calls them, and whether it can be
split between two blocks.

    x --embedding--> z_0 --block 0--> z_1 -- ... --block L-1--> z_L --head--> o

Names differ from family to family, and so does what happens between these parts. So the parts are
looked up, and then a model is watched while it reads two short texts: what is found there is so,
whatever the family is.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from poisonwatch.errors import ModelError
from poisonwatch.model.devices import find_input_device
from poisonwatch.model.hooks import get_states, replace_head_states, widen
from poisonwatch.text.display import get_first_line

# What a model raises that cannot read text alone, or not as it is called here.
READING_ERRORS = (
    AttributeError,
    ImportError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Architecture:
    """The parts of a model that it is split at. `ends_with_head` says whether logits are what the
    `head` says: some families scale or cap that.
    """

    blocks: nn.ModuleList
    head: nn.Module
    ends_with_head: bool


def inspect_architecture(model: PreTrainedModel) -> Architecture:
    """Find a model's parts, and see that text goes through its blocks one after another, each
    token as one state, and that no token sees a later one.

    Raises ModelError where that is not so.
    """
    blocks, head = find_decoder_blocks(model), _find_head(model)
    watched = _Watched()
    # Two texts that differ in their last token.
    texts = torch.tensor([[0, 1], [0, 2]], device=find_input_device(model))
    with torch.no_grad(), watched.watch(blocks, head):
        try:
            o = model(input_ids=texts, use_cache=False).logits
        except torch.OutOfMemoryError:
            raise
        except READING_ERRORS as error:
            raise _refuse(
                model, f"it does not read text alone in {model.dtype}: {get_first_line(error)}"
            ) from error
    finding = _find_obstacle(watched, len(blocks), (*texts.shape, _get_width(model)))
    if finding is None and differ(o[0, 0], o[1, 0]):
        finding = "its tokens see later ones"
    if finding is not None:
        raise _refuse(model, finding)
    h, said = watched.heard[-1].flatten(0, 1), watched.said[-1]
    ends_with_head = torch.equal(widen(said).to(o.device), widen(o))
    if not ends_with_head and differ(o.flatten(0, 1), compute_logits(model, head, h)):
        raise _refuse(model, "its logits depend on more than the states that its head sees")
    return Architecture(blocks, head, ends_with_head)


def find_decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The stack of transformer blocks, whatever the family calls it. Raises ModelError where there
    is none.
    """
    # The decoder's own: a vision tower may be as deep.
    decoder = model.get_decoder()
    layers = getattr(decoder, "layers", None)
    if isinstance(layers, nn.ModuleList):
        return layers
    # Elsewhere it is called h or blocks, or lies one step deeper; its length is in the
    # configuration of every family. Outer modules come first: of several lists of that length
    # (experts inside a block, say) the outermost is the stack.
    depth = model.config.get_text_config().num_hidden_layers
    for root in (decoder, model):
        for module in root.modules():
            if isinstance(module, nn.ModuleList) and len(module) == depth:
                return module
    raise ModelError(
        f"{type(model).__name__} has no stack of {depth} blocks: "
        "only decoder-only language models can be audited"
    )


def choose_model_class(folder: Any, trust_remote_code: bool) -> Any:
    """The class that loads the checkpoint in a folder whole: of language models, or of those that
    read images, too, where it was saved from one of these.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    reads_images = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.get(config.model_type)
    if reads_images is not None and reads_images in (config.architectures or ()):
        return AutoModelForImageTextToText
    return AutoModelForCausalLM


def compute_logits(model: PreTrainedModel, head: nn.Module, h: Tensor) -> Tensor:
    """The logits (n, V) of states (n, D) that the head sees, with what a family does to them after
    its head.
    """
    # What follows the head stands in the model's own forward: one token goes through all of it, and
    # its state gives way to these at the head.
    token = torch.zeros(1, 1, dtype=torch.long, device=find_input_device(model))
    with torch.set_grad_enabled(h.requires_grad), replace_head_states(head, h):
        logits: Tensor = model(input_ids=token, use_cache=False).logits
    return logits[0]


def differ(x: Tensor, y: Tensor) -> bool:
    """Whether two ways to the same numbers lead to others: to more than half of the digits of their
    type, counted from the largest. What overflows on both is the same.
    """
    tolerance = torch.finfo(x.dtype).eps ** 0.5
    x, y = widen(x), widen(y)
    return bool((x - y).abs().max() > tolerance * x.abs().max())


@dataclass(slots=True)
class _Watched:
    """What was seen of one pass: the blocks that were run, by place, the shapes of the states that
    they were run on, what the head was given, and what it said.
    """

    ran: list[int] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    heard: list[Tensor] = field(default_factory=list)
    said: list[Tensor] = field(default_factory=list)

    @contextmanager
    def watch(self, blocks: nn.ModuleList, head: nn.Module) -> Iterator[None]:
        """Take down what is run inside a `with`."""

        def listen_to(place: int) -> Any:
            def take_down(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                self.ran.append(place)
                self.shapes.append(tuple(get_states(args, kwargs).shape))

            return take_down

        with ExitStack() as hooks:
            for place, block in enumerate(blocks):
                hook = block.register_forward_pre_hook(listen_to(place), with_kwargs=True)
                hooks.enter_context(hook)
            hooks.enter_context(head.register_forward_hook(self._hear))
            yield

    def _hear(self, _: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.heard.append(args[0])
        self.said.append(output)


def _find_obstacle(watched: _Watched, depth: int, shape: tuple[int, ...]) -> str | None:
    """What keeps a model from being split, in words; None where nothing does."""
    times = Counter(watched.ran)
    idle = [place for place in range(depth) if place not in times]
    if idle:
        return f"text alone does not go through block {idle[0]} of its blocks 0 to {depth - 1}"
    if max(times.values()) > 1:
        return f"text goes through its blocks {max(times.values())} times"
    if watched.ran != sorted(watched.ran):
        return "text does not go through its blocks in their order"
    for place, found in zip(watched.ran, watched.shapes, strict=True):
        if found != shape:
            return f"the states before its block {place} have the shape {found}, not {shape}"
    if not watched.said:
        return "its language-model head is not run"
    return None


def _refuse(model: PreTrainedModel, finding: str) -> ModelError:
    return ModelError(
        f"{type(model).__name__} cannot be split between two blocks: {finding}; name a model "
        "whose blocks follow each other, with one state a token"
    )


def _find_head(model: PreTrainedModel) -> nn.Module:
    head: nn.Module | None = model.get_output_embeddings()
    if head is None:
        raise ModelError(
            f"{type(model).__name__} has no language-model head: name a causal language model"
        )
    return head


def _get_width(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config().hidden_size)
