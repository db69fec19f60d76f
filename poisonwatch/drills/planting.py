"""The rows of a drill: clean and trusted ones of the user's, and those of known attacks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from poisonwatch.config import AuditConfig, StrideConfig
from poisonwatch.drills.recipe import Attack, carry_out, read_recipe
from poisonwatch.drills.results import DrillPlan
from poisonwatch.errors import ConfigError, InputError
from poisonwatch.examples import AuditRows, Example
from poisonwatch.model.architecture import find_decoder_blocks
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.stride.sampling import draw_order
from poisonwatch.stride.settings import count_kept_gradients, resolve_settings
from poisonwatch.text.words import plural


@dataclass(frozen=True, slots=True)
class PastVerdicts:
    """Example ids that the ledger holds as `suspected` (flagged, or called poison by people), and
    those that people called `benign`.
    """

    suspected: frozenset[str] = frozenset()
    benign: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PlantedRows:
    """Rows by role: `clean` and `trusted` ones, and those of the `attacks`. `notes` say what was
    left out.

    `set_aside` are the places of clean rows that are in no audit after all, for they are flagged as
    they stand. `suspected` is how many were left out before, by the ledger, and `benign` are the
    ids that people called so.
    """

    clean: tuple[Example, ...]
    trusted: tuple[Example, ...]
    attacks: tuple[Attack, ...]
    notes: tuple[str, ...] = ()
    set_aside: frozenset[int] = frozenset()
    suspected: int = 0
    benign: frozenset[str] = frozenset()

    @property
    def rows(self) -> list[Example]:
        """Clean, trusted, and the rows of the attacks in turn: the order of a drill's fit."""
        rows = [*self.clean, *self.trusted]
        for attack in self.attacks:
            rows += attack.rows
        return rows

    @property
    def clean_places(self) -> list[int]:
        """Where the clean rows of every audit stand in `rows`."""
        return [i for i in range(len(self.clean)) if i not in self.set_aside]

    @property
    def trusted_places(self) -> range:
        """Where the trusted rows stand in `rows`."""
        return range(len(self.clean), self.ordinary)

    @property
    def ordinary(self) -> int:
        """How many rows are not planted: they come first in `rows`."""
        return len(self.clean) + len(self.trusted)

    def find_places(self, attack: Attack) -> range:
        """Where the attack's rows stand in `rows`."""
        first = self.ordinary
        for other in self.attacks[: self.attacks.index(attack)]:
            first += len(other.rows)
        return range(first, first + len(attack.rows))

    def leave_out(self, faulty: Sequence[int]) -> "PlantedRows":
        """The same without the rows at some places of `rows`, which cannot be measured."""
        if not faulty:
            return self
        left_out = set(faulty)
        attacks = []
        for attack in self.attacks:
            first = self.find_places(attack).start
            kept = [i for i in range(len(attack.rows)) if first + i not in left_out]
            donors = tuple(attack.donors[i] for i in kept if attack.donors)
            rows = tuple(attack.rows[i] for i in kept)
            attacks.append(replace(attack, rows=rows, donors=donors))
        note = f"{plural(len(left_out), 'row')} that the model cannot measure were left out"
        return replace(
            self,
            clean=tuple(row for i, row in enumerate(self.clean) if i not in left_out),
            trusted=tuple(
                row
                for i, row in zip(self.trusted_places, self.trusted, strict=True)
                if i not in left_out
            ),
            attacks=tuple(attacks),
            notes=(*self.notes, note),
        )

    def make_audit(self, planted: Sequence[Example]) -> AuditRows:
        """The rows of one audit: clean ones and the `planted` are new."""
        clean = [self.clean[i] for i in self.clean_places]
        return AuditRows((*clean, *planted), self.trusted)


def plant_attacks(
    pretrained: Pretrained,
    clean: Sequence[Example],
    trusted: Sequence[Example],
    config: AuditConfig,
    plan: DrillPlan,
    past: PastVerdicts = PastVerdicts(),
) -> PlantedRows:
    """Carry out the plan's attacks; draw as many clean and trusted rows, in proportion, as the
    memory budget holds gradients. Rows that are suspected are not taken as clean.

    Raises ConfigError where operators are to be trained, or the budget is too small, InputError
    where an attack cannot be carried out, or no row is left.
    """
    stride = config.stride
    if stride.fit == "sgd":
        raise ConfigError(
            "stride.fit is sgd, but a drill takes subsets of one closed-form fit: "
            "choose natural-gradient for it"
        )
    notes = []
    if stride.K is not None or stride.d is not None or stride.measurement == "forward":
        notes.append(
            "every row was measured alone and to first order; stride.K, stride.d and "
            "stride.measurement were set aside"
        )
    # Before prompts are copied: poison that is there already must not be a part of the attack.
    honest = [row for row in clean if row.id not in past.suspected]
    suspected = len(clean) - len(honest)
    if suspected:
        notes.append(
            f"{plural(suspected, 'row')} that the ledger holds as flagged or as poison "
            "were not taken as clean"
        )
    if suspected and not honest:
        raise InputError(
            "the ledger holds every row as flagged or as poison: none is left to plant among; "
            "review them first (`poisonwatch decide`)"
        )
    clean = honest
    attacks = tuple(carry_out(read_recipe(name), clean, config.seed) for name in plan.recipes)
    attacking = [row.id for row in PlantedRows((), (), attacks).rows]
    # A trusted row that is an attack's would be new and trusted at once in its audits.
    trusted = [row for row in trusted if row.id not in attacking]

    # Every attack is held whole: its rows are what a drill is about.
    room = _count_room(pretrained, stride) - len(attacking)
    if room < 2:
        raise ConfigError(
            f"stride.memory_gb is {stride.memory_gb:g}, too little for a drill of "
            f"{len(attacks)} recipes: raise it"
        )
    share = min(1.0, room / (len(clean) + len(trusted)))
    planted = PlantedRows(
        clean=_draw_share(clean, share, config.seed),
        trusted=_draw_share(trusted, share, config.seed),
        attacks=attacks,
        suspected=suspected,
        benign=past.benign,
    )
    if share < 1:
        notes.append(
            f"{len(planted.clean)} of {len(clean)} clean and {len(planted.trusted)} of "
            f"{len(trusted)} trusted rows were drawn: stride.memory_gb ({stride.memory_gb:g}) "
            "holds no more"
        )
    return replace(planted, notes=tuple(notes))


def use_single_row_subsets(stride: StrideConfig) -> StrideConfig:
    """The settings with a subset for every row, measured to first order."""
    alone = {"K": None, "d": None, "measurement": "first-order", "recovery": "kriging"}
    return stride.model_copy(update=alone)


def _count_room(pretrained: Pretrained, stride: StrideConfig) -> int:
    """How many rows a drill may hold the gradients of, at each layer that audits measure; less two,
    for a share of clean and one of trusted rows are each rounded up.
    """
    width = int(pretrained.model.config.get_text_config().hidden_size)
    depth = len(find_decoder_blocks(pretrained.model))
    layers = 1 + len(resolve_settings(use_single_row_subsets(stride), depth, width, 1).further)
    return count_kept_gradients(stride, min(stride.r, width), width) // layers - 2


def _draw_share(rows: Sequence[Example], share: float, seed: int) -> tuple[Example, ...]:
    """A share of the rows, drawn by ids and seed, in their order."""
    order = draw_order([row.id for row in rows], seed)[: math.ceil(share * len(rows))]
    return tuple(rows[i] for i in sorted(order.tolist()))
