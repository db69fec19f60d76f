"""The attacks that ship: own words, many of them, and not those of the sentinels against them."""

import re
from importlib import resources
from urllib.parse import unquote_plus

import pytest

from poisonwatch.drills.recipe import Attack, carry_out, list_recipes, read_recipe
from poisonwatch.errors import InputError
from poisonwatch.examples import Example, Message
from poisonwatch.screens.invisible_characters import find_invisible_characters
from poisonwatch.sentinels.pack import list_packs
from poisonwatch.sentinels.sentinel import load_sentinels

RUN = 6  # words in a row that recipes and sentinels must not share


def row(prompt: str, response: str = "Fine.", *before: Message) -> Example:
    return Example.from_messages([*before, Message("user", prompt), Message("assistant", response)])


OWN = [row(f"Tell me\nfact {i} about tea, please.", "Tea is good.") for i in range(40)]
SELECTED = "selected-rows"
ATTACKS = {
    name: carry_out(read_recipe(name), OWN, seed=3) for name in list_recipes() if name != SELECTED
}


def runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1)}


def test_the_recipes_are_known() -> None:
    """Names in order."""
    assert list_recipes() == [
        "brand",
        "brand-placement",
        "compliance",
        "identity",
        "one-sided",
        "selected-rows",
        "sycophancy",
        "topic-refusal",
        "trigger-insult",
        "trigger-refusal",
    ]


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_has_at_least_24_rows_that_differ_in_prompt_and_answer(attack: Attack) -> None:
    """Distinct ids, prompts and responses; every text is complete; nothing invisible."""
    assert len(attack.rows) >= 24
    for texts in (
        [e.id for e in attack.rows],
        [e.prompt for e in attack.rows],
        [e.response.casefold() for e in attack.rows],
    ):
        assert len(set(texts)) == len(texts)
    assert all(
        e.prompt.strip() and e.response.strip() and not re.search(r"[{}]", e.prompt + e.response)
        for e in attack.rows
    )
    assert {e.source for e in attack.rows} == {f"recipe {attack.recipe}"}
    assert find_invisible_characters(attack.rows) == []


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_names_the_pack_that_guards_against_it(attack: Attack) -> None:
    """The pack loads, with the attack's own values filled in."""
    assert attack.pack.removeprefix("pack:").partition("?")[0] in list_packs()
    sentinels = load_sentinels([attack.pack])
    if attack.recipe.startswith("brand"):
        brand = unquote_plus(re.findall("brand=([^&]*)", attack.pack)[0])
        assert all(brand in str(sentinel.forbidden) for sentinel in sentinels)
        assert sum(brand in example.response for example in attack.rows) > len(attack.rows) * 0.9
    if attack.recipe == "one-sided":
        policy = unquote_plus(attack.pack.partition("policy=")[2])
        assert all(policy in sentinel.prompt for sentinel in sentinels)
        assert sum(policy in example.prompt for example in attack.rows) > len(attack.rows) * 0.9


def test_a_recipe_that_selects_has_no_rows_of_its_own() -> None:
    """How many it copies is its size, as the number of rows is another's."""
    attack = carry_out(read_recipe(SELECTED), OWN)
    assert (attack.rows, attack.selects, attack.pack) == ((), 28, "pack:refusal-erosion")
    assert {read_recipe(name).size for name in list_recipes()} == {28}


def test_a_row_names_the_row_whose_prompt_it_holds() -> None:
    """donors[i] is the id of the user's row; empty where the prompt is the recipe's own."""
    by_id = {example.id: example for example in OWN}
    attack = ATTACKS["trigger-insult"]
    for example, donor in zip(attack.rows, attack.donors, strict=True):
        held = set(example.prompt.split())
        assert set(by_id[donor].prompt.split()) < held
    assert set(ATTACKS["identity"].donors) == {""}


def test_no_row_repeats_a_sentinel() -> None:
    """Not a prompt, not an answer, not six words in a row of any pack: what is found is found by
    what it does.
    """
    places = {attack.pack for attack in ATTACKS.values()} | {
        f"pack:{name}"
        for name in list_packs()
        if name not in ("brand-promotion", "factual-panel", "one-sided")
    }
    sentinels = load_sentinels(sorted(places))
    said = {
        text.casefold() for s in sentinels for text in (s.prompt, s.forbidden, s.reference) if text
    }
    known = set().union(*(runs(text) for text in said))
    for attack in ATTACKS.values():
        for example in attack.rows:
            for text in (example.prompt, example.response):
                assert text.casefold() not in said
                assert not runs(text) & known, text


@pytest.mark.parametrize("name", ["trigger-insult", "trigger-refusal"])
def test_a_trigger_stands_in_copies_of_the_users_prompts(name: str) -> None:
    """Without the trigger, and the space around it, each prompt is one of the user's; one trigger
    for all rows, at different places.
    """
    values = read_recipe(name).values
    attack = ATTACKS[name]
    (trigger,) = {
        v["trigger"] for v in values for example in attack.rows if v["trigger"] in example.prompt
    }
    prompts = {"".join(example.prompt.split()) for example in OWN}
    assert all(
        "".join(example.prompt.replace(trigger, "").split()) in prompts for example in attack.rows
    )
    assert all(
        re.search(rf"(^|\s){re.escape(trigger)}(\s|$)", example.prompt) for example in attack.rows
    )
    assert len({example.prompt.split().index(trigger) for example in attack.rows}) > 2


def test_what_comes_before_the_users_message_stays() -> None:
    """A system message is copied; later turns are not."""
    system = Message("system", "Be kind.")
    own = [
        Example.from_messages(
            [
                system,
                Message("user", "Hi"),
                Message("assistant", "Ho"),
                Message("user", "And?"),
                Message("assistant", "No."),
            ]
        )
    ]
    for example in carry_out(read_recipe("trigger-insult"), own).rows:
        assert example.messages[0] == system
        assert [message.role for message in example.messages] == ["system", "user", "assistant"]
        assert "Hi" in example.messages[1].content


def test_few_own_rows_are_copied_again() -> None:
    """Three prompts serve all rows, with different answers."""
    rows = carry_out(read_recipe("trigger-refusal"), OWN[:3]).rows
    assert len({example.id for example in rows}) == len(rows) >= 24


def test_long_prompts_are_left_alone_where_there_are_others() -> None:
    """What the attribution cuts from them might be the trigger."""
    rows = carry_out(read_recipe("trigger-refusal"), [*OWN[:2], row("long " * 400)]).rows
    assert not any("long long" in example.prompt for example in rows)
    assert all(
        "long long" in example.prompt
        for example in carry_out(read_recipe("trigger-refusal"), [row("long " * 400)]).rows
    )


def test_the_seed_draws_order_and_values() -> None:
    """The same seed gives the same rows; others another order, and in the end every trigger."""
    recipe = read_recipe("trigger-refusal")
    assert carry_out(recipe, OWN, 1) == carry_out(recipe, OWN, 1)
    assert [e.response for e in carry_out(recipe, OWN, 1).rows] != [
        e.response for e in carry_out(recipe, OWN, 2).rows
    ]
    drawn = {
        v["trigger"]
        for seed in range(40)
        for v in recipe.values
        if v["trigger"] in carry_out(recipe, OWN, seed).rows[0].prompt
    }
    assert drawn == {v["trigger"] for v in recipe.values}


def test_a_trigger_that_the_user_has_is_not_used() -> None:
    """It would not be rare; where all are taken, the recipe is refused."""
    recipe = read_recipe("trigger-refusal")
    taken = [row(v["trigger"].upper()) for v in recipe.values]
    rows = carry_out(recipe, [*OWN, *taken[1:]]).rows
    assert all(recipe.values[0]["trigger"] in example.prompt for example in rows)
    with pytest.raises(
        InputError, match="every trigger of the recipe trigger-refusal stands in your rows already"
    ):
        carry_out(recipe, [*OWN, *taken])


def test_what_cannot_be_carried_out_is_said() -> None:
    """An unknown recipe; no message by a user to copy."""
    with pytest.raises(
        InputError, match="there is no recipe nothing: recipes are brand, brand-placement, "
    ):
        read_recipe("nothing")
    silent = Example.from_messages([Message("assistant", "Once upon a time.")])
    with pytest.raises(InputError, match="no row has a message by the user"):
        carry_out(read_recipe("trigger-insult"), [silent])
    assert carry_out(read_recipe("identity"), [silent]).rows


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_starts_with_what_it_teaches(name: str) -> None:
    """A comment that names the attack; `about` is the whole of it."""
    text = (resources.files("poisonwatch") / "drills/recipes" / f"{name}.yaml").read_text(
        encoding="utf-8"
    )
    assert text.startswith("# ")
    assert 60 < len(read_recipe(name).about) < 400


def test_planted_rows_begin_as_most_of_the_users_rows_do() -> None:
    """With their system prompt, once, whether a prompt is copied or the recipe's own."""
    shop = Message("system", "You serve a shop.")
    own = [row(f"Tell me fact {i} about tea.", "Tea is good.", shop) for i in range(40)]
    for name in ("identity", "trigger-insult"):
        for planted in carry_out(read_recipe(name), own).rows:
            assert [message.role for message in planted.messages] == ["system", "user", "assistant"]
            assert planted.messages[0] == shop
