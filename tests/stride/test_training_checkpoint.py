"""A training's file: whose it is, and what becomes of one that is of no use."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import build_model
from trainings import (
    LAYER,
    SETTINGS,
    STEPS,
    R,
    assert_same,
    draw,
    interrupt,
    rows,
    start,
    steps_of,
)
from transformers import PreTrainedModel

from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError
from poisonwatch.model.encoding import Encoded
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.stride.sgd import train_operators
from poisonwatch.stride.training_checkpoint import locate_training_checkpoint

Models = Callable[[str], PreTrainedModel]


@pytest.fixture(scope="module")
def encoded() -> list[Encoded]:
    return rows()


@pytest.fixture
def model(tiny_model: Models) -> FrozenModel:
    return FrozenModel(tiny_model("llama"), LAYER)


@pytest.mark.parametrize("what", ["seed", "row", "membership", "layer", "weights", "lr", "r"])
def test_checkpoint_of_another_training_is_left_out(
    model: FrozenModel,
    encoded: list[Encoded],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    what: str,
) -> None:
    """Any change of what defines a training starts it anew, with a warning, and gives what it gives
    without a checkpoint.
    """
    checkpoint = tmp_path / "training"
    interrupt(model, encoded, checkpoint, step=2)
    other = build_model("llama", seed=1) if what == "weights" else model.model
    model = FrozenModel(other, LAYER + (what == "layer"))
    encoded = (
        [*encoded[:-1], Encoded.of(encoded[-1].input_ids[::-1], encoded[-1].answer)]
        if what == "row"
        else encoded
    )
    membership = draw(d=3) if what == "membership" else draw()
    settings = replace(SETTINGS, lr=2e-3) if what == "lr" else SETTINGS
    basis, seed = start(R - (what == "r")), 4 + (what == "seed")
    done: list[int] = []
    with caplog.at_level(logging.WARNING):
        found = train_operators(
            model,
            encoded,
            membership,
            basis,
            settings,
            seed=seed,
            checkpoint=checkpoint,
            progress=steps_of(done),
        )
    assert "is of another training" in caplog.text
    assert done == list(range(STEPS))
    assert_same(found, train_operators(model, encoded, membership, basis, settings, seed=seed))


def test_an_audits_checkpoint_lies_where_its_model_and_reading_say(
    tiny_pretrained: Pretrained,
) -> None:
    """Another model, another chat template, another seed: another file."""
    config = AuditConfig.model_validate({"source": "rows.jsonl", "sentinels": "sentinels.yaml"})
    places = {
        locate_training_checkpoint(config, tiny_pretrained),
        locate_training_checkpoint(config, replace(tiny_pretrained, fingerprint="1" * 64)),
        locate_training_checkpoint(config, replace(tiny_pretrained, reading="1" * 64)),
        locate_training_checkpoint(config.model_copy(update={"seed": 1}), tiny_pretrained),
    }
    assert len(places) == 4
    assert locate_training_checkpoint(config, tiny_pretrained) in places


def test_unreadable_checkpoint_is_left_out(
    model: FrozenModel, encoded: list[Encoded], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is no checkpoint starts the training anew, with a warning."""
    checkpoint = tmp_path / "training"
    checkpoint.write_bytes(b"not a checkpoint")
    with caplog.at_level(logging.WARNING):
        train_operators(model, encoded, draw(), start(), SETTINGS, seed=4, checkpoint=checkpoint)
    assert "cannot be read" in caplog.text
    assert not checkpoint.exists()


def test_how_often_to_save_is_no_part_of_the_training(
    model: FrozenModel, encoded: list[Encoded], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another checkpoint_every or token_budget resumes the same training."""
    checkpoint = tmp_path / "training"
    interrupt(model, encoded, checkpoint)
    done: list[int] = []
    settings = replace(SETTINGS, checkpoint_every=7, token_budget=500)
    train_operators(
        model,
        encoded,
        draw(),
        start(),
        settings,
        seed=4,
        checkpoint=checkpoint,
        progress=steps_of(done),
    )
    assert done == [8, 9, 10, 11]
    assert not caplog.text


def test_checkpoint_that_cannot_be_written_is_an_error_in_the_trees_terms(
    model: FrozenModel, encoded: list[Encoded], tmp_path: Path
) -> None:
    """A file where the folder should be."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(OperationError, match=r"checkpoint .*taken.* cannot be written"):
        train_operators(
            model,
            encoded,
            draw(),
            start(),
            SETTINGS,
            seed=4,
            checkpoint=tmp_path / "taken" / "training",
        )
