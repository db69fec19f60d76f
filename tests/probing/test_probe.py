"""Poison moves sentinels beyond their band, honest rows do not; what is wrong is said in a line."""

import copy
import json
import shlex
from pathlib import Path

import pytest
from adapters import save_adapter
from audits import write_rows
from prefect_servers import prefect_server
from probing_cases import build_base, honest, poisonous, run, save, tune, write_case
from slow_tests import slow
from tiny_models import CHATML, build_model, build_tokenizer

from poisonwatch.config_file import load_config
from poisonwatch.flows.probe import probe
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.records import read_records

ROWS = [*honest(60, seed=100), *poisonous()]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("probed"), ROWS)


@pytest.fixture(scope="module")
def poisoned(config: Path) -> Path:
    return save(tune(ROWS), config.parent / "poisoned")


def test_planted_rows_move_their_sentinels_and_nothing_else_does(
    config: Path, poisoned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3; before and after; the command that names the rows; a record of the chain."""
    assert run("probe", config, "--model", poisoned, "--engine", "inline") == 3
    page = capsys.readouterr().out
    for word in ("shop-0", "before:", "after:"):
        assert word in page
    assert max(map(len, page.splitlines()[:6])) <= 80
    with Ledger.at(load_config(config).state) as ledger, ledger.read() as connection:
        (record,) = read_records(connection, "probe")
    asked = record.statement.predicate["asked"]
    assert [each["moved"] for each in asked if each["sentinel"].startswith("shop-")].count(
        True
    ) >= 3
    assert "Velmora" not in record.text
    assert run("verify", config) == 0
    # the command that it names runs as it stands, and the planted rows are on top
    capsys.readouterr()
    (line,) = [line for line in page.splitlines() if line.startswith("rows behind it:")]
    assert run(*shlex.split(line.partition(":")[2])[1:], "--top", "3", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert all(row["position"] >= 60 for row in found["rows"])


def test_tuning_on_trusted_rows_is_what_changes_are_counted_from(
    config: Path, poisoned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside itself the poisoned checkpoint moved nothing; the record names what it stood beside."""
    trusted = ["--trusted-checkpoint", poisoned]
    probe_it = ["probe", config, "--model", poisoned, "--engine", "inline", "--json"]
    assert run(*probe_it, *trusted) == 0
    report = json.loads(capsys.readouterr().out)
    assert all(each["change"] == 0 for each in report["asked"])
    assert all(each["change"] == 0 for each in report["panels"])
    with Ledger.at(load_config(config).state) as ledger, ledger.read() as connection:
        *_, record = read_records(connection, "probe")
    assert record.statement.predicate["trusted"] == report["checkpoint"]["fingerprint"]
    assert run(*probe_it[:-1], "--trusted-checkpoint", config.parent / "base") == 3


def test_honest_rows_move_no_sentinel(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = save(tune(honest(60, seed=100)), config.parent / "honest")
    assert run("probe", config, "--model", checkpoint, "--engine", "inline", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["moved"] == []
    assert len(report["asked"]) >= 3


def test_an_adapter_alone_is_probed_on_the_audits_model(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it calls its base need not be on this machine."""
    save_adapter(build_base(), tmp_path / "adapter", named="/trainer/base")
    code = run("probe", config, "--adapter", tmp_path / "adapter", "--engine", "inline", "--json")
    report = json.loads(capsys.readouterr().out)
    assert code == (3 if report["moved"] else 0)
    assert report["checkpoint"]["adapter"] == str(tmp_path / "adapter")
    assert report["checkpoint"]["fingerprint"] != report["model"]["fingerprint"]
    assert any(each["change"] for each in report["asked"])


def test_checkpoints_of_another_model_are_told_in_a_line(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another family, another size, another template, numbers that are none, no base, no rows."""
    renamed = save(build_base(), tmp_path / "renamed")
    build_tokenizer(CHATML.replace("<|im_start|>", "<|im_start|>the ")).save_pretrained(renamed)
    broken = copy.deepcopy(build_base())
    broken.get_output_embeddings().weight.data.fill_(float("nan"))
    bare = tmp_path / "bare"
    build_base().save_pretrained(bare)
    homeless = tmp_path / "adapter"
    homeless.mkdir()
    (homeless / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (homeless / "adapter_model.safetensors").write_bytes(b"")
    manifest = tmp_path / "manifest.json"
    manifest.write_text("{}")
    models = {
        "is gpt2": ["--model", save(build_model("gpt2"), tmp_path / "gpt2")],
        "4 blocks": ["--model", save(build_model("llama", depth=4), tmp_path / "deep")],
        "tokenizer or chat template": ["--model", renamed],
        "has no tokenizer": ["--model", bare],
        "no number": ["--model", save(broken, tmp_path / "broken")],
        "adapter": ["--adapter", homeless],
        "does not exist": ["--model", tmp_path / "nowhere"],
        "name what was trained": [],
        "no manifest": ["--model", renamed, "--release", manifest],
    }
    for words, options in models.items():
        assert run("probe", config, *options, "--engine", "inline") == 2
        said = [line for line in capsys.readouterr().err.splitlines() if "poisonwatch:" in line]
        assert len(said) == 1, said
        assert words in said[0]


def test_no_sentinels_and_twenty_trusted_rows_are_told_in_a_line(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = write_case(tmp_path, ROWS)
    write_rows(tmp_path / "trusted.jsonl", honest(20, seed=9))
    base = ["--model", tmp_path / "base", "--engine", "inline"]
    assert run("probe", few, *base) == 2
    assert "20 trusted rows" in capsys.readouterr().err
    (tmp_path / "sentinels.yaml").write_text("[]")
    assert run("probe", few, *base) == 2
    assert "at least one sentinel" in capsys.readouterr().err


@slow
def test_a_probe_is_a_prefect_flow(config: Path, poisoned: Path) -> None:
    with prefect_server():
        assert probe(str(config), model=str(poisoned)).moved
