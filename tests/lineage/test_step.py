"""Steps as JSON, by kind."""

from poisonwatch.lineage.step import Lineage, Step


def test_steps_are_told_apart_by_kind() -> None:
    steps = (Step("source", "a", None, "2 rows", {"rows": 2}), Step("audit", "b", "now", "passed"))
    found = Lineage("rows of tiny", steps)
    assert found.list("audit") == steps[1:]
    assert found.list("release") == ()
    assert found.record() == {
        "of": "rows of tiny",
        "steps": [
            {"kind": "source", "name": "a", "at": None, "words": "2 rows", "facts": {"rows": 2}},
            {"kind": "audit", "name": "b", "at": "now", "words": "passed", "facts": {}},
        ],
    }
