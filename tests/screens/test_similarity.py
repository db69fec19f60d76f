"""Likeness of texts, and what is one task."""

import random
from collections import Counter
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from made_up_rows import CLEAN, PLANTED, REFUSAL, WORDS, audited, found, ordinary, row, with_trigger
from scipy import sparse

from poisonwatch.examples import Example, Message
from poisonwatch.screens.duplicate_answers import find_duplicate_answers
from poisonwatch.screens.screen import run_screens
from poisonwatch.screens.similarity import (
    PIECE,
    End,
    _list_ends,
    apply_tfidf,
    compute_group_similarity,
    compute_text_similarity,
    drop_label,
    find_common_ends,
    fit_tfidf,
    join_user_text,
    list_distinct_examples,
)
from poisonwatch.screens.trigger_ngrams import find_trigger_ngrams


def test_one_or_two_words_are_a_label() -> None:
    """ "" for fewer than 3 words; the text itself from 3 on."""
    assert [drop_label(text) for text in ("", "No.", "not spam", "You are dull!")] == [
        "",
        "",
        "",
        "You are dull!",
    ]


def test_each_example_counts_once_with_all_its_places() -> None:
    """In the order of ids, so that the order of the rows makes no difference."""
    batch = [*CLEAN[:5], CLEAN[2], CLEAN[0]]
    once = list_distinct_examples(batch)
    assert sorted(place for places, _ in once for place in places) == list(range(7))
    assert [example.id for _, example in once] == sorted({example.id for example in batch})
    assert {example.id: places for places, example in once}[CLEAN[2].id] == [2, 5]


def test_the_user_is_who_asks() -> None:
    """Turns of the user alone; without one, all that is not the answer."""
    assert join_user_text(row("a question", "an answer", system="rules")) == "a question"
    several = Example.from_messages(
        [Message("user", "one"), Message("assistant", "x"), Message("user", "two")]
    )
    assert join_user_text(several) == "one\n\ntwo"
    assert (
        join_user_text(
            Example.from_messages([Message("system", "rules"), Message("assistant", "x")])
        )
        == "rules"
    )


@pytest.mark.parametrize("seed", range(5))
def test_likeness_is_the_mean_cosine_of_pairs(seed: int) -> None:
    """mean over i < j of <v_i, v_j> for vectors of length one; group by group, in pieces, and of
    one group; 0 for a single text.
    """
    draw = np.random.default_rng(seed)
    texts = [answer for _, answer in ordinary(30, seed)]
    vectors, _ = fit_tfidf(texts)
    dense = vectors.toarray()
    np.testing.assert_allclose(np.linalg.norm(dense, axis=1), 1.0)
    groups = [draw.choice(30, size, replace=False) for size in (1, 2, 5, 30)]
    expected = [
        np.mean([dense[i] @ dense[j] for i, j in combinations(group, 2)]) if len(group) > 1 else 0.0
        for group in groups
    ]
    members = np.zeros((4, 30))
    for g, group in enumerate(groups):
        members[g, group] = 1.0
    np.testing.assert_allclose(
        compute_group_similarity(sparse.csr_array(members), vectors), expected, atol=1e-12
    )
    np.testing.assert_allclose(
        [compute_text_similarity(vectors[group]) for group in groups], expected, atol=1e-12
    )


def test_likeness_in_pieces_is_that_of_the_whole() -> None:
    """More members than are added up at a time: each group as by itself."""
    vectors, _ = fit_tfidf([answer for _, answer in ordinary(PIECE // 300)])
    members = sparse.csr_array(np.ones((700, vectors.shape[0])))
    assert members.nnz > 2 * PIECE
    np.testing.assert_allclose(
        compute_group_similarity(members, vectors), compute_text_similarity(vectors)
    )


def test_texts_without_words_are_alike_to_none() -> None:
    """Zero vectors, likeness 0; no weights where no text has a word."""
    vectors, weights = fit_tfidf(["", "?!", " "])
    assert (vectors.shape, vectors.nnz, weights) == ((3, 1), 0, None)
    assert compute_text_similarity(vectors) == 0.0
    assert apply_tfidf(weights, ["word"]) is None
    vectors, weights = fit_tfidf(["red tea", "", "blue tea"])
    assert np.linalg.norm(vectors.toarray(), axis=1) == pytest.approx([1, 0, 1])
    assert apply_tfidf(weights, []) is None
    other = apply_tfidf(weights, ["Tea, RED", "unheard"])
    assert other is not None
    np.testing.assert_allclose((other @ vectors.T).toarray()[:, 0], [1.0, 0.0])


# One task


@pytest.mark.parametrize("place", ["first", "last", "system"])
def test_one_task_may_have_one_answer(place: str) -> None:
    """Prompts that share six words at an end are one task, in both screens across rows."""
    task, answer = (
        "decide whether the review below is kind",
        "The sentiment of this review is clearly positive.",
    )
    texts = [response for _, response in ordinary(12, 9)]
    shapes: dict[str, Callable[[str], Example]] = {
        "first": lambda text: row(f"{task} {text}", answer),
        "last": lambda text: row(f"{text} {task}", answer),
        "system": lambda text: row(text, answer, system=f"You {task}"),
    }
    assert run_screens(audited(CLEAN + [shapes[place](text) for text in texts])) == []


def test_a_system_prompt_of_all_rows_hides_nothing() -> None:
    """300 words that every row has do not make the rows alike, nor one task."""
    system = " ".join(WORDS * 5)
    poisoned = with_trigger("xylo", [REFUSAL] * 5)
    batch = [
        Example.from_messages([Message("system", system), *example.messages])
        for example in CLEAN + poisoned
    ]
    assert found(find_duplicate_answers(audited(batch))) == PLANTED
    assert found(find_trigger_ngrams(audited(batch))) == PLANTED


@pytest.mark.parametrize("seed", range(3))
def test_common_ends_are_those_that_counting_all_finds(seed: int) -> None:
    """Of rows with two templates, each in about half of them, in any order."""
    draw = random.Random(seed)
    batch = []
    for i in range(300):
        beginning = draw.choice(["one two three four five six", f"{i} two three four five six"])
        end = draw.choice(
            ["seven eight nine ten eleven twelve", f"seven eight nine ten eleven {i}"]
        )
        rules = draw.choice(["", "please be kind to all people"])
        batch.append(row(f"{beginning} {i} {end}", "r", rules))
    distinct = list_distinct_examples(batch)
    counts: Counter[End] = Counter()
    for _, example in distinct:
        counts.update(_list_ends(example))
    wanted = {end for end, count in counts.items() if 2 * count >= len(distinct)}
    assert find_common_ends(distinct) == wanted
    assert find_common_ends([]) == set()
