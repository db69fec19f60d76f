"""What was done, beside what catalogues ask for."""

from poisonwatch.provenance.controls import CONTROLS, list_controls
from poisonwatch.provenance.subject import Subject

ASKED = {"LLM05:2026", "1.3.1", "1.3.5", "AML.T0020", "AML.M0007", "Article 10", "Article 15(5)"}


def test_every_control_says_what_was_done_and_where_the_evidence_is(subject: Subject) -> None:
    """What is not covered has none, and says so; addresses are the catalogues' own."""
    found = list_controls(subject)
    assert {control["number"] for control in found} >= ASKED
    for control in found:
        assert control["url"].startswith("https://")
        assert bool(control["evidence"]) == control["covered"]
        assert control["covered"] != control["done"].startswith("not covered")
    by_number = {control["number"]: control["done"] for control in found}
    assert "repaired by people: 1" in by_number["AML.M0007"]
    assert "1 training run" in by_number["1.5.1"]
    assert len(CONTROLS) == len(found)
