"""All rows by the words that they say."""

from pathlib import Path

import pytest
from audits import benign, write_rows
from ledgers import append, cover, pull, sqlite_ledger, write_two_files
from servers import postgres_server

from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.row_search import (
    RowFilter,
    find_like_words,
    index_rows,
    list_matching_ids,
    load_rows,
    search_rows,
)

HOSTILE = (
    '"', "'", '" OR "1', "tea*", "NEAR(tea bread)", "tea AND", "-tea", "words:tea", "tea\x00", "(",
    "'; DROP TABLE rows; --", "tea & ", "tea | !", "\\", "🫖", ":*", "^tea",
)  # fmt: skip


def prompts(ledger: Ledger, words: str, **more: str) -> list[str]:
    found, total = search_rows(ledger, RowFilter(words, **more))
    assert total == len(found)
    return [row.example.prompt for row in found if row.example is not None]


def check_search(ledger: Ledger, folder: Path) -> None:
    """All words must be there, in any case; what came since is found, too."""
    write_two_files(folder / "data")
    pull(ledger, folder / "data")
    assert index_rows(ledger, 0) == 0
    assert prompts(ledger, "TEA, fact!") == ["Tell me fact 0 about tea."]
    assert prompts(ledger, "fact 0 bread") == []
    assert prompts(ledger, "riv") == [
        "Tell me fact 10 about rivers.",
        "Tell me fact 2 about rivers.",
    ]
    assert prompts(ledger, "riv", source="b.jsonl") == ["Tell me fact 10 about rivers."]
    more = [{"prompt": "Où est le café ?", "response": "茶館在這裡，snake_case"}]
    append(folder / "data" / "a.jsonl", more)
    pull(ledger, folder / "data")
    index_rows(ledger, 10)
    for words in ("CAFÉ", "館", "snake_case", "où café"):
        assert prompts(ledger, words) == ["Où est le café ?"], words
    assert len(list_matching_ids(ledger, RowFilter("fact"))) == 8
    for words in HOSTILE:
        assert len(prompts(ledger, words)) <= 1, words
    found, total = search_rows(ledger, RowFilter(), page=2, size=4)
    assert (len(found), total) == (4, 10)
    cover(ledger, folder / "run", flagged=["Tell me fact 2 about rivers."])
    assert prompts(ledger, "", status="flagged") == ["Tell me fact 2 about rivers."]
    like = find_like_words(ledger, ["rivers", "2"], most=3)
    assert like[0].example is not None
    assert like[0].example.prompt == "Tell me fact 2 about rivers."
    ids = [row.example_id for row in found]
    assert [row.example_id for row in load_rows(ledger, [*ids, "0" * 64])] == ids


def test_rows_are_found_by_their_words(tmp_path: Path) -> None:
    """And a query is words, whatever it holds."""
    with sqlite_ledger(tmp_path) as ledger:
        check_search(ledger, tmp_path)


def test_rows_are_found_by_their_words_on_postgresql(tmp_path: Path) -> None:
    """On a real server."""
    with postgres_server() as url, Ledger.at(url) as ledger:
        check_search(ledger, tmp_path)


def test_an_index_is_made_lot_by_lot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is said, and nothing is indexed twice."""
    monkeypatch.setattr("poisonwatch.ledger.row_search.ROWS_PER_LOT", 4)
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "a.jsonl", benign(10))
    with sqlite_ledger(tmp_path) as ledger:
        pull(ledger, tmp_path / "data")
        assert [index_rows(ledger, 0) for _ in range(4)] == [6, 2, 0, 0]
        assert len(prompts(ledger, "fact")) == 10
