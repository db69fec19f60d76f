"""What the registered model of an audit may be called."""

from poisonwatch.integrations.mlflow.names import list_model_names


def test_audits_of_like_names_have_models_of_their_own() -> None:
    """The second name differs where the first cannot."""
    one, other = list_model_names("a/b"), list_model_names("a:b")
    assert one[0] == other[0]
    assert one[1] != other[1]
