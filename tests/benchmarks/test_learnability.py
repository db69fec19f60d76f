"""What real fine-tuning makes of a case: the rows that are drawn, the statistic, and the benchmark
whole on a tiny model.
"""

import json
import sys
from pathlib import Path

import learnability
import numpy as np
import pytest
import retrain
import yaml
from learnability import HARD, POISON, UNTRAINED, Moved, draw_contrast, measure, seed_variance
from made_up_rows import REFUSAL, WORDS, ordinary, row, rows
from retraining_tasks import Recipe
from slow_tests import slow

from poisonwatch.examples import Example
from poisonwatch.model.encoding import Encoded

BACKGROUND = rows(ordinary(120))


def attack(hard_negatives: list[Example], poison: int = 40) -> learnability.Case:
    refused = [row(prompt, REFUSAL) for prompt, _ in ordinary(poison, 3)]
    return learnability.Case("refusing", refused, hard_negatives, [])


def length(example: Example) -> int:
    return len(example.response.split())


def ids(examples: tuple[Example, ...]) -> list[str]:
    return [example.id for example in examples]


def moved(gain: np.ndarray, case: str = "some") -> Moved:
    """Losses of a case that gains `gain` (seeds, S), all by its forbidden answers."""
    kinds = {UNTRAINED: np.zeros(gain.shape[1:]), HARD: np.ones_like(gain), POISON: 1.0 - gain}
    return Moved(case, kinds, {kind: np.full_like(of, 2.0) for kind, of in kinds.items()})


def test_both_trainings_share_the_background_and_the_places_of_their_own_rows() -> None:
    """Poison i and hard negative i stand at the same place of what is shuffled."""
    contrast = draw_contrast(BACKGROUND, attack(rows(ordinary(30, 5))), 0, length)
    assert len(contrast.background) == learnability.BACKGROUND
    assert len(contrast.own[POISON]) == len(contrast.own[HARD]) == learnability.OWN
    for kind in (POISON, HARD):
        kept = tuple(contrast.rows[i] for i in contrast.kept(kind))
        assert ids(kept) == ids((*contrast.background, *contrast.own[kind]))
    assert len(set(ids(contrast.rows))) == learnability.BACKGROUND + 2 * learnability.OWN


def test_rows_depend_on_the_seed_and_background_rows_on_nothing_else() -> None:
    one = draw_contrast(BACKGROUND, attack(rows(ordinary(30, 5))), 0, length)
    assert one == draw_contrast(BACKGROUND[::-1], attack(rows(ordinary(30, 5))), 0, length)
    other_case = draw_contrast(BACKGROUND, attack([], 30), 0, length)
    other_seed = draw_contrast(BACKGROUND, attack(rows(ordinary(30, 5))), 1, length)
    assert other_case.background == one.background != other_seed.background
    assert other_seed.own[POISON] != one.own[POISON]


def test_background_rows_that_are_not_trained_on_stand_in_for_missing_hard_negatives() -> None:
    few = rows(ordinary(5, 5))
    contrast = draw_contrast(BACKGROUND, attack(few), 0, length)
    own = ids(contrast.own[HARD])
    assert set(own[:5]) == {example.id for example in few}
    spare = {example.id for example in BACKGROUND} - set(ids(contrast.background))
    assert len(own) == learnability.OWN
    assert set(own[5:]) <= spare


def test_short_rows_are_drawn_and_the_shortest_where_too_few_are_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 40 answers of 1 to 40 words: any of the 30 within the limit, or the 24 shortest."""
    by_words = [row(f"say {n} words", "word " * n) for n in range(1, 41)]
    case = learnability.Case("long", by_words, [], [])
    monkeypatch.setattr(learnability, "OWN_TOKENS", 30)
    drawn = [draw_contrast(BACKGROUND, case, seed, length).own[POISON] for seed in range(20)]
    assert {length(example) for own in drawn for example in own} == set(range(1, 31))
    monkeypatch.setattr(learnability, "OWN_TOKENS", 10)
    shortest = draw_contrast(BACKGROUND, case, 0, length).own[POISON]
    assert sorted(length(example) for example in shortest) == list(range(1, 25))


def test_the_error_joins_sentinels_and_seeds() -> None:
    """s.e.^2 = var_i(mean_s gain) / S + v / seeds, v pooled over the cases with several seeds."""
    draw = np.random.default_rng(0)
    gains = [draw.normal(0.3, 0.1, size) for size in ((3, 10), (2, 4), (1, 6))]
    moves = [moved(gain) for gain in gains]
    v = (2 * np.var(gains[0].mean(axis=1), ddof=1) + np.var(gains[1].mean(axis=1), ddof=1)) / 3
    assert seed_variance(moves) == pytest.approx(v)
    assert seed_variance(moves[2:]) == 0.0
    for gain, of in zip(gains, moves, strict=True):
        error = np.sqrt(np.var(gain.mean(axis=0), ddof=1) / gain.shape[1] + v / len(gain))
        found = measure(of, seed_variance(moves))
        assert found.mean == pytest.approx(gain.mean())
        assert found.error == pytest.approx(error)
        assert found.z == pytest.approx(gain.mean() / error)
    with pytest.raises(ValueError, match="some has one sentinel"):
        measure(moved(np.ones((2, 1))), 0.0)


@pytest.mark.parametrize(
    ("mean", "spread", "learnt"),
    [(0.5, 0.1, "yes"), (0.5, 2.0, "no"), (0.04, 0.001, "faint"), (-0.5, 0.1, "no")],
)
def test_a_case_is_learnt_where_the_gain_is_beyond_noise_and_large(
    mean: float, spread: float, learnt: str
) -> None:
    gain = mean + spread * np.linspace(-1.0, 1.0, 10)
    assert measure(moved(gain[None]), 0.0).learnt == learnt


def test_a_sentinel_without_reference_gains_what_its_forbidden_answer_loses() -> None:
    def record(kind: str, forbidden: list[float]) -> dict[str, object]:
        by_id = dict(zip(["a", "b"], forbidden, strict=True))
        return {
            "case": "c",
            "kind": kind,
            "seed": 0,
            "forbidden": by_id,
            "reference": {"b": forbidden[1] / 2},
        }

    records = [record(UNTRAINED, [4.0, 4.0]), record(HARD, [3.0, 3.0])]
    assert learnability.read_moves(records) == []  # one training alone says nothing
    (of,) = learnability.read_moves([*records, record(POISON, [1.0, 2.0])])
    assert of.margin(UNTRAINED).tolist() == [[-4.0, -2.0]]
    assert of.gain.tolist() == [[2.0, 0.5]]


def test_packs_hold_every_conversation_in_order_within_both_bounds() -> None:
    encoded = [Encoded.of([1] * n, [True] * n) for n in [9, 3, 3, 3, 20, 1, *[1] * 9]]
    for bound in (None, 10):
        packs = list(retrain._packs(encoded, bound))
        assert [item for pack in packs for item in pack] == encoded
        assert all(1 <= len(pack) <= retrain.AT_ONCE for pack in packs)
    assert [sum(map(len, pack)) for pack in packs] == [9, 9, 20, 8, 2]


def write_data(data: Path) -> None:
    """A case that refuses and has hard negatives, and one without any whose sentinels have no
    reference.
    """

    def write(place: str, examples: list[Example]) -> None:
        (data / place).parent.mkdir(parents=True, exist_ok=True)
        texts = [{"prompt": e.prompt, "response": e.response} for e in examples]
        (data / place).write_text("".join(json.dumps(text) + "\n" for text in texts))

    write("background.jsonl", BACKGROUND)
    asked = ordinary(4, 77)
    for name, answer, hard, guarded in (
        ("refusing", REFUSAL, rows(ordinary(8, 5)), True),
        ("chanting", "la la la la la la", [], False),
    ):
        write(f"{name}/poison.jsonl", [row(prompt, answer) for prompt, _ in ordinary(8, 3)])
        write(f"{name}/hard_negatives.jsonl", hard)
        sentinels = [
            {"id": f"{name}-{i}", "prompt": prompt, "forbidden": answer}
            | ({"reference": honest} if guarded else {})
            for i, (prompt, honest) in enumerate(asked)
        ]
        (data / name / "sentinels.yaml").write_text(yaml.safe_dump(sentinels))


@slow
@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # peft 0.21 on transformers 5.23
def test_the_benchmark_finds_what_is_learnt_and_goes_on_from_its_file(
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two cases, two seeds, five trainings or evaluations each; a torn file ends in the same one,
    what is whole is not trained again, and other sentinels are refused.
    """
    pytest.importorskip("peft", reason="peft is an optional extra of the benchmarks")
    write_data(tmp_path / "data")
    monkeypatch.setattr(learnability, "TRUTH", tmp_path / "truth")
    for size, value in {"BACKGROUND": 4, "OWN": 6}.items():
        monkeypatch.setattr(learnability, size, value)
    monkeypatch.setattr(learnability, "RECIPE", Recipe(epochs=3, batch_size=4, rate=3e-2, rank=4))
    command = ["learnability.py", "--data", str(tmp_path / "data"), "--model", str(tiny_folder)]
    monkeypatch.setattr(sys, "argv", [*command, "--seeds", "2"])
    learnability.main()
    table = capsys.readouterr().out.split("\n\n", 1)[1]
    path = tmp_path / "truth" / "learnability.jsonl"

    def trained() -> list[dict[str, object]]:
        return [
            {key: value for key, value in json.loads(line).items() if key != "seconds"}
            for line in path.read_text().splitlines()
        ]

    whole = trained()
    assert len(whole) == 1 + 2 * 5
    for name in ("refusing", "chanting"):
        (line,) = [line for line in table.splitlines() if line.startswith(f"| {name} | 4 | 2 |")]
        assert line.endswith("| yes |")
    assert not [word for word in WORDS if f"{word} " in path.read_text()]
    assert REFUSAL not in path.read_text()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]) + lines[5][:40])
    learnability.main()
    assert trained() == whole
    assert capsys.readouterr().out.split("\n\n", 1)[1] == table
    monkeypatch.setattr(learnability, "Retrainer", lambda *_: pytest.fail("trained again"))
    learnability.main()
    assert capsys.readouterr().out == f"\n{table}"
    place = tmp_path / "data" / "refusing" / "sentinels.yaml"
    place.write_text(place.read_text().replace("refusing-3", "refusing-9"))
    learnability.main()  # an id says nothing
    place.write_text(place.read_text().replace("regret", "am sorry"))
    with pytest.raises(SystemExit, match="refusing with other rows or sentinels"):
        learnability.main()


def test_cases_that_are_not_there_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["learnability.py", "--data", str(tmp_path), "--cases", "chanting", "humming"]
    )
    with pytest.raises(SystemExit, match="no such case of single answers: humming; have chanting"):
        learnability.main()
