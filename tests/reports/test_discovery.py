"""What was discovered, in a summary and in words."""

from discovered import KNOWN_BEFORE, make_examples, make_group, make_report

from poisonwatch.reports.discovery import summarise_discovery, tell_discovery


def test_a_summary_counts_what_was_found_and_what_of_it_is_new() -> None:
    """Free of row text; what lies within a stronger group is not counted again."""
    rows = make_examples()
    report = make_report(
        make_group(rows[:2], 1),
        make_group(rows[2:], 2, precedents=KNOWN_BEFORE),
        make_group(rows[:1], 3),
        make_group(rows, 4, passed=False),
    )
    section = summarise_discovery(report)
    assert section is not None
    assert (section["found"], section["new"], section["groups"]) == (2, 1, 4)
    assert "Glorb" not in str(section)
    told = tell_discovery({"discovery": section})
    assert told is not None
    assert "2 groups of 50 new rows push the model a way of their own" in told
    assert "with 1 more within or around" in told
    assert "; 1 new since" in told


def test_audits_that_did_not_look_say_nothing() -> None:
    """Nor do those of earlier versions."""
    assert summarise_discovery(None) is None
    assert tell_discovery({"discovery": None}) is None
    assert tell_discovery({}) is None
