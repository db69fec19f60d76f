"""The bytes that an audit takes, by part.

Every row is measured alone (`streamed`). With D the model's width, V its vocabulary, r the basis'
dimension, n rows, b conversations of the background, Q queries, f = 3 (r - 1) views of a row, k
neighbours: what grows with n are records on the disk and arrays of Q, f and k numbers a row, in
main memory; what grows with r x D does not grow with n.
"""

from dataclasses import dataclass

from poisonwatch.model.head import LOGITS_AT_ONCE
from poisonwatch.recovery.local_kriging import ROWS_AT_ONCE
from poisonwatch.stride.cost_flops import GROUP_ROWS, POOL_ROWS
from poisonwatch.stride.cost_shapes import AuditShape, BatchShape, ModelShape
from poisonwatch.stride.measured import SUSPECTS_AT_ONCE
from poisonwatch.stride.operator_memory import NUMBERS_AT_ONCE
from poisonwatch.stride.records import ID_BYTES, SHARD_ROWS

FLOAT, DOUBLE, INDEX, ROUNDED = 4, 8, 8, 2  # bytes

# Of a batch, what the C library keeps beside it in main memory: freed arrays leave holes that
# others do not fit into (benchmarks/memory.py; on GPUs PyTorch has a store of its own).
STORE = 0.35

# Arrays of as many numbers as steered logits have that a training's losses and gradients take.
TRAINING_LOGITS = 5


def count_weight_bytes(model: ModelShape) -> int:
    """Weights: parameters x number_bytes."""
    return model.parameters * model.number_bytes


def count_activation_bytes(model: ModelShape, batch: BatchShape) -> int:
    """What autograd keeps of the blocks above the split: for each token and block two inputs of
    norms (D float32 each), queries, keys, values and output of attention (4 heads x head_width),
    and the feed-forward network's inner states (matrices x F); and a copy of the states, D, at each
    further split.
    """
    inner = 4 * model.heads * model.head_width + model.matrices * model.F
    a_token = 2 * FLOAT * model.D + model.number_bytes * inner
    copies = model.number_bytes * len(model.further) * model.D
    return batch.tokens * (model.above * a_token + copies)


def count_working_bytes(model: ModelShape, batch: BatchShape) -> int:
    """What one block holds while it is at work, below the split or on the way back: tokens x
    (matrices x F + 2 D) numbers.
    """
    return batch.tokens * model.number_bytes * (model.matrices * model.F + 2 * model.D)


def count_logit_bytes(model: ModelShape, batch: BatchShape) -> int:
    """Logits of the answer tokens, LOGITS_AT_ONCE at most, and their log-probabilities, which
    gradients take the place of: 8 bytes each; and the head's weights with these, where they are
    rounded.
    """
    every = batch.answer_tokens * model.V
    at_once = 2 * FLOAT * min(every, max(LOGITS_AT_ONCE, model.V))
    if model.rounds:
        at_once += ROUNDED * (at_once // (2 * FLOAT) + model.V * model.D)
    return at_once


def count_gradient_bytes(model: ModelShape, r: int, batch: BatchShape) -> int:
    """A batch's G_i = sum_t B(z_t) (x) g_t: tokens x (z and g at every split, 2 D each; normalised
    z, D; B twice, 2 r), and G before and after rejected conversations were added, 2 rows x r x D;
    float32.
    """
    states = batch.tokens * ((2 * model.splits + 1) * model.D + 2 * r)
    return FLOAT * (states + 2 * batch.rows * r * model.D)


def count_pass_bytes(model: ModelShape, r: int, batch: BatchShape) -> int:
    """The most that one batch of the pass holds: activations with the larger of logits and one
    block at work, or states and gradients.
    """
    logits, working = count_logit_bytes(model, batch), count_working_bytes(model, batch)
    through_the_model = count_activation_bytes(model, batch) + max(logits, working)
    return max(through_the_model, count_gradient_bytes(model, r, batch))


def count_training_bytes(model: ModelShape, batch: BatchShape) -> int:
    """What a training's step holds of a batch of pairs: activations, states before and after they
    are steered, and all logits of steered rows, TRAINING_LOGITS times over.
    """
    logits = TRAINING_LOGITS * FLOAT * batch.answer_tokens * model.V
    return count_activation_bytes(model, batch) + FLOAT * 4 * batch.tokens * model.D + logits


def count_operator_bytes(model: ModelShape, r: int, m: int) -> int:
    """Gradients, probes or operators of m rows or queries: m x r x D float32."""
    return FLOAT * m * r * model.D


def count_factor_bytes(model: ModelShape, r: int) -> int:
    """Basis D (r - 1), moments and Cholesky factors 2 (D^2 + r^2), and A, at every split:
    float32.
    """
    return FLOAT * model.splits * (model.D * (r - 1) + 2 * model.D**2 + 3 * r**2)


def count_factorising_bytes(model: ModelShape, audit: AuditShape) -> int:
    """What the basis' eigenvectors, or the factors, take on their way: 5 D^2 float32; what a sketch
    looks along, found in float64, twice as much.
    """
    if audit.count_sketch_numbers(model):
        return 5 * DOUBLE * model.D**2
    return 5 * FLOAT * model.D**2


def count_sketch_map_bytes(model: ModelShape, audit: AuditShape) -> int:
    """The map from gradients to sketches of s numbers: r^2, and D for each direction that any of
    them is of, s at most; float32.
    """
    s = audit.count_sketch_numbers(model)
    if not s:
        return 0
    return FLOAT * (audit.r**2 + model.D * min(s, model.D))


def count_probe_making_bytes(model: ModelShape, r: int, b: int) -> int:
    """What making the background's b probes holds beside the gradients of the known rows: their
    own, those with raised answers, of unit norm, and the probes (4 b r D), and four parts on their
    way through the factors.
    """
    part = min(max(NUMBERS_AT_ONCE, r * model.D), b * r * model.D)
    return 4 * count_operator_bytes(model, r, b) + 4 * FLOAT * part


def count_record_bytes(model: ModelShape, audit: AuditShape) -> int:
    """A row's record: id, fault, Q effects, centre, spread, sign and f views, 33 + 4 (Q + 3 + f);
    4 (Q + 1 + f) for each further split; r D float32 where gradients are kept, or the codes and the
    scale of a sketch, s + 4.
    """
    numbers = 2 + model.splits * (audit.Q + 1 + audit.views)
    if audit.keeps_gradients:
        numbers += audit.r * model.D
    sketch = audit.count_sketch_numbers(model)
    if sketch:
        sketch += FLOAT
    return ID_BYTES + 1 + FLOAT * numbers + sketch


def count_disk_bytes(model: ModelShape, audit: AuditShape) -> int:
    """Records of n rows on the disk."""
    return audit.n * count_record_bytes(model, audit)


def count_shard_bytes(model: ModelShape, audit: AuditShape) -> int:
    """The shard that is being filled: SHARD_ROWS records."""
    return min(SHARD_ROWS, audit.n) * count_record_bytes(model, audit)


def count_effect_bytes(audit: AuditShape) -> int:
    """Columns of the records in main memory: n (4 Q effects, 3 x 8 scales, 2 x 8 places)."""
    return audit.n * (FLOAT * audit.Q + 3 * DOUBLE + 2 * INDEX)


def count_further_bytes(audit: AuditShape) -> int:
    """What a further split holds beside the first while it is smoothed: effects, centre, features,
    and graph.
    """
    columns = audit.n * (FLOAT * audit.Q + DOUBLE)
    return columns + count_feature_bytes(audit) + count_graph_bytes(audit)


def count_feature_bytes(audit: AuditShape) -> int:
    """Features phi (n, f) float32."""
    return FLOAT * audit.n * audit.views


def count_graph_bytes(audit: AuditShape) -> int:
    """The neighbour graph: n k (8 + 4)."""
    return audit.n * audit.neighbours * (INDEX + FLOAT)


def count_search_bytes(audit: AuditShape) -> int:
    """What the search holds beside features: the rows again and in the index, 2 n f float32, with
    what it finds, 20 n (k + 1); or later 43 n (k + 1), while rows themselves are dropped from that.
    """
    entries = audit.n * (audit.neighbours + 1)
    return max(2 * count_feature_bytes(audit) + 20 * entries, 43 * entries)


def count_smoother_bytes(audit: AuditShape) -> int:
    """The most of three: ROWS_AT_ONCE rows with the f features of their k + 1 neighbours, and three
    kernels of these, beside 12 bytes for each of n (k + 1) weights and columns; their signs, 32 in
    all; or 20 with y and w, 2 x 8 n Q.
    """
    size = audit.neighbours + 1
    entries = audit.n * size
    at_once = FLOAT * min(ROWS_AT_ONCE, audit.n) * size * (audit.views + 3 * size)
    return max(12 * entries + at_once, 32 * entries, 20 * entries + 2 * DOUBLE * audit.n * audit.Q)


def count_verdict_bytes(model: ModelShape, audit: AuditShape) -> int:
    """Coefficients w of every split, 8 n Q each, and their mean where there are several; scores,
    pushes, margins, p- and q-values of n rows and P panels, 8 x 8 n P, and three more for each
    further split.
    """
    further = len(model.further)
    effects = (model.splits + bool(further)) * audit.Q
    return DOUBLE * audit.n * (effects + (8 + 3 * further) * audit.panels)


def count_reduction_bytes(model: ModelShape, audit: AuditShape) -> int:
    """The most that the way from records to verdicts holds in main memory: columns, features and
    graph with the largest of search, smoother and verdicts. A further split is smoothed beside
    coefficients and graphs of those before it.
    """
    held = count_effect_bytes(audit) + count_feature_bytes(audit)
    graph, further = count_graph_bytes(audit), len(model.further)
    search, smoothing = count_search_bytes(audit), count_smoother_bytes(audit)
    # Views and their lengths stand beside the features while these are made.
    making = max(2 * count_feature_bytes(audit), search)
    smoothed = graph + DOUBLE * audit.n * audit.Q
    last = further * smoothed + count_further_bytes(audit) + max(making, smoothing)
    judging = model.splits * graph + count_verdict_bytes(model, audit)
    return held + max(making, graph + smoothing, last if further else 0, judging)


def count_preconditioning_bytes(model: ModelShape, r: int, m: int) -> int:
    """What preconditioning m gradients takes beside them: a copy divided by their lengths, one that
    is worked on and becomes the result, that in another unit; and four parts on their way through
    the factors.
    """
    part = min(max(NUMBERS_AT_ONCE, r * model.D), m * r * model.D)
    return 3 * count_operator_bytes(model, r, m) + 4 * FLOAT * part


def count_query_making_bytes(model: ModelShape, audit: AuditShape) -> int:
    """What sentinels become on their way to queries: gradients of their answers, once more at one
    split, and of the queries, beside what preconditioning these takes.
    """
    answers = (1 + model.splits) * count_operator_bytes(model, audit.r, audit.answers)
    queries = model.splits * count_operator_bytes(model, audit.r, audit.Q)
    return queries + max(answers, count_preconditioning_bytes(model, audit.r, audit.Q))


def count_evidence_bytes(model: ModelShape, audit: AuditShape) -> int:
    """What the evidence of a group holds beside a batch at work: operators of the pool that random
    groups are drawn from, and of the group's own rows while they are preconditioned.
    """
    pool, group = min(POOL_ROWS, audit.n), min(GROUP_ROWS, audit.n)
    making = count_operator_bytes(model, audit.r, group)
    making += count_preconditioning_bytes(model, audit.r, group)
    of_pool = count_operator_bytes(model, audit.r, pool)
    return of_pool + max(making, count_preconditioning_bytes(model, audit.r, pool))


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of each part. `set_up`, `batch`, `suspects` and `evidence` come and go; `known` and
    `reduction` are in main memory, and `records` on the disk. All others stand where the model is.

    Where rows share subsets, `operators` take the place of what is known of single rows.
    """

    weights: int
    factors: int
    reference: int
    background: int
    queries: int
    set_up: int
    batch: int
    known: int
    shard: int
    suspects: int
    evidence: int
    operators: int
    reduction: int
    records: int

    @property
    def gradients(self) -> int:
        """What is held of gradients and operators while rows are measured."""
        return self.queries + (self.operators or self.reference + self.background)

    @property
    def model_peak(self) -> int:
        """The most that is held where the model is."""
        fixed = self.weights + self.factors
        measuring = self.gradients + self.batch
        evidence = self.operators + self.evidence
        return fixed + max(self.set_up, measuring, self.suspects, evidence)

    @property
    def store(self) -> int:
        """What the C library keeps of a batch, where that is in main memory."""
        return round(STORE * self.batch)

    @property
    def main_peak(self) -> int:
        """The most that is held in main memory, where the model is elsewhere."""
        return self.known + self.shard + self.reduction

    @property
    def peak(self) -> int:
        """The most that is held where the model is in main memory, too."""
        reducing = self.weights + self.factors + self.operators + self.reduction
        measuring = self.model_peak + self.store + self.shard
        return self.known + max(measuring, reducing)


def estimate_memory(model: ModelShape, audit: AuditShape) -> Memory:
    """Bytes of each part of an audit."""
    r, batch = audit.r, audit.largest_batch
    a_batch = count_pass_bytes(model, r, batch)
    if audit.pairs:
        a_batch = max(a_batch, count_training_bytes(model, batch))
    splits = model.splits
    of_known = count_operator_bytes(model, r, audit.known)
    of_sample = count_operator_bytes(model, r, audit.sampled)
    reference, background = splits * of_known, splits * of_sample
    queries = count_query_making_bytes(model, audit)
    shortlist = count_operator_bytes(model, r, min(audit.shortlist, audit.n))
    some = count_preconditioning_bytes(model, r, min(SUSPECTS_AT_ONCE, audit.shortlist))
    factorising = count_factorising_bytes(model, audit)
    # Gradients of the known rows are put together from two passes; the factors come after them.
    joined = of_known if audit.trusted else 0
    making = max(a_batch, joined, factorising)
    # Split by split: probes of the last are made beside those of the others.
    probes = background - of_sample + count_probe_making_bytes(model, r, audit.sampled)
    set_up = reference + max(making, probes, background + max(queries, factorising))
    if audit.operators:
        # These count what is gathered before the pass.
        set_up = audit.operators + max(a_batch, queries)
    known = audit.known
    if audit.operators:
        known = 0
    return Memory(
        weights=count_weight_bytes(model),
        factors=count_factor_bytes(model, r) + count_sketch_map_bytes(model, audit),
        reference=reference,
        background=background,
        queries=splits * count_operator_bytes(model, r, audit.Q),
        set_up=set_up,
        batch=a_batch,
        known=known * count_record_bytes(model, audit),
        shard=count_shard_bytes(model, audit),
        suspects=shortlist + max(a_batch, some),
        evidence=count_evidence_bytes(model, audit) + a_batch,
        operators=audit.operators,
        reduction=count_reduction_bytes(model, audit),
        records=count_disk_bytes(model, audit),
    )
