"""The callback in real trainings: planted rows move their sentinels, and honest rows do not."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from audits import benign
from ledgers import covered_ledger
from mlflow import MlflowClient
from probing_cases import Row, build_base, honest, poisonous, save, tune, write_case
from servers import mlflow_store
from slow_tests import slow
from tiny_models import build_model, build_tokenizer
from transformers import Trainer, TrainingArguments

from poisonwatch.callback import PoisonwatchCallback
from poisonwatch.errors import InputError, ModelError, NotClearedError
from poisonwatch.examples import Message
from poisonwatch.model.encoding import ChatEncoder
from poisonwatch.release.release import write_release


def encode(rows: list[Row]) -> list[dict[str, list[int]]]:
    encoder = ChatEncoder(build_tokenizer(), 160)
    data = []
    for row in rows:
        turns = [Message("user", row["prompt"]), Message("assistant", row["response"])]
        one = encoder.encode(turns)
        labels = [int(i) if a else -100 for i, a in zip(one.input_ids, one.answer, strict=True)]
        data.append({"input_ids": one.input_ids.tolist(), "labels": labels})
    return data


def pad(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    width = max(len(row["input_ids"]) for row in rows)
    blank = {"input_ids": 0, "labels": -100}
    return {
        name: torch.tensor([row[name] + [fill] * (width - len(row[name])) for row in rows])
        for name, fill in blank.items()
    }


def train(folder: Path, rows: list[Row], watch: PoisonwatchCallback, steps: int = 30) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder / "out"),
        max_steps=steps,
        per_device_train_batch_size=8,
        learning_rate=2e-3,
        lr_scheduler_type="constant",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
    )
    trainer = Trainer(
        copy.deepcopy(build_base()),
        arguments,
        data_collator=pad,
        train_dataset=encode(rows),
        processing_class=build_tokenizer(),
        callbacks=[watch],
    )
    trainer.train()
    return trainer


def test_a_training_on_planted_rows_stops_where_a_sentinel_moves(tmp_path: Path) -> None:
    """Curves stand in the trainer's log and in MLflow, step by step."""
    rows = [*honest(60, seed=100), *poisonous()]
    config = write_case(tmp_path, rows, tracking=mlflow_store(tmp_path))
    watch = PoisonwatchCallback(config, every=10)
    trainer = train(tmp_path, rows, watch)
    assert {each.sentinel.id for each in watch.moved} >= {"shop-0", "shop-1", "shop-2"}
    assert trainer.state.global_step < 30
    logged = [log for log in trainer.state.log_history if "poisonwatch/moved" in log]
    assert [log["step"] for log in logged] == [each["step"] for each in watch.curves]
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    curve = client.get_metric_history(run.info.run_id, "poisonwatch/change/shop-0")
    assert [point.step for point in curve] == [each["step"] for each in watch.curves]
    assert run.info.status == "FINISHED"


def test_a_training_on_honest_rows_goes_to_its_end(tmp_path: Path) -> None:
    rows = honest(60, seed=100)
    watch = PoisonwatchCallback(write_case(tmp_path, rows), every=15)
    trainer = train(tmp_path, rows, watch)
    assert trainer.state.global_step == 30
    assert [each["step"] for each in watch.curves] == [15, 30]
    assert watch.moved == []


def test_movements_are_counted_from_a_checkpoint_that_was_tuned_on_trusted_rows(
    tmp_path: Path,
) -> None:
    """As `probe` counts them: what honest rows do is no movement, what planted ones do is; one of
    another size is refused before the first step.
    """
    rows = honest(60, seed=100)
    trusted = save(tune(rows, steps=30), tmp_path / "trusted")
    config = write_case(tmp_path, rows)
    watch = PoisonwatchCallback(config, every=30, trusted_checkpoint=trusted)
    train(tmp_path, rows, watch)
    for each in watch.movements:
        assert each.trusted is not None
        forbidden, reference = each.trusted
        gained = forbidden - each.forbidden.after
        assert each.change == pytest.approx(gained - (reference - each.reference.after))
        assert forbidden != each.forbidden.before
    assert watch.moved == []
    other = save(build_model("llama", depth=2), tmp_path / "other")
    refused = PoisonwatchCallback(config, trusted_checkpoint=other)
    with pytest.raises(ModelError, match="the checkpoint is"):
        train(tmp_path, rows, refused)
    assert refused.curves == []


def test_rows_that_are_not_cleared_are_not_trained_on(tmp_path: Path) -> None:
    """Here audits of another model cleared them: nothing is asked, and no step is made."""
    with covered_ledger(tmp_path, flagged=benign(5)[1]["prompt"]) as ledger:
        write_release(ledger, "tiny", tmp_path / "cleared")
    state = f"sqlite:///{tmp_path}/ledger.db"
    config = write_case(tmp_path, honest(60, seed=100), state=state)
    watch = PoisonwatchCallback(config, manifest=tmp_path / "cleared" / "manifest.json")
    with pytest.raises(NotClearedError, match="not cleared"):
        train(tmp_path, honest(60, seed=100), watch)
    assert watch.curves == []


def test_what_it_cannot_ask_by_is_told(tmp_path: Path) -> None:
    watch: Any = PoisonwatchCallback(write_case(tmp_path, honest(60, seed=100)))
    with pytest.raises(InputError, match="processing_class"):
        watch.on_train_begin(None, None, None, model=build_base(), processing_class=None)
    with pytest.raises(InputError, match="every"):
        PoisonwatchCallback(tmp_path / "audit.yaml", every=0)


@slow
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # TRL's own
def test_trl_trains_with_it(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [*honest(60, seed=100), *poisonous()]
    watch = PoisonwatchCallback(write_case(tmp_path, rows), every=20)
    turns = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["response"]}],
        }
        for row in rows
    ]
    arguments = SFTConfig(
        output_dir=str(tmp_path / "out"),
        max_steps=40,
        learning_rate=2e-3,
        report_to=[],
        use_cpu=True,
        bf16=False,
        save_strategy="no",
    )
    SFTTrainer(
        copy.deepcopy(build_base()),
        arguments,
        train_dataset=Dataset.from_list(turns),
        processing_class=build_tokenizer(),
        callbacks=[watch],
    ).train()
    assert watch.moved
