"""The line of a group in the queue."""

import html
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from browsing import asking, audit_of, groups
from starlette.testclient import TestClient

from poisonwatch.dashboards.group_lines import (
    NOT_ASKED,
    NOT_KNOWN,
    SECOND_LOOKS,
    describe_second_look,
    find_shared_phrases,
    list_shared_words,
    tell_age,
)


def read_groups(config: Path) -> list[dict[str, Any]]:
    path = config.parent / "run" / "evidence.jsonl"
    return list(map(json.loads, path.read_bytes().splitlines()))


def read_line(client: TestClient, address: str) -> str:
    """The text of a group's line in the queue."""
    page = client.get("/triage?state=all").text
    rows = [row.partition("</tr>")[0] for row in page.split("<tr>")[1:]]
    (line,) = [row for row in rows if f'href="{address}"' in row]
    return " ".join(html.unescape(re.sub("<[^>]+>", "", line)).split())


def test_a_line_says_what_the_rows_share_and_shows_the_worst(
    client: TestClient, config: Path
) -> None:
    """With the counts of the evidence, the excerpt of its strongest row, what the second look came
    to, its source and its age.
    """
    known = read_groups(config)
    told = 0
    for address in groups(client):
        key = address.rpartition("/")[2]
        line = read_line(client, address)
        assert "rows.jsonl" in line
        assert re.search(r"\d (s|min|h) tiny$", line)
        if len(key) > 7:
            continue
        group = known[int(key) - 1]
        assert SECOND_LOOKS[group["confirmation"]["grade"]] in line
        for side in ("answer", "prompt"):
            if group[f"{side}_ngrams"]:
                gram = min(group[f"{side}_ngrams"], key=lambda each: each["outside"])
                assert f"in {gram['inside']} of {gram['rows']} {side}s" in line
                told += any(each["text"] in line for each in group[f"{side}_ngrams"])
    assert told


def test_without_its_run_directory_a_line_still_shows_its_worst_row(
    tmp_path: Path, tiny_folder: Path
) -> None:
    """What the second look came to is then not known."""
    config = audit_of(tmp_path, tiny_folder)
    with asking(config) as client:
        address = next(each for each in groups(client) if len(each.rpartition("/")[2]) < 8)
        whole = read_line(client, address)
        assert NOT_KNOWN not in whole
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        line = read_line(client, address)
        assert NOT_KNOWN in line
        assert "→" in line
        (tmp_path / "elsewhere").rename(tmp_path / "run")
        (tmp_path / "run" / "evidence.jsonl").write_text("[]\n")
        assert NOT_KNOWN in read_line(client, address)


@pytest.mark.parametrize(
    ("confirmation", "words", "confirmed"),
    [
        (None, NOT_ASKED, False),
        ({"confirmed": True, "grade": "strong"}, "strong effect", True),
        ({"confirmed": False, "grade": "weak"}, "weak effect", False),
        ({"confirmed": False, "grade": "none"}, "no sure effect", False),
        ({"confirmed": True}, "confirmed", True),
        ({"confirmed": False}, "not confirmed", False),
    ],
)
def test_a_second_look_has_a_word_for_each_end(
    confirmation: dict[str, Any] | None, words: str, confirmed: bool
) -> None:
    """Of audits before grades, too."""
    assert describe_second_look(confirmation) == (words, confirmed)


def test_the_rarest_phrase_of_each_side_is_told() -> None:
    """Answers first; nothing where rows share nothing, or belong to no group."""
    grams = [
        {"text": text, "inside": 5, "rows": 6, "outside": outside}
        for text, outside in (("buy", 3), ("Velmora", 0), ("at once", 0))
    ]
    shared = find_shared_phrases({"prompt_ngrams": [], "answer_ngrams": grams})
    assert [(each.text, each.side, each.inside, each.rows) for each in shared] == [
        ("Velmora", "answers", 5, 6)
    ]
    assert find_shared_phrases({"prompt_ngrams": grams, "answer_ngrams": []})[0].side == "prompts"
    assert find_shared_phrases(None) == ()
    both = {"prompt_ngrams": grams[:1], "answer_ngrams": grams}
    assert list_shared_words(both) == ["Velmora", "buy", "at once"]
    assert list_shared_words(None) == []


@pytest.mark.parametrize(
    ("age", "told"),
    [
        (timedelta(seconds=-5), "0 s"),
        (timedelta(minutes=59, seconds=3), "59 min"),
        (timedelta(hours=5, minutes=3), "5 h"),
        (timedelta(days=13, hours=20), "13 d"),
        (timedelta(days=14), "2 weeks"),
        (timedelta(days=400), "57 weeks"),
    ],
)
def test_an_age_is_in_one_unit(age: timedelta, told: str) -> None:
    """The largest that it fills."""
    assert tell_age(age) == told
