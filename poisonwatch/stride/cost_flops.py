"""The operations that an audit takes, by stage.

An operation is a multiplication or an addition: a product with a matrix of W weights takes 2 W a
token. Norms, activations and embeddings, some hundredths of it, are left out. Letters are those of
`cost_memory`.
"""

from dataclasses import dataclass

from poisonwatch.recovery.neighbours import (
    CELL_ROWS,
    CELLS_PROBED,
    EXACT_UP_TO,
    MOST_CELLS,
    TRAINING_ROUNDS,
    TRAINING_ROWS,
)
from poisonwatch.stride.cost_shapes import AuditShape, ModelShape
from poisonwatch.stride.operators import BASIS_ROWS

# Of a group of flagged rows (`detection.confirmation`), at most: rows that it is steered with, rows
# that random groups are drawn from, operators, answers that are measured, tokens of a continuation.
GROUP_ROWS, POOL_ROWS, STEERINGS, STEERED_ANSWERS, GENERATED = 64, 128, 10, 6, 32


def count_forward_flops(model: ModelShape, tokens: float, width: float, blocks: int) -> float:
    """Tokens of rows of `width` tokens through so many blocks: 2 x passed weights each, and 4 heads
    x head_width x width of attention.
    """
    attention = 4 * model.heads * model.head_width * width
    return tokens * blocks * (2 * model.passed_weights + attention)


def count_backward_flops(model: ModelShape, tokens: float, width: float) -> float:
    """From the head back to the split. Weights are frozen, so that a product takes as many as on
    the way up; attention takes 2.5 times as many, since its weights are computed again.
    """
    attention = 10 * model.heads * model.head_width * width
    return tokens * model.above * (2 * model.passed_weights + attention)


def count_head_flops(model: ModelShape, answer_tokens: float) -> float:
    """Logits and their way back: 2 x 2 D V an answer token."""
    return answer_tokens * 4 * model.D * model.V


def count_gradient_flops(
    model: ModelShape, r: int, tokens: float, width: float, answer_share: float
) -> float:
    """Gradients and views of rows: forward, head, backward, U^T z for both, 2 x 2 D (r - 1), and
    G, 2 r D a token; U^T z and G again at each further split.
    """
    through_the_model = (
        count_forward_flops(model, tokens, width, model.depth)
        + count_head_flops(model, tokens * answer_share)
        + count_backward_flops(model, tokens, width)
    )
    a_split = model.D * (2 * (r - 1) + 2 * r)
    return through_the_model + tokens * (model.splits * a_split + 2 * model.D * (r - 1))


def count_effect_flops(model: ModelShape, r: int, m: int, queries: int) -> float:
    """Inner products of m gradients with so many queries: 2 r D each."""
    return 2.0 * m * queries * r * model.D


def count_sketch_flops(model: ModelShape, audit: AuditShape, m: int) -> float:
    """Sketches of m gradients: 2 r D (r + s) at most each."""
    s = audit.count_sketch_numbers(model)
    if not s:
        return 0.0
    return 2.0 * m * audit.r * model.D * (audit.r + min(s, model.D))


def count_preconditioning_flops(model: ModelShape, r: int, m: int) -> float:
    """Two triangular solutions on either side of m gradients: 2 r D (r + D) each."""
    return 2.0 * m * r * model.D * (r + model.D)


def count_search_flops(n: int, f: int) -> float:
    """The nearest of n rows of f numbers: 2 n^2 f where all pairs are looked at; else each row with
    all centres and the rows of CELLS_PROBED cells, and TRAINING_ROUNDS of k-means.
    """
    if n <= EXACT_UP_TO:
        return 2.0 * n * n * f
    cells = min(n // CELL_ROWS, MOST_CELLS)
    near = CELLS_PROBED * n / cells
    training = TRAINING_ROUNDS * min(TRAINING_ROWS * cells, n) * cells
    return 2.0 * f * (n * (2 * cells + near) + training)


def count_smoothing_flops(audit: AuditShape, splits: int = 1) -> float:
    """Neighbours; for each row a kernel of k + 1 neighbours, 2 (k + 1)^2 f, solved in 2/3 (k +
    1)^3; and n (k + 1) weights times Q effects; at each of the `splits`.
    """
    size = audit.neighbours + 1
    weights = 2 * size**2 * audit.views + 2 / 3 * size**3
    search = count_search_flops(audit.n, audit.views)
    return splits * (search + audit.n * (weights + 2 * size * audit.Q))


def count_evidence_flops(model: ModelShape, audit: AuditShape, groups: int) -> float:
    """Steering with `groups` groups of flagged rows, at most: gradients of theirs and of those that
    random groups are drawn from, unless they are kept; STEERED_ANSWERS answers above the split
    under STEERINGS operators, and once as they are; GENERATED tokens of half as many, twice.
    """
    flops = 0.0
    width = audit.row_tokens
    if not audit.keeps_gradients and groups:
        tokens = groups * (POOL_ROWS + GROUP_ROWS) * width
        flops += count_gradient_flops(model, audit.r, tokens, width, audit.answer_share)
    answers = groups * STEERED_ANSWERS * audit.answer_length
    flops += count_forward_flops(model, answers, audit.answer_length, model.depth)
    flops += count_forward_flops(model, answers * STEERINGS, audit.answer_length, model.above)
    # A third of an answer's tokens and more are its prompt's: what is generated goes on from it.
    generated = groups * STEERED_ANSWERS / 2 * 2 * (audit.answer_length + GENERATED)
    return flops + count_forward_flops(model, generated, audit.answer_length, model.depth)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flops:
    """Operations of each stage, in the order in which they come. `evidence` is that of one group of
    flagged rows, and no part of `total`: nobody knows before how many there are.
    """

    basis: float
    reference: float
    sentinels: float
    rows: float
    smoothing: float
    suspects: float
    evidence: float

    @property
    def total(self) -> float:
        """Of an audit that flags nothing."""
        before = self.basis + self.reference + self.sentinels
        return before + self.rows + self.smoothing + self.suspects


def estimate_flops(model: ModelShape, audit: AuditShape) -> Flops:
    """Operations of each stage of an audit."""
    r, D, width, splits = audit.r, model.D, audit.row_tokens, model.splits

    def count_rows(m: int) -> float:
        """Gradients of m rows, their effects, and their sketches."""
        flops = count_gradient_flops(model, r, m * width, width, audit.answer_share)
        flops += count_sketch_flops(model, audit, m)
        return flops + splits * count_effect_flops(model, r, m, audit.sampled + audit.Q)

    basis_tokens = min(BASIS_ROWS, audit.trusted or audit.sampled) * width
    last = max((model.layer, *model.further))
    # Eigenvectors take about 9 D^3 (Golub and Van Loan, Matrix Computations, section 8.3).
    basis = count_forward_flops(model, basis_tokens, width, last)
    basis += splits * (basis_tokens * 2 * D**2 + 9.0 * D**3)
    moments = audit.known * width * 2 * (D**2 + r**2 + D * (r - 1)) + D**3 / 3
    reference = count_rows(audit.known) + splits * moments
    reference += splits * count_preconditioning_flops(model, r, audit.sampled)
    # Sentinels are run once beforehand, to find those that cannot tell anything.
    tokens = audit.answers * audit.answer_length
    sentinels = count_forward_flops(model, tokens, audit.answer_length, model.depth)
    sentinels += count_gradient_flops(model, r, tokens, audit.answer_length, 0.5)
    sentinels += splits * count_preconditioning_flops(model, r, audit.Q)
    m = min(audit.shortlist, audit.n)
    suspects = count_preconditioning_flops(model, r, m) + count_effect_flops(model, r, m, m)
    if not audit.keeps_gradients:
        suspects += count_gradient_flops(model, r, m * width, width, audit.answer_share)
    return Flops(
        basis=basis,
        reference=reference,
        sentinels=sentinels,
        rows=count_rows(audit.n - audit.known),
        smoothing=count_smoothing_flops(audit, splits),
        suspects=suspects,
        evidence=count_evidence_flops(model, audit, groups=1),
    )
