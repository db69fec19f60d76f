"""Which language a text is in."""

import builtins
from typing import Any

import pytest

from poisonwatch.errors import ConfigError
from poisonwatch.text.language import MAX_DETECTED_CHARACTERS, make_language_detector


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("How do I return a pan that I bought last week?", "en"),
        ("Wie kann ich eine Pfanne zurückgeben, die ich letzte Woche gekauft habe?", "de"),
        ("Comment puis-je rendre une poêle achetée la semaine dernière ?", "fr"),
        ("先週買ったフライパンを返品するにはどうすればいいですか", "ja"),
        ("Как вернуть сковороду, которую я купил?", "ru"),
    ],
)
def test_languages_are_told_apart(text: str, code: str) -> None:
    """By ISO 639 code."""
    assert make_language_detector()(text) == code


@pytest.mark.parametrize(
    "text", ["", "Yes.", "42 * 17 = 714 (exactly), 3.14159265358979", "\U0001f600" * 50]
)
def test_what_has_few_letters_has_no_language(text: str) -> None:
    """A guess would be wrong too often."""
    assert make_language_detector()(text) is None


def test_only_the_beginning_is_read() -> None:
    """A long text costs no more than a short one."""
    english = "This is an English sentence that goes on and on. " * 9
    detect = make_language_detector()
    assert (
        detect(english + "\u4f60\u597d" * 100_000)
        == detect(english[:MAX_DETECTED_CHARACTERS])
        == "en"
    )


def test_an_unknown_language_names_the_nearest() -> None:
    """Codes, not names."""
    with pytest.raises(ConfigError, match=r"unknown language 'EN'; the nearest known are en"):
        make_language_detector(["de", "EN"])
    with pytest.raises(ConfigError, match="unknown language 'zxx'"):
        make_language_detector(["zxx"])


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module missing, as where the extra was not installed."""
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("py3langid"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'poisonwatch\[languages\]'"):
        make_language_detector()
