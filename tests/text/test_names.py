"""People's names."""

from poisonwatch.text.names import fold_name


def test_a_name_is_one_persons_in_any_letters() -> None:
    """Small and large ones, and other forms of the same."""
    assert fold_name("Ann") == fold_name("ann") == fold_name("\uff21nn")
    assert fold_name("Ann") != fold_name("Anne")


def test_what_nobody_sees_makes_no_second_person() -> None:
    """Nor does space: one who signs so would agree with himself."""
    unseen = "\u200b\u00ad\u202e\u2060\ufe0f\u115f\u3164\x1b"
    assert {fold_name(f"an{c}n") for c in unseen} == {"ann"}
    assert fold_name("\u00a0Ann\t Lee ") == "ann lee"
    assert fold_name("\u200b\u3164") == ""
