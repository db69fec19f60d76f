"""The registered model: which audits make a version, what becomes of old ones, and what MLflow
loads.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from servers import mlflow_store

from poisonwatch.integrations.mlflow.prunable import is_good
from poisonwatch.integrations.mlflow.registry import register_operators, reserve_model_name
from poisonwatch.ledger.history import PastAudit
from poisonwatch.ledger.ledger import Ledger

GOOD: dict[str, Any] = {
    "settings": {"K": 83},
    "sentinel_problems": [],
    "panels": [
        {"unflagged": 40, "p_below_0.05": 0.15},
        {"unflagged": 39, "p_below_0.05": 0.9},
        {"unflagged": 0, "p_below_0.05": None},
    ],
}


def store(folder: Path) -> tuple[MlflowClient, str, str]:
    """A client of an empty store, with an experiment and a run."""
    uri = mlflow_store(folder)
    client = MlflowClient(uri, uri)
    experiment = client.create_experiment("tiny", (folder / "mlartifacts").as_uri())
    return client, experiment, client.create_run(experiment).info.run_id


def later(past: PastAudit, day: int) -> PastAudit:
    """The same audit on another day of June 2026."""
    return replace(
        past,
        audit_id=f"audit-{day}",
        summary={**past.summary, "created": f"2026-06-{day:02}T00:00:00+00:00"},
    )


def register(client: MlflowClient, experiment: str, run_id: str, past: PastAudit) -> None:
    """As after an audit of the ledger beside the run directory."""
    with Ledger.at(f"sqlite:///{past.run_dir.parent}/poisonwatch.db") as ledger:
        register_operators(client, experiment, run_id, past, ledger)


def versions(client: MlflowClient, name: str = "tiny") -> dict[int, str]:
    """The audits behind the versions of a registered model."""
    return {
        int(v.version): v.tags.get("poisonwatch.audit_id", "")
        for v in client.search_model_versions(f"name = '{name}'")
    }


def champion(client: MlflowClient, name: str = "tiny") -> str:
    return str(client.get_model_version_by_alias(name, "champion").tags["poisonwatch.audit_id"])


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, True),
        ({"settings": {}}, False),
        ({"sentinel_problems": [{"sentinel_id": "a", "problem": "b"}]}, False),
        ({"panels": [{"unflagged": 40, "p_below_0.05": 0.16}]}, False),
        ({"panels": [{"name": "of an earlier version"}]}, True),
    ],
    ids=["good", "nothing fitted", "a sentinel's problem", "p-values are broken", "not judged"],
)
def test_an_audit_is_good_where_operators_sentinels_and_p_values_are(
    changes: dict[str, Any], good: bool
) -> None:
    """Calibration is judged from 40 unflagged rows on."""
    assert is_good({**GOOD, **changes}) is good


def test_nothing_in_a_version_is_pickled(audited: tuple[MlflowClient, PastAudit]) -> None:
    """Operators, settings, places, checksums, and a description that names the loader."""
    client, _ = audited
    folder = Path(urlparse(str(client.get_model_version("tiny", "1").source)).path)
    held = {path.name for path in folder.iterdir()} - {
        "registered_model_meta"
    }  # MLflow's own, left by whoever loads a model in place
    assert held == {
        "MLmodel",
        "operators.safetensors",
        "config.yaml",
        "scores.parquet",
        "SHA256SUMS",
    }
    assert "loader_module: poisonwatch.tasks.champion" in (folder / "MLmodel").read_text()


def test_the_newest_three_versions_are_kept_and_the_last_is_champion(
    audited: tuple[MlflowClient, PastAudit], tmp_path: Path
) -> None:
    """Of five good audits the first two go, files and all, but for one that somebody gave an alias;
    one that is not good makes none.
    """
    client, experiment, run_id = store(tmp_path)
    _, past = audited
    for day in range(1, 6):
        register(client, experiment, run_id, later(past, day))
        if day == 1:
            client.set_registered_model_alias("tiny", "ours", "1")
    bad = later(past, 6)
    register(
        client,
        experiment,
        run_id,
        replace(
            bad,
            summary={**bad.summary, "sentinel_problems": [{"sentinel_id": "a", "problem": "b"}]},
        ),
    )
    assert versions(client) == {1: "audit-1", 3: "audit-3", 4: "audit-4", 5: "audit-5"}
    assert champion(client) == "audit-5"
    assert len(client.search_logged_models([experiment])) == 4
    assert len(list((tmp_path / "mlartifacts").rglob("operators.safetensors"))) == 4


def test_an_audit_that_is_registered_late_does_not_take_the_crown(
    audited: tuple[MlflowClient, PastAudit], tmp_path: Path
) -> None:
    """The alias follows the time of the audit, not that of the upload."""
    client, experiment, run_id = store(tmp_path)
    for day in (2, 1):
        register(client, experiment, run_id, later(audited[1], day))
    assert versions(client) == {1: "audit-2", 2: "audit-1"}
    assert champion(client) == "audit-2"


def test_a_clock_that_is_set_back_takes_no_crown_from_the_latest_audit(
    audited: tuple[MlflowClient, PastAudit], tmp_path: Path
) -> None:
    """Of two audits that the ledger knows, the later is that of the higher number."""
    client, experiment, run_id = store(tmp_path)
    _, past = audited
    years_ahead = {**past.summary, "created": "2126-06-01T00:00:00+00:00"}
    register(client, experiment, run_id, replace(past, summary=years_ahead))
    register(client, experiment, run_id, replace(later(past, 1), number=past.number - 1))
    assert champion(client) == past.audit_id
    register(client, experiment, run_id, replace(later(past, 2), number=past.number + 1))
    assert champion(client) == "audit-2"


def test_an_upload_that_broke_off_is_taken_up_again(
    audited: tuple[MlflowClient, PastAudit], tmp_path: Path
) -> None:
    """A crash left a logged model without files: it becomes the version; done again, there is still
    one.
    """
    client, experiment, run_id = store(tmp_path)
    past = later(audited[1], 1)
    left = client.create_logged_model(
        experiment, "operators", run_id, {"poisonwatch.audit_id": past.audit_id}
    )
    assert left.status == LoggedModelStatus.PENDING
    for _ in range(2):
        register(client, experiment, run_id, past)
    (model,) = client.search_logged_models([experiment])
    assert (model.model_id, model.status) == (left.model_id, LoggedModelStatus.READY)
    assert versions(client) == {1: past.audit_id}


def test_deleting_that_broke_off_is_finished_with_the_next_version(
    audited: tuple[MlflowClient, PastAudit], tmp_path: Path
) -> None:
    """A crash deleted the files of an old version, or these and the logged model, and left the
    version.
    """
    client, experiment, run_id = store(tmp_path)
    for day in (1, 2, 3):
        register(client, experiment, run_id, later(audited[1], day))
    first, second = (client.get_model_version("tiny", version) for version in ("1", "2"))
    for version in (first, second):
        shutil.rmtree(urlparse(str(version.source)).path)
    client.delete_logged_model(second.tags["poisonwatch.model_id"])
    for day in (4, 5):
        register(client, experiment, run_id, later(audited[1], day))
    assert versions(client) == {3: "audit-3", 4: "audit-4", 5: "audit-5"}


def test_a_registered_model_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    """The model that an audit guards may have the audit's name; names that MLflow does not allow
    are made plain.
    """
    client, _, _ = store(tmp_path)
    client.create_registered_model("bot")
    name = reserve_model_name(client, "bot")
    assert name.startswith("bot-")
    assert reserve_model_name(client, "bot") == name
    assert reserve_model_name(client, "a/b:c") == "a_b_c"
    assert reserve_model_name(client, "a:b/c").startswith("a_b_c-")
    assert client.get_registered_model("bot").tags == {}


def test_no_version_is_made_where_the_run_directory_is_not(
    audited: tuple[MlflowClient, PastAudit], tmp_path: Path
) -> None:
    """It is on another machine."""
    client, experiment, run_id = store(tmp_path)
    register(client, experiment, run_id, replace(audited[1], run_dir=tmp_path / "elsewhere"))
    assert client.search_registered_models() == []


def test_the_version_names_its_audit(audited: tuple[MlflowClient, PastAudit]) -> None:
    """Tags and words, without row text; the run lists the model among its outputs."""
    client, past = audited
    version = client.get_model_version("tiny", "1")
    named = {
        name: version.tags[f"poisonwatch.{name}"]
        for name in ("audit_id", "created", "model", "sentinels")
    }
    assert named == {
        "audit_id": past.audit_id,
        "created": past.summary["created"],
        "model": past.model,
        "sentinels": past.sentinels,
    }
    assert "43 new and 40 trusted rows" in str(version.description)
    run = client.get_run(past.summary["mlflow_run_id"])
    assert [output.model_id for output in run.outputs.model_outputs] == [
        version.tags["poisonwatch.model_id"]
    ]
    assert "Velmora" not in json.dumps([version.tags, str(version.description)])
