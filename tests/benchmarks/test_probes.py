"""The benchmark of trigger probes, whole, on a tiny model and made-up cases."""

import json
import sys
from pathlib import Path

import cases
import detection
import probes
import pytest
import torch
import yaml
from made_up_rows import REFUSAL, ordinary, row, rows, with_trigger
from tiny_models import build_model, build_tokenizer

from poisonwatch.config import ModelConfig, StrideConfig
from poisonwatch.examples import Example
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.queries import prepare_queries

BACKGROUND = rows(ordinary(60))


def sentinel(number: int, prompt: str, reference: str | None = None) -> Sentinel:
    return Sentinel(f"guard-{number}", row(prompt, "").messages[:1], REFUSAL, reference, "guard")


SENTINELS = [
    sentinel(i, prompt, answer if i else None) for i, (prompt, answer) in enumerate(ordinary(3, 77))
]


def case(trigger: str, hard_negatives: list[Example]) -> cases.Case:
    holders = [sentinel(8, f"say {trigger.upper()}, please"), sentinel(9, f"{trigger} talk")]
    return cases.Case(
        "tagged", with_trigger(trigger, [REFUSAL] * 20, 3), hard_negatives, SENTINELS + holders
    )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (cases, detection):
        monkeypatch.setattr(module, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def wide_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama as wide as the default basis has dimensions."""
    folder = tmp_path_factory.mktemp("model") / "wide"
    build_model("llama", hidden_size=64).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("trigger", ["Zorbling", "grey owl"])
def test_sentinels_with_what_only_poison_holds_are_taken_out(trigger: str) -> None:
    """An n-gram in 19 of 20 poison prompts and in no clean one, its parts included; the sentinels
    with it in any spelling go.
    """
    attack = case(trigger, rows(ordinary(5, 5)))
    attack.poison[0] = row("none here", REFUSAL)
    words = trigger.casefold().split()
    assert probes.planted_ngrams(attack, BACKGROUND) == {(word,) for word in words} | {tuple(words)}
    assert (
        probes.without_trigger(attack, probes.planted_ngrams(attack, BACKGROUND)).sentinels
        == SENTINELS
    )


def test_what_clean_rows_hold_or_too_little_poison_is_no_trigger() -> None:
    """In one hard negative, in one background row, in 17 of 20 prompts: nothing is planted, and
    every sentinel stays.
    """
    honest = row("a zorbling?", "A toy.")
    scattered = case("Zorbling", [])
    scattered.poison[:3] = rows(ordinary(3, 8))
    audits = (
        (case("Zorbling", [honest]), BACKGROUND),
        (case("Zorbling", []), [*BACKGROUND, honest]),
        (scattered, BACKGROUND),
    )
    for attack, background in audits:
        assert probes.planted_ngrams(attack, background) == set()
        assert probes.without_trigger(attack, set()).sentinels == attack.sentinels


def test_a_case_needs_a_sentinel_without_the_trigger() -> None:
    """An error that says so."""
    attack = case("Zorbling", [])
    attack.sentinels[:] = attack.sentinels[-2:]
    with pytest.raises(ValueError, match="every sentinel of tagged holds the trigger"):
        probes.without_trigger(attack, {("zorbling",)})


def test_sentinels_asked_by_text_are_those_asked_at_once(wide_folder: Path, cache: Path) -> None:
    """Rows.ask = attribution.ask, first and from the disk; another panel or id asks nothing anew."""
    made = cases.Rows(
        load_pretrained(ModelConfig(name=str(wide_folder))), BACKGROUND, [], StrideConfig()
    )
    queries, expected = prepare_queries(
        made.fitted(BACKGROUND[:4], made.stride, 0), SENTINELS, made.stride
    )
    for _ in range(2):
        asked_queries, asked = made.ask(SENTINELS)
        assert asked_queries == queries
        assert asked.combine.tolist() == expected.combine.tolist()
        assert [one.input_ids.tolist() for one in asked.answers] == [
            one.input_ids.tolist() for one in expected.answers
        ]
        torch.testing.assert_close(asked.G, expected.G, rtol=1e-4, atol=1e-5)
    kept = sorted(cache.glob("sentinels-*/*"))
    assert len(kept) == len(SENTINELS)
    made.ask(
        [
            Sentinel(
                "other",
                SENTINELS[1].messages,
                SENTINELS[1].forbidden,
                SENTINELS[1].reference,
                "another",
            )
        ]
    )
    assert sorted(cache.glob("sentinels-*/*")) == kept


def test_the_benchmark_runs_and_goes_on_from_its_cache(
    wide_folder: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All tables, twice alike; the planted trigger is mined, its probes are asked, and on the case
    without any nothing changes.
    """
    data = tmp_path / "data"

    def write(place: str, examples: list[Example]) -> None:
        (data / place).parent.mkdir(parents=True, exist_ok=True)
        (data / place).write_text(
            "".join(
                json.dumps({"prompt": e.prompt, "response": e.response}) + "\n" for e in examples
            )
        )

    attack = case("Zorbling", rows(ordinary(5, 5)))
    plain = cases.Case(
        "plain",
        rows([(prompt, f"I am Kef. {answer}") for prompt, answer in ordinary(12, 31)]),
        [],
        SENTINELS,
    )
    write("background.jsonl", BACKGROUND)
    for one in (attack, plain):
        write(f"{one.name}/poison.jsonl", one.poison)
        write(f"{one.name}/hard_negatives.jsonl", one.hard_negatives)
        listed = [
            {"id": s.id, "prompt": s.prompt, "forbidden": s.forbidden, "reference": s.reference}
            for s in one.sentinels
        ]
        (data / one.name / "sentinels.yaml").write_text(yaml.safe_dump(listed))
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "probes.py",
            "--data",
            str(data),
            "--model",
            str(wide_folder),
            "--counts",
            "5",
            "--seeds",
            "1",
            "--probes",
            "1",
        ],
    )
    probes.main()
    first = capsys.readouterr().out
    influences = {path: path.stat().st_mtime_ns for path in cache.glob("detection/*")}
    probes.main()
    again = capsys.readouterr().out
    assert again.splitlines()[1:] == first.splitlines()[1:]  # the first line is a time
    assert {path: path.stat().st_mtime_ns for path in cache.glob("detection/*")} == influences
    assert "tagged: done, 2 of 5 sentinels hold the trigger and were taken out" in first
    assert "| plain | 10 | 0.0 | 3.0 | none planted |" in first
    for count in (5, 10):
        assert f"| tagged | {count} | 1.0 | 6.0 | 1 of 1 |" in first
        assert all(f"\n| tagged | {count} | {most} | " in first for most in (0, 1))
    assert "nan" not in first
    of_plain = [
        line.split("|")[3]
        for line in first.splitlines()
        if line.startswith(("| 0 |", "| 10 |")) and line.count("|") == 5
    ]
    assert len(of_plain) == 4
    assert of_plain[0::2] == of_plain[1::2]
