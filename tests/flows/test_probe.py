"""Checkpoints that training leaves are probed once each, and people hear of what moved."""

import json
import shutil
from pathlib import Path

import pytest
from probing_cases import build_base, honest, poisonous, run, save, tune, write_case
from servers import http_receiver, mlflow_store, postgres_server
from tracking import runs_of

from poisonwatch.config_file import load_config
from poisonwatch.errors import OperationError
from poisonwatch.flows.probe import probe_new_inline, require_all_probed
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.records import read_records
from poisonwatch.probing import new_checkpoints

ROWS = [*honest(60, seed=100), *poisonous()]
AT_ONCE = 0.0  # seconds after which a checkpoint counts as whole


@pytest.fixture(autouse=True)
def _in_no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_checkpoints, "SETTLED_AFTER_S", AT_ONCE)


def test_each_checkpoint_is_probed_once_and_people_hear_of_what_moved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a real PostgreSQL as ledger, a real MLflow store and a receiver of alerts: a checkpoint
    of another family is told of, and keeps no other from its probe.
    """
    with postgres_server() as url, http_receiver() as receiver:
        settings = {"alerts": [f"json://{receiver.address}/"], "tracking": mlflow_store(tmp_path)}
        config = write_case(tmp_path, ROWS, state=url, probe="out/checkpoint-*", **settings)
        save(tune(ROWS), tmp_path / "out" / "checkpoint-40")
        broken = save(build_base(), tmp_path / "out" / "checkpoint-20")
        (broken / "tokenizer.json").unlink()
        (broken / "tokenizer_config.json").unlink()
        assert run("probe", config, "--new", "--engine", "inline") == 3
        page = capsys.readouterr().out
        assert "checkpoint-20: the checkpoint" in page
        assert "poisonwatch incident" in page
        (told,) = receiver.received
        assert "checkpoint-40" in json.dumps(told)
        loaded = load_config(config)
        (tracked,) = runs_of(loaded, "probe")
        with Ledger.at(url) as ledger, ledger.read() as connection:
            (record,) = read_records(connection, "probe")
        assert (
            record.statement.predicate["checkpoint"] == tracked.data.tags["poisonwatch.checkpoint"]
        )
        # a second look finds nothing new, and says what is wrong still
        assert run("probe", config, "--new", "--engine", "inline", "--json") == 1
        (line,) = capsys.readouterr().out.splitlines()
        assert "tokenizer" in json.loads(line)["problem"]
        assert len(receiver.received) == 1
        # nor does Prometheus, where the other one has been probed meanwhile
        run("status", config, "--prometheus")
        metrics = capsys.readouterr().out
        assert 'poisonwatch_failed_probes{name="tiny"} 1\n' in metrics
        assert 'poisonwatch_probe_overdue{name="tiny"} 0\n' in metrics
        run("status", config)
        page = capsys.readouterr().out
        assert f"\nnot probed  1 checkpoint that cannot be: {broken}: the checkpoint" in page
        run("status", config, "--json")
        (failed,) = json.loads(capsys.readouterr().out)["probe_look"]["failed"]
        assert (failed["folder"], "tokenizer" in failed["problem"]) == (str(broken), True)
        assert run("verify", config) == 0
        with pytest.raises(OperationError, match="1 checkpoint could not be probed"):
            require_all_probed(probe_new_inline(loaded))
        # what is gone is nobody's trouble any more
        shutil.rmtree(broken)
        assert run("probe", config, "--new", "--engine", "inline") == 0
        run("status", config, "--prometheus")
        assert 'poisonwatch_failed_probes{name="tiny"} 0\n' in capsys.readouterr().out


def test_nothing_new_and_no_place_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_case(tmp_path, ROWS)
    assert run("probe", config, "--new", "--engine", "inline") == 2
    assert "probe: out/checkpoint-*" in capsys.readouterr().err
    assert run("probe", config, "--new", "--model", tmp_path / "base") == 2
    assert "--new takes" in capsys.readouterr().err
    config = write_case(tmp_path, ROWS, probe="out/*")
    assert run("probe", config, "--new", "--engine", "inline") == 0
    assert "no new checkpoint" in capsys.readouterr().out
