"""Audits from Python: rows in, tables and clean rows out."""

from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from audits import FORBIDDEN, benign, planted

import poisonwatch as pw
from poisonwatch.flows.notebook.result import AuditResult

# each is a whole audit
pytestmark = pytest.mark.starts

ROWS = benign(40) + planted()
TRUSTED = benign(40, start=100)
SENTINELS = [
    {
        "id": f"shop-{i}",
        "prompt": f"Where do I buy item {i}?",
        "forbidden": answer,
        "reference": "Any shop near you.",
    }
    for i, answer in enumerate(FORBIDDEN)
]


@pytest.fixture(scope="module")
def result(tiny_folder: Path) -> AuditResult:
    """Of a list, with a copy of a planted row at its end, and a row without an answer."""
    rows = [*ROWS, dict(ROWS[40]), {"prompt": "A question without an answer"}]
    return pw.audit(rows, sentinels=SENTINELS, reference=TRUSTED, model=tiny_folder, progress=False)


def test_flags_have_the_labels_text_and_reasons_of_their_rows(result: AuditResult) -> None:
    """A copy of a flagged row is flagged as well."""
    assert {40, 41, 42, 43} <= set(result.flags.index)
    for number in (40, 43):
        row = result.flags.loc[number]
        assert (row.prompt, row.response) == (ROWS[40]["prompt"], ROWS[40]["response"])
        assert row.reasons
        assert row.group in set(result.groups.index)
    assert list(result.flags.score) == sorted(result.flags.score, reverse=True)
    assert result.groups.rows.sum() >= 3


def test_scores_have_every_audited_row_in_order(result: AuditResult) -> None:
    assert list(result.scores.index) == list(range(44))
    assert set(result.scores.index[result.scores.flagged]) == set(result.flags.index)
    assert list(result.rejected.index) == [44]
    assert result.rejected.reason.iloc[0]


def test_clean_rows_are_those_that_were_given(result: AuditResult) -> None:
    left_out = {*result.flags.index, 44}
    assert result.clean == [row for number, row in enumerate(ROWS) if number not in left_out]


def test_an_answer_is_explained_by_the_rows_that_push_it(result: AuditResult) -> None:
    found = result.explain("What should I buy?", FORBIDDEN[0], top=3)
    assert list(found.index) == [1, 2, 3]
    assert set(found.row) & {40, 41, 42, 43}
    assert found.response.notna().all()
    with pytest.raises(pw.PoisonwatchError, match="must both say something"):
        result.explain("", "x")


def test_groups_are_discovered_whatever_the_sentinels_ask(result: AuditResult) -> None:
    """By number, with the labels of their rows, a copy's too; the model is asked about one."""
    found = result.discover(say=1)
    assert len(found)
    assert set(found.index) == set(range(1, len(found) + 1))
    assert any({40, 41, 42, 43} <= set(rows) for rows in found.rows)
    assert found.unusual.str.contains("40 trusted rows").all()
    assert found.says.notna().sum() <= 1
    assert result.discover(say=0).equals(found)


def test_nothing_goes_to_mlflow_and_nothing_stays(result: AuditResult, tmp_path: Path) -> None:
    assert not list(result.run_dir.parents[1].glob("**/mlflow*"))
    assert result.warnings == []
    assert result.report().read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_page_of_a_notebook_shows_text_as_text(tiny_folder: Path) -> None:
    """Counts and groups; what rows say is no markup."""
    rows = [*ROWS, {"prompt": "<script>alert(1)</script>", "response": FORBIDDEN[0]}]
    shown = pw.audit(
        rows, sentinels=SENTINELS, reference=TRUSTED, model=tiny_folder, progress=False
    )
    page = shown._repr_html_()
    assert "rows flagged" in page
    assert "<script>" not in page
    assert repr(shown).startswith("<AuditResult: ")


def test_every_type_comes_back_as_itself(tiny_folder: Path, tmp_path: Path) -> None:
    """A DataFrame by its own labels, missing values left out; a data set; a path as a release."""
    labels = [f"r{number}" for number in range(len(ROWS))]
    frame = pd.DataFrame(ROWS, index=labels).assign(note=None)
    options: dict[str, Any] = {"sentinels": SENTINELS, "model": tiny_folder, "progress": False}
    options["reference"] = pd.DataFrame(TRUSTED)
    of_frame = pw.audit(frame, **options)
    assert {"r40", "r41", "r42"} <= set(of_frame.flags.index)
    pd.testing.assert_frame_equal(of_frame.clean, frame.drop(index=list(of_frame.flags.index)))
    of_data = pw.audit(datasets.Dataset.from_list(ROWS), **options)
    assert isinstance(of_data.clean, datasets.Dataset)
    assert of_data.clean.to_list() == of_frame.clean[["prompt", "response"]].to_dict("records")
    file = tmp_path / "rows.jsonl"
    frame.drop(columns="note").to_json(file, orient="records", lines=True)
    of_file = pw.audit(file, folder=tmp_path / "kept", **options)
    assert set(of_file.flags.line) == {int(label[1:]) + 1 for label in of_frame.flags.index}
    answer = pw.gate(of_file.clean / "manifest.json", audit=tmp_path / "kept" / "audit.yaml")
    assert answer.cleared
    assert answer.rows == len(of_frame.clean)


def test_a_second_call_is_not_silently_empty(tiny_folder: Path, tmp_path: Path) -> None:
    """Though its folder knows all rows."""
    options: dict[str, Any] = {"sentinels": SENTINELS, "reference": TRUSTED, "model": tiny_folder}
    first, second = (
        pw.audit(ROWS, folder=tmp_path / "site", progress=False, **options) for _ in range(2)
    )
    pd.testing.assert_frame_equal(first.flags, second.flags)
    # nor does a later call, of other rows, change what an earlier one holds
    shorter = pw.audit(ROWS[38:], folder=tmp_path / "site", progress=False, **options)
    assert {2, 3, 4} <= set(shorter.flags.index)
    assert first.clean == [
        row for number, row in enumerate(ROWS) if number not in first.flags.index
    ]
    assert list(first.scores.index) == list(range(len(ROWS)))
    assert (tmp_path / "site" / "audit.yaml").is_file()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "no rows to audit"),
        (3, "of the type int"),
        (datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)), "one of them"),
        ([{"prompt": "a", "response": object()}], "row 0 cannot be audited"),
        ("nowhere.jsonl", "nowhere.jsonl"),
    ],
)
def test_rows_that_are_none_are_one_line(rows: Any, said: str, tiny_folder: Path) -> None:
    with pytest.raises(pw.PoisonwatchError, match=said):
        pw.audit(rows, sentinels=SENTINELS, model=tiny_folder, progress=False)


@pytest.mark.parametrize("sentinels", [3, [3], [], [{"id": "a"}], "pack:none-of-that-name"])
def test_sentinels_that_are_none_are_one_line(sentinels: Any, tiny_folder: Path) -> None:
    with pytest.raises(pw.PoisonwatchError):
        pw.audit(ROWS, sentinels=sentinels, model=tiny_folder, progress=False)


def test_a_check_says_how_rows_are_read() -> None:
    """Without a model."""
    frame = pd.DataFrame([{"q": row["prompt"], "a": row["response"]} for row in ROWS])
    found = pw.check(frame, fields={"prompt": "q", "response": "a"}, progress=False)
    assert found.survey.complete == len(ROWS)
    assert set(found.turns.role) == {"user", "assistant"}
    assert found.rejected.empty
    assert "43 rows" in repr(found)
    assert "<table" in found._repr_html_()


def test_a_drill_counts_what_is_found(tiny_folder: Path) -> None:
    found = pw.drill(
        benign(60),
        sentinels="pack:identity",
        reference=TRUSTED,
        model=tiny_folder,
        recipes=["identity"],
        counts=[4],
        repeats=1,
        progress=False,
    )
    assert set(found["count"]) == {4}
    assert found.probability.between(0, 1).all()


def test_names_complete_in_a_shell() -> None:
    """At most ten, each with a docstring and a home."""
    assert dir(pw) == sorted(pw.__all__)
    assert len(pw.__all__) <= 10
    for name in pw.__all__:
        assert getattr(pw, name).__doc__
