"""What an audit left, read back."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from audits import write_audit

from poisonwatch.config_file import load_config
from poisonwatch.detection.evidence import ClusterEvidence
from poisonwatch.errors import RunError
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.engine import AuditOutcome
from poisonwatch.reports.heatmap import build_heat_map, read_heat_map
from poisonwatch.run_directory import read as readback


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> AuditOutcome:
    folder = tmp_path_factory.mktemp("audited")
    return audit_inline(
        load_config(write_audit(folder, tiny_folder, detection={"false_discovery_rate": 0.9})),
        folder / "run",
    )


def test_coefficients_are_those_of_the_verdicts(audited: AuditOutcome) -> None:
    """The row's own, all new rows', and the trusted rows'; none where sentinel or row is not there."""
    detection = audited.detection
    for i, flag in enumerate(detection.flags):
        s = detection.sentinels.index(flag.sentinel)
        read = readback.read_coefficients(audited.run_dir, flag.sentinel.id, flag.example.id)
        assert read is not None, i
        assert np.array_equal(read.new, detection.coefficients[:, s])
        assert np.array_equal(read.trusted, detection.reference_coefficients[:, s])
        assert read.own == detection.coefficients[detection.examples.index(flag.example), s]
        scores = readback.read_trusted_scores(audited.run_dir, flag.sentinel.id)
        of_panel = detection.panels.index(flag.panel)
        assert np.array_equal(scores, detection.reference_scores[:, of_panel])
    assert readback.read_coefficients(audited.run_dir, "nothing", detection.examples[0].id) is None
    assert readback.read_coefficients(audited.run_dir, detection.sentinels[0].id, "0" * 64) is None


def test_trusted_rows_have_a_line_for_each_sentinel(audited: AuditOutcome) -> None:
    """As new rows have in scores.parquet, without p and q."""
    table = pq.read_table(audited.run_dir / "trusted.parquet")
    assert table.num_rows == 40 * len(audited.detection.sentinels)
    assert table.column_names == ["example_id", "sentinel_id", "panel", "coefficient", "score"]


def test_sentinels_come_back_as_they_were_asked(audited: AuditOutcome) -> None:
    """Probes and all."""
    assert readback.read_asked_sentinels(audited.run_dir) == {
        sentinel.id: sentinel for sentinel in audited.detection.sentinels
    }


def test_the_nearest_trusted_rows_come_back_with_their_text(audited: AuditOutcome) -> None:
    """Those that the evidence names, in its order."""
    for group in readback.read_evidence(audited.run_dir):
        for id, named in zip(group["example_ids"], group["nearest"], strict=True):
            near = readback.find_nearest(audited.run_dir, group, id)
            assert [(example.id, likeness) for example, likeness in near] == [
                (n["example_id"], n["likeness"]) for n in named
            ]
            assert all(
                example.response.startswith("Fact") and example.source == "trusted.jsonl"
                for example, _ in near
            )
        assert readback.find_nearest(audited.run_dir, group, "0" * 64) == []
    assert readback.find_nearest(audited.run_dir, None, "0" * 64) == []


def test_the_heat_map_is_the_report_s(audited: AuditOutcome, tmp_path: Path) -> None:
    """The same sentinels in the same order, the same means."""
    place = {example.id: i for i, example in enumerate(audited.detection.examples)}
    groups = [
        ClusterEvidence(
            rows=tuple(place[id] for id in g["example_ids"]),
            example_ids=tuple(g["example_ids"]),
            panel=g["panel"],
            likeness=1.0,
            example=0,
            prompt_ngrams=(),
            answer_ngrams=(),
            nearest=(),
            confirmation=None,
        )
        for g in readback.read_evidence(audited.run_dir)
    ]
    wanted, read = build_heat_map(audited.detection, groups), read_heat_map(audited.run_dir)
    assert wanted is not None
    assert read is not None
    assert (read.sentinels, read.panels) == (wanted.sentinels, wanted.panels)
    assert np.allclose(read.values, wanted.values, rtol=1e-12)


def test_the_summary_says_how_far_each_sentinel_was_pushed(audited: AuditOutcome) -> None:
    """The largest coefficient of a new row."""
    summary = json.loads((audited.run_dir / "summary.json").read_text())
    largest = audited.detection.coefficients.max(axis=0).tolist()
    assert list(summary["largest_coefficients"].values()) == largest
    assert list(summary["largest_coefficients"]) == [
        sentinel.id for sentinel in audited.detection.sentinels
    ]


@pytest.mark.parametrize(
    "name",
    ["evidence.jsonl", "nearest.jsonl", "sentinels.jsonl", "scores.parquet", "trusted.parquet"],
)
def test_a_file_that_the_audit_did_not_write_is_an_error_and_in_an_unsealed_one_empty(
    audited: AuditOutcome, tmp_path: Path, name: str
) -> None:
    """Run directories of earlier versions have no checksums: there what is damaged says nothing."""
    run_dir = tmp_path / "run"
    shutil.copytree(audited.run_dir, run_dir)
    groups = readback.read_evidence(run_dir)
    flag = audited.detection.flags[0]

    def read_all() -> None:
        readback.read_evidence(run_dir)
        readback.is_group_complete(run_dir, groups[0])
        readback.read_nearest(run_dir)
        readback.read_coefficients(run_dir, flag.sentinel.id, flag.example.id)

    read_all()
    path = run_dir / name
    whole = path.read_bytes()
    for content in (b"", b"{}\n", b"[1]\n", b"\xff{", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(RunError, match=f"{name} of .*run is not what the audit wrote"):
            read_all()
        assert read_heat_map(None) is None
    (run_dir / "SHA256SUMS").unlink()
    read_all()


def test_a_run_directory_that_may_not_be_shown_is_empty(audited: AuditOutcome) -> None:
    """As one that is gone."""
    assert readback.read_evidence(None) == ()
    assert readback.read_asked_sentinels(None) == {}
    assert readback.read_nearest(None) == {}
    assert readback.read_coefficients(None, "shop-1", "0" * 64) is None


def test_a_run_directory_that_is_gone_is_empty(tmp_path: Path) -> None:
    """No error: the ledger still knows the rows."""
    gone = tmp_path / "gone"
    assert readback.read_evidence(gone) == ()
    assert readback.read_asked_sentinels(gone) == {}
    assert readback.read_nearest(gone) == {}
    assert read_heat_map(gone) is None
    assert readback.read_coefficients(gone, "shop-1", "0" * 64) is None
