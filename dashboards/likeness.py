"""Rows like one: by the model's own states where an audit left them, else by their words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from poisonwatch.examples import Example
from poisonwatch.ledger.history import PastAudit
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.row_search import FoundRow, find_like_words, load_rows
from poisonwatch.run_directory.alike import find_alike
from poisonwatch.text.words import split_words

MOST_ALIKE = 20  # rows
MOST_COMPARED = 300  # rows whose words are compared
MOST_WORDS = 40  # words of a row by which others are looked up
LONGEST_TEXT = 20_000  # characters of a row that are compared

Measure = Literal["states", "words"]


@dataclass(frozen=True, slots=True)
class AlikeRows:
    """The rows most like one, each with how alike it is: by the cosine of the model's states in an
    `audit`, or, where none left any of the row, of words weighted by how rare they are (TF-IDF).
    """

    measure: Measure
    audit: PastAudit | None
    rows: tuple[tuple[FoundRow, float], ...]


def find_alike_rows(
    ledger: Ledger, example_id: str, example: Example, audits: Sequence[PastAudit]
) -> AlikeRows:
    """The rows most like one, flagged or not, by the first of these audits that left states of
    it.
    """
    for past in audits:
        found = find_alike(past.run_dir, example_id, MOST_ALIKE)
        if found is not None:
            near = {row.example_id: row.similarity for row in found}
            # Trusted rows are none of the ledger's.
            rows = load_rows(ledger, list(near))
            return AlikeRows("states", past, tuple((row, near[row.example_id]) for row in rows))
    return AlikeRows("words", None, _compare_words(ledger, example_id, example))


def _compare_words(
    ledger: Ledger, example_id: str, example: Example
) -> tuple[tuple[FoundRow, float], ...]:
    # Whoever asks for no words need not wait for the library.
    from sklearn.feature_extraction.text import TfidfVectorizer

    own = write_text(example)
    words = sorted(dict.fromkeys(split_words(own)), key=len, reverse=True)[:MOST_WORDS]
    others = [
        row
        for row in find_like_words(ledger, words, MOST_COMPARED)
        if row.example is not None and row.example_id != example_id
    ]
    if not others:
        return ()
    texts = [own, *(write_text(row.example) for row in others if row.example is not None)]
    weights = TfidfVectorizer(tokenizer=split_words, token_pattern=None, lowercase=False)
    vectors = weights.fit_transform(texts)
    cosines = (vectors[1:] @ vectors[0].T).toarray().ravel()
    order = sorted(range(len(others)), key=lambda place: -cosines[place])[:MOST_ALIKE]
    return tuple((others[place], float(cosines[place])) for place in order)


def write_text(example: Example) -> str:
    """All that a row says, up to a length."""
    return "\n".join(message.content for message in example.messages)[:LONGEST_TEXT]
