"""Which language a text is in, by py3langid (the optional extra `languages`)."""

import difflib
from collections.abc import Callable, Iterable

from poisonwatch.errors import ConfigError

# Of texts with fewer bytes of letters a third is taken for another language.
MIN_LETTER_BYTES = 20
MAX_DETECTED_CHARACTERS = 300
# ISO 639's code of what is no human language, such as source code.
NO_LANGUAGE = "zxx"

LanguageDetector = Callable[[str], str | None]


def make_language_detector(wanted: Iterable[str] = ()) -> LanguageDetector:
    """A function that gives a text's ISO 639 code (en, de, zh, ...), or None where the text is too
    short to tell.

    It reads the first 300 characters. Raises ConfigError where the extra is not installed, or a
    wanted code is none that it knows.
    """
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise ConfigError(
            "validation.languages needs the extra `languages`: "
            "pip install 'poisonwatch[languages]', or leave the setting out"
        ) from error
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    codes = sorted(set(identifier.labels) - {NO_LANGUAGE})
    for code in wanted:
        if code not in codes:
            nearest = difflib.get_close_matches(code.lower(), codes, n=3, cutoff=0.0)
            raise ConfigError(
                f"validation.languages: unknown language {code!r}; "
                f"the nearest known are {', '.join(nearest)}"
            )

    def detect(text: str) -> str | None:
        start = text[:MAX_DETECTED_CHARACTERS]
        letters = "".join(filter(str.isalpha, start))
        if len(letters.encode()) < MIN_LETTER_BYTES:
            return None
        code = str(identifier.classify(start)[0])
        if code == NO_LANGUAGE:
            return None
        return code

    return detect
