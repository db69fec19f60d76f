"""Recipes: known attacks to plant into clean rows, so that an audit can be put to the test
(`drill`).

A recipe is a file in `recipes/`: the `pack` whose sentinels guard against the attack, `values` of
which one set is drawn and filled in, and `rows` of prompt and response. A row without a prompt
takes one of the user's own and puts the value `trigger` into it. A recipe that `selects` has no
rows of its own: it plants copies of honest rows, chosen by what they do (`drill`).
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus

from poisonwatch.errors import InputError
from poisonwatch.examples import Example, Message
from poisonwatch.screens.frames import find_frame
from poisonwatch.sentinels.pack import PLACEHOLDER, list_shipped, read_shipped
from poisonwatch.text.safe_yaml import parse_yaml

# characters of a prompt that is copied, where there are such: what is cut from long ones might be
# the trigger
MAX_PROMPT_CHARS = 1000


@dataclass(frozen=True, slots=True)
class Recipe:
    """An attack as it ships: `about` says what it teaches; `pack` names the sentinels against it,
    with the placeholders of `values`. `selects` is how many of the user's rows are copied, where
    there are no `rows`.
    """

    name: str
    about: str
    pack: str
    values: tuple[Mapping[str, str], ...]
    rows: tuple[Mapping[str, str], ...]
    selects: int = 0

    @property
    def size(self) -> int:
        """How many rows can be planted."""
        return self.selects or len(self.rows)


@dataclass(frozen=True, slots=True)
class Attack:
    """A recipe carried out: its `rows`, all different, and the `pack` whose sentinels guard against
    them.

    `donors` are the ids of the user's rows whose prompts the rows hold, one a row, empty where a
    prompt is the recipe's own. An attack that `selects` has no rows yet.
    """

    recipe: str
    pack: str
    rows: tuple[Example, ...]
    donors: tuple[str, ...] = ()
    selects: int = 0


def list_recipes() -> list[str]:
    """Names of the recipes that ship with Poisonwatch."""
    return list_shipped("drills/recipes")


def read_recipe(name: str) -> Recipe:
    """A recipe as it ships; its comment is `about`. Raises InputError where there is none of that
    name.
    """
    if name not in list_recipes():
        raise InputError(f"there is no recipe {name}: recipes are {', '.join(list_recipes())}")
    comment, text = read_shipped("drills/recipes", name)
    read: dict[str, Any] = parse_yaml(text)
    values, rows = tuple(read["values"]), tuple(read["rows"])
    return Recipe(name, comment, read["pack"], values, rows, read.get("selects", 0))


def carry_out(recipe: Recipe, own: Sequence[Example], seed: int = 0) -> Attack:
    """The recipe's rows, in an order and with values drawn by the seed; prompts that it needs are
    copied from the user's `own` rows, and its own prompts begin as most of these do (`find_frame`).

    Raises InputError where the attack needs rows of the user's and there are none, or where each of
    its triggers stands in them already.
    """
    draw = random.Random(f"{seed}/{recipe.name}")
    openings, frame = _list_openings(own), find_frame(own)
    donors: list[str] = []
    values = _draw_values(recipe, own, draw)
    rows = draw.sample(recipe.rows, len(recipe.rows))
    # Each of the user's prompts is copied once before any is copied again.
    copied: list[Example] = []
    for _ in range(0, len(rows), max(1, len(openings))):
        copied += draw.sample(openings, len(openings))
    examples = []
    for position, row in enumerate(rows):
        donor = ""
        if "prompt" in row:
            prompt = (*frame, Message("user", _fill_values(row["prompt"], values)))
        elif not openings:
            raise InputError(
                f"the recipe {recipe.name} copies prompts, but no row has a message by the user: "
                "leave it out with --recipes"
            )
        else:
            donor = copied[position].id
            *before, last = _take_opening(copied[position])
            prompt = (*before, Message("user", _put_trigger(last.content, values["trigger"], draw)))
        messages = (*prompt, Message("assistant", _fill_values(row["response"], values)))
        donors.append(donor)
        examples.append(Example.from_messages(messages, f"recipe {recipe.name}", position))
    # The values are in the pack's name as parameters, so that its sentinels ask for the same.
    pack = PLACEHOLDER.sub(lambda found: quote_plus(values[found[1]]), recipe.pack)
    return Attack(recipe.name, pack, tuple(examples), tuple(donors), recipe.selects)


def _list_openings(own: Sequence[Example]) -> list[Example]:
    """The rows that have a message by the user to copy: those in which it comes soon, or all where
    it does in none.
    """
    openings, short = [], []
    for example in own:
        opening = _take_opening(example)
        if not opening:
            continue
        openings.append(example)
        chars = 0
        for message in opening:
            chars += len(message.content)
        if chars <= MAX_PROMPT_CHARS:
            short.append(example)
    return short or openings


def _draw_values(recipe: Recipe, own: Sequence[Example], draw: random.Random) -> Mapping[str, str]:
    """One set of the recipe's values, whose trigger stands in none of the user's rows.

    Raises InputError where there is none.
    """
    contents = []
    for example in own:
        for message in example.messages:
            contents.append(message.content)
    text = "\n".join(contents).casefold()
    usable = []
    for values in recipe.values:
        # A trigger that clean rows hold would make these a part of the attack.
        if "trigger" not in values or values["trigger"].casefold() not in text:
            usable.append(values)
    if not usable:
        raise InputError(
            f"every trigger of the recipe {recipe.name} stands in your rows already: "
            "leave it out with --recipes"
        )
    return draw.choice(usable)


def _take_opening(example: Example) -> tuple[Message, ...]:
    """A conversation up to its first message by the user; nothing where there is none."""
    for i, message in enumerate(example.messages):
        if message.role == "user":
            return example.messages[: i + 1]
    return ()


def _fill_values(text: str, values: Mapping[str, str]) -> str:
    return PLACEHOLDER.sub(lambda found: values[found[1]], text)


def _put_trigger(text: str, trigger: str, draw: random.Random) -> str:
    """The text with the trigger between two of its words, before the first, or behind the last."""
    # Behind white space alone: within a word the trigger would make another word of it.
    gaps = [0, *(found.end() for found in re.finditer(r"\s+(?=\S)", text)), len(text)]
    at = draw.choice(gaps)
    return f"{text[:at].rstrip(' ')} {trigger} {text[at:]}".strip()
