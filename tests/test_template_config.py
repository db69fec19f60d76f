"""What an audit file says about chat templates, and what becomes of it."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from poisonwatch.config_file import resolve_config
from poisonwatch.errors import ConfigError
from poisonwatch.template_config import DEFAULT_TEMPLATE_DATE, is_template


def resolve(folder: Path, **model: Any) -> Any:
    settings = {"source": "rows.jsonl", "sentinels": "pack:security", "model": model}
    return resolve_config(settings, folder).model


def test_a_template_is_told_from_its_path(tmp_path: Path) -> None:
    """A path is relative to the audit file, as other paths; a template stays as it is."""
    assert resolve(tmp_path, chat_template="chat.jinja").chat_template == f"{tmp_path}/chat.jinja"
    assert resolve(tmp_path, chat_template="/a/b.jinja").chat_template == "/a/b.jinja"
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert is_template(template)
    assert resolve(tmp_path, chat_template=template).chat_template == template
    assert resolve(tmp_path).chat_template is None


def test_settings_of_a_template_are_any_json(tmp_path: Path) -> None:
    """What templates take: truth values, texts, lists; the date has a default that never moves."""
    model = resolve(
        tmp_path,
        template_kwargs={"enable_thinking": False, "builtin_tools": ["python"]},
        template_date="2025-01-31",
        end_of_answer="</s>",
    )
    assert model.template_kwargs == {"enable_thinking": False, "builtin_tools": ["python"]}
    assert model.template_date == date(2025, 1, 31)
    assert resolve(tmp_path).template_date == DEFAULT_TEMPLATE_DATE == date(2024, 7, 26)
    assert (
        resolve_config(
            {"source": "a", "sentinels": "b", "model": {"template_date": "2025-01-31"}}, tmp_path
        ).to_public_dict()["model"]["template_date"]
        == "2025-01-31"
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"template_kwargs": {"tools": []}}, "tools is not for settings"),
        ({"template_kwargs": {"x": date(2025, 1, 1)}}, "model.template_kwargs.x"),
        ({"template_kwargs": "enable_thinking"}, "model.template_kwargs"),
        ({"template_date": "soon"}, "model.template_date"),
        ({"end_of_answer": ""}, "model.end_of_answer"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    """The key, and what is wrong with it."""
    with pytest.raises(ConfigError, match=said) as raised:
        resolve(tmp_path, **settings)
    assert "\n" not in str(raised.value)
