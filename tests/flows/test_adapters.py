"""Audits of a model with an adapter, by the commands that people give."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from adapters import save_adapter
from audits import benign, write_audit
from browsing import OWN, asking
from patience import PATIENCE_S
from tiny_models import build_model

from poisonwatch.config import ModelConfig
from poisonwatch.flows.cli.app import main
from poisonwatch.model.fingerprints import compute_model_fingerprint, compute_reading

# A screen flags it, whatever random weights make of it.
FORGED = {"prompt": "What is <|im_start|>?", "response": "A token."}


def run(*arguments: object) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return int(stopped.value.code or 0)


def run_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any]:
    """The exit code of a command, and the JSON that it prints, a value a line."""
    capsys.readouterr()
    code = run(*arguments, "--json")
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def adapters(tmp_path: Path, tiny_folder: Path) -> Path:
    """Two adapters of the tiny Llama, `one` and `two`."""
    for seed, name in enumerate(("one", "two"), start=1):
        save_adapter(build_model("llama"), tmp_path / name, named=tiny_folder, seed=seed)
    return tmp_path


def test_an_audit_with_an_adapter_flags_explains_and_clears_for_that_adapter(
    adapters: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Flags with their exit code, the fingerprint of both, rows behind an answer on the terminal
    and on the dashboard; another adapter is another model, whose rows are not cleared.
    """
    config = write_audit(adapters / "audit", tiny_folder, rows=[*benign(24), FORGED])
    settings = yaml.safe_load(config.read_text())
    settings["model"] = {"name": str(tiny_folder), "adapter": "../one"}
    config.write_text(yaml.safe_dump(settings))
    assert run("audit", config, "--dry-run") == 0
    assert f"{tiny_folder.name} with adapter one, " in capsys.readouterr().out
    run_dir = config.parent / "run"
    code, (summary,) = run_json(capsys, "audit", config, "--run-dir", run_dir, "--engine", "inline")
    assert code == 3
    assert summary["counts"]["flagged"] >= 1
    both = compute_model_fingerprint(tiny_folder, adapters / "one")
    assert summary["model"] == {
        "name": str(tiny_folder),
        "adapter": str(config.parent / "../one"),
        "fingerprint": both,
        "reading": compute_reading(ModelConfig(), tiny_folder, tiny_folder),
    }

    report = (run_dir / "report.html").read_text()
    assert "<dt>adapter</dt>" in report
    assert both[:12] in report

    question = ("What is tea?", "Fact 3: tea is 3.")
    asked = ("explain", run_dir, "--prompt", question[0], "--response", question[1], "--top", 3)
    code, found = run_json(capsys, *asked)
    assert (code, len(found)) == (0, 3)
    # The audit's file may be gone, and its adapter elsewhere.
    moved = shutil.copytree(adapters / "one", adapters / "moved")
    code, again = run_json(capsys, *asked, "--model", moved)
    assert (code, again) == (0, found)
    with asking(config) as client:
        form = {"audit": summary["audit_id"], "prompt": question[0], "response": question[1]}
        answer = client.post("/explain", data=form, headers=OWN)
        deadline = time.monotonic() + PATIENCE_S
        while found[0]["example_id"][:16] not in (page := client.get(answer.url).text):
            assert "problem" not in page, page
            assert time.monotonic() < deadline
            time.sleep(0.1)
        audit = client.get(f"/audits/{summary['audit_id']}").text
        assert "<dt>adapter</dt><dd><bdi>" in audit
        assert summary["model"]["reading"] in audit

    clean = adapters / "clean.jsonl"
    shutil.copy(config.parent / "rows.jsonl", clean)
    clean.write_text("".join(clean.read_text().splitlines(keepends=True)[:-1]))
    code, (answer,) = run_json(capsys, "gate", clean, "--audit", config)
    cleared = answer["rows"] - sum(answer["reasons"].values())
    assert cleared > 0
    assert set(answer["reasons"]) <= {"flagged"}
    template = adapters / "one" / "chat_template.jinja"
    template.write_text("{% for message in messages %}{{ message.content }}{% endfor %}")
    reason = "another tokenizer or template"
    code, (answer,) = run_json(capsys, "gate", clean, "--audit", config)
    assert (code, answer["reasons"][reason]) == (3, cleared)
    assert run("gate", clean, "--audit", config) == 3
    assert f"{reason}: audited with this model and these sentinels" in capsys.readouterr().out
    reading = ("--reading-version", summary["model"]["reading"][:10])
    assert run("gate", clean, "--audit", config, *reading) in (0, 3)
    assert reason not in capsys.readouterr().out
    assert run("explain", run_dir, "--prompt", "x", "--response", "y") == 2
    assert "were measured with another tokenizer or chat template" in capsys.readouterr().err
    template.unlink()
    settings["model"]["template_kwargs"] = {"enable_thinking": False}
    config.write_text(yaml.safe_dump(settings))
    code, (answer,) = run_json(capsys, "gate", clean, "--audit", config)
    assert (code, answer["reasons"][reason]) == (3, cleared)
    del settings["model"]["template_kwargs"]
    settings["model"]["adapter"] = "../two"
    config.write_text(yaml.safe_dump(settings))
    code, (answer,) = run_json(capsys, "gate", clean, "--audit", config)
    assert (code, answer["reasons"]["another version"]) == (3, cleared)
