"""What an audit's costs depend on: the sizes of the model, and of the rows and sentinels."""

from dataclasses import dataclass, replace
from typing import Any

from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.products import describe_products
from poisonwatch.recovery.neighbours import NEAREST
from poisonwatch.stride.similarity import VIEWS

# Families whose feed-forward networks have two matrices; those of all others have a gate, a third.
WITHOUT_GATE = (
    *("bloom", "codegen", "falcon", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "mpt"),
    *("opt", "phi", "starcoder2"),
)

# What families call the same size; the first that a configuration has.
HEADS = ("num_attention_heads",)
KV_HEADS = ("num_key_value_heads", "num_attention_heads")
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
USED_EXPERTS = ("num_experts_per_tok", "num_experts_per_token", "moe_topk")
FEED_FORWARD = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
EXPERT_WIDTH = ("moe_intermediate_size", *FEED_FORWARD)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A decoder-only model split below block `layer` of `depth` blocks of width `D`, and below the
    blocks `further` above it.

    Attention has `heads` and `kv_heads` of `head_width` numbers each. `F` is the feed-forward width
    that a token passes: of all its experts together where there are several; `F_held` is that of
    all experts that are there. A feed-forward network has `matrices` of D x F weights. Embeddings
    of `V` tokens are stored once where they are `tied`. A weight takes `number_bytes`. Products
    of float32 that a processor `rounds` to bfloat16 take copies of their factors.
    """

    D: int
    depth: int
    layer: int
    heads: int
    kv_heads: int
    head_width: int
    F: int
    F_held: int
    V: int
    matrices: int = 3
    tied: bool = True
    number_bytes: int = 4
    rounds: bool = False
    further: tuple[int, ...] = ()

    @classmethod
    def from_config(
        cls, config: Any, layer: int | None = None, number_bytes: int = 4
    ) -> "ModelShape":
        """Of a transformers configuration, split below `layer` (two fifths of the depth where None
        is given). Blocks are taken to be of one kind.
        """
        config = config.get_text_config()
        D, depth = int(config.hidden_size), int(config.num_hidden_layers)
        heads = _find_size(config, HEADS, 1)
        F = F_held = _find_size(config, FEED_FORWARD, 4 * D)
        experts = _find_size(config, EXPERTS, 1)
        if experts > 1:
            width = _find_size(config, EXPERT_WIDTH, F)
            # Experts that every token passes, beside those that it is sent to.
            shared = _find_size(config, ("shared_expert_intermediate_size",), 0)
            shared += width * _find_size(config, ("n_shared_experts",), 0)
            F = shared + width * _find_size(config, USED_EXPERTS, 1)
            F_held = shared + width * experts
        if layer is None:
            layer = depth * 2 // 5
        return cls(
            D=D,
            depth=depth,
            layer=layer,
            heads=heads,
            kv_heads=_find_size(config, KV_HEADS, heads),
            head_width=_find_size(config, ("head_dim",), D // heads),
            F=F,
            F_held=F_held,
            V=int(config.vocab_size),
            matrices=2 if config.model_type in WITHOUT_GATE else 3,
            tied=bool(getattr(config, "tie_word_embeddings", True)),
            number_bytes=number_bytes,
        )

    @classmethod
    def of_model(cls, model: FrozenModel) -> "ModelShape":
        """Of a model that is split already."""
        inner = model.model
        shape = cls.from_config(inner.config, model.layer, inner.dtype.itemsize)
        rounds = describe_products(inner) != str(inner.dtype)
        return replace(shape, rounds=rounds, further=model.further)

    @property
    def above(self) -> int:
        """Blocks above the split: those that a backward pass goes through."""
        return self.depth - self.layer

    @property
    def splits(self) -> int:
        """Splits that rows are measured at."""
        return 1 + len(self.further)

    @property
    def attention_weights(self) -> int:
        """Weights of a block's four attention matrices, 2 D (heads + kv_heads) head_width."""
        return 2 * self.D * (self.heads + self.kv_heads) * self.head_width

    @property
    def passed_weights(self) -> int:
        """Weights of a block that a token is multiplied with: attention, and matrices x D x F."""
        return self.attention_weights + self.matrices * self.D * self.F

    @property
    def parameters(self) -> int:
        """All weights of matrices, every expert's and the embeddings' included; norms, biases and
        routers, below a hundredth, are left out.
        """
        held = self.attention_weights + self.matrices * self.D * self.F_held
        embeddings = self.V * self.D
        if not self.tied:
            embeddings *= 2
        return self.depth * held + embeddings


def _find_size(config: Any, names: tuple[str, ...], default: int) -> int:
    """The first of these sizes that a configuration has."""
    for name in names:
        size = getattr(config, name, None)
        if size is not None:
            return int(size)
    return default


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchShape:
    """A batch of `rows` with `tokens`, padding included, `answer_tokens` of which are predicted."""

    rows: int
    tokens: int
    answer_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditShape:
    """The rows and sentinels of an audit in which every row is measured alone.

    Of `n` rows, `trusted` set basis and Fisher factors (0: the background does), and `background`
    are ordinary conversations. Rows have `row_tokens` on average, an `answer_share` of them
    answers; the shortest has `shortest` tokens, the longest `longest` (0: as the average).
    `Q` queries come from `answers` of `answer_length` tokens on average, in `panels`. Gradients are
    `r` x D; of the `shortlist` suspects they are needed once more, unless the pass
    `keeps_gradients`. Where it does not, it keeps sketches of `sketch` bytes. Where rows share
    subsets, these take `operators` bytes; a training runs a row under `pairs` of them at a time.
    """

    n: int
    row_tokens: float
    answer_share: float
    Q: int
    answers: int
    answer_length: float
    panels: int
    r: int
    trusted: int
    background: int
    shortlist: int
    token_budget: int
    keeps_gradients: bool
    sketch: int = 0
    shortest: int = 0
    longest: int = 0
    operators: int = 0
    pairs: int = 0

    @property
    def known(self) -> int:
        """Rows whose gradients are known before the pass: the trusted ones, and the background's
        among all others.
        """
        others = self.n - self.trusted
        return self.trusted + round(self.sampled * others / max(self.n, 1))

    @property
    def sampled(self) -> int:
        """Conversations of the background, b."""
        return min(self.background, self.n)

    @property
    def views(self) -> int:
        """Numbers that say which rows are alike, f = 3 (r - 1)."""
        return VIEWS * (self.r - 1)

    @property
    def neighbours(self) -> int:
        """Neighbours that a row is smoothed over, k."""
        return min(NEAREST, self.n - 1)

    def count_sketch_numbers(self, model: ModelShape) -> int:
        """Numbers in a row's sketch, s; 0 where whole gradients are kept, or nothing of them."""
        if self.keeps_gradients:
            return 0
        return min(self.sketch, self.r * model.D)

    @property
    def largest_batch(self) -> BatchShape:
        """The most of rows, and of tokens, that a batch has: token_budget tokens, or those of one
        longer row.
        """
        row_tokens = max(round(self.row_tokens), 1)
        tokens = min(self.token_budget, max(self.n * row_tokens, 1))
        tokens = max(tokens, self.longest or row_tokens)
        rows = max(1, tokens // max(self.shortest or row_tokens, 1))
        return BatchShape(
            rows=min(rows, self.n),
            tokens=tokens,
            answer_tokens=round(tokens * self.answer_share),
        )
