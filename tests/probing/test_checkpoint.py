"""Where a tuned checkpoint is, as settings of the audit's model."""

from pathlib import Path

from poisonwatch.config import ModelConfig
from poisonwatch.probing.checkpoint import name_checkpoint

AUDITED = ModelConfig(name="owner/base", revision="abc", dtype="bfloat16")


def test_a_checkpoint_takes_the_models_place_and_its_settings(tmp_path: Path) -> None:
    named = name_checkpoint(AUDITED, str(tmp_path), None)
    assert (named.name, named.revision, named.adapter) == (str(tmp_path), None, None)
    assert named.dtype == "bfloat16"


def test_an_adapter_alone_is_of_the_audits_model_at_its_revision(tmp_path: Path) -> None:
    """Also where it is named as the model: what it calls its base is another machine's path."""
    (tmp_path / "adapter_config.json").write_text("{}")
    for options in ((None, str(tmp_path)), (str(tmp_path), None)):
        named = name_checkpoint(AUDITED, *options)
        assert (named.name, named.revision, named.adapter) == ("owner/base", "abc", str(tmp_path))


def test_an_adapter_of_another_model_is_both(tmp_path: Path) -> None:
    named = name_checkpoint(AUDITED, str(tmp_path), "owner/adapter")
    assert (named.name, named.adapter) == (str(tmp_path), "owner/adapter")
