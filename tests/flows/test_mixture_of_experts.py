"""A mixture of experts, audited with flags from end to end, as the command line does it."""

import json
from pathlib import Path

import pytest
from audits import FORBIDDEN, benign, planted, write_audit
from families import build_family
from servers import mlflow_store
from tiny_models import build_tokenizer

from poisonwatch.flows.cli.app import main
from poisonwatch.run_directory.read import read_evidence


def test_a_mixture_of_experts_confirms_its_flags(tmp_path: Path) -> None:
    """Exit code 3, the planted rows first among the flags, every group steered with and asked, and
    nothing failed.
    """
    model = tmp_path / "model"
    build_family("qwen3_moe").save_pretrained(model)
    build_tokenizer().save_pretrained(model)
    config = write_audit(
        tmp_path / "in",
        model,
        rows=benign(12) + planted(),
        detection={"false_discovery_rate": 0.9},
        stride={"background": 16, "shortlist": 8, "token_budget": 600},
        tracking=mlflow_store(tmp_path / "in"),
        probes=0,
    )
    command = ["audit", str(config), "--run-dir", str(tmp_path / "run"), "--engine", "inline"]
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--quiet"])
    assert stopped.value.code == 3
    lines = (tmp_path / "run" / "flags.jsonl").read_text().splitlines()
    strongest = [json.loads(line)["messages"][1]["content"] for line in lines[:3]]
    assert set(strongest) == set(FORBIDDEN)
    groups = read_evidence(tmp_path / "run")
    assert sum(len(group["example_ids"]) for group in groups) == len(lines)
    for group in groups:
        assert group["unconfirmed"] is None
        assert group["confirmation"]["unsaid"] is None
        for effect in group["confirmation"]["effects"]:
            assert effect["said_before"]
            assert effect["said_after"]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["failures"] == []
