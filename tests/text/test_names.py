"""People's names."""

from poisonwatch.text.names import fold_name


def test_a_name_is_one_persons_in_any_letters() -> None:
    """Small and large ones, and other forms of the same."""
    assert fold_name("Ann") == fold_name("ann") == fold_name("\uff21nn")
    assert fold_name("Ann") != fold_name("Anne")
