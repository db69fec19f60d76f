"""Drills: how much of a known attack an audit of these rows would find.

Known poison (`recipes`) is planted into rows that are taken as clean, and an audit of them is
judged as any audit is. For each attack, count of planted rows, and repeat:

    new rows = clean rows + `count` rows of the attack, drawn by seed;  sentinels = the user's +
    those of the pack against the attack

One fit serves all of these audits. It holds every clean, trusted and planted row as a subset of its
own, with a basis and Fisher factors from clean and trusted rows alone; an audit's operators are
those of its rows (`Fitted.restricted`), rescaled by the yardstick of these rows among themselves.
Measured are first-order effects, which need no pass over the model either.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from poisonwatch.arrays import Array, RowIndices
from poisonwatch.config import AuditConfig, StrideConfig
from poisonwatch.detection.detect import flag_rows
from poisonwatch.drills.recipe import Attack, carry_out, read_recipe
from poisonwatch.drills.results import DetectionPower, DrillPlan, DrillResult
from poisonwatch.errors import ConfigError
from poisonwatch.examples import AuditRows, Example
from poisonwatch.model.frozen import find_decoder_blocks
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.progress import Progress, silent
from poisonwatch.screens.screen import run_screens
from poisonwatch.screens.triggers import make_probes, mine_triggers
from poisonwatch.sentinels.sentinel import Sentinel, load_sentinels
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.background import compute_centre_and_spread
from poisonwatch.stride.fitted import Fitted
from poisonwatch.stride.influence import Query, build_queries
from poisonwatch.stride.measurement import measure_first_order
from poisonwatch.stride.operators import unit_norm
from poisonwatch.stride.queries import PreparedQueries, prepare_queries
from poisonwatch.stride.recover import recover_in_rounds
from poisonwatch.stride.sampling import draw_order
from poisonwatch.stride.settings import resolve_settings


@dataclass(frozen=True, slots=True)
class PlantedRows:
    """Rows by role: `clean` and `trusted` ones, and those of the `attacks`. `notes` say what was
    left out.
    """

    clean: tuple[Example, ...]
    trusted: tuple[Example, ...]
    attacks: tuple[Attack, ...]
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> list[Example]:
        """Clean, trusted, and the rows of the attacks in turn."""
        return [
            *self.clean,
            *self.trusted,
            *(row for attack in self.attacks for row in attack.rows),
        ]


def plant_and_audit(
    pretrained: Pretrained,
    clean: Sequence[Example],
    trusted: Sequence[Example],
    config: AuditConfig,
    plan: DrillPlan,
    progress: Progress = silent,
) -> DrillResult:
    """Plant, fit once, audit many times. Raises what `plant` does."""
    return DrillRunner(
        pretrained, plant_attacks(pretrained, clean, trusted, config, plan), config, progress
    ).run(plan, progress)


def plant_attacks(
    pretrained: Pretrained,
    clean: Sequence[Example],
    trusted: Sequence[Example],
    config: AuditConfig,
    plan: DrillPlan,
) -> PlantedRows:
    """Carry out the plan's attacks; draw as many clean and trusted rows, in proportion, as the
    memory budget holds operators.

    Raises ConfigError where operators are to be trained, or the budget is too small, InputError
    where an attack cannot be carried out.
    """
    if config.stride.fit == "sgd":
        raise ConfigError(
            "stride.fit is sgd, but a drill takes subsets of one closed-form fit: choose natural-gradient for it"
        )
    notes = []
    if (
        config.stride.K is not None
        or config.stride.d is not None
        or config.stride.measurement == "forward"
    ):
        notes.append(
            "every row was measured alone and to first order; stride.K, stride.d and stride.measurement were set aside"
        )
    attacks = tuple(carry_out(read_recipe(name), clean, config.seed) for name in plan.recipes)
    width = int(pretrained.model.config.get_text_config().hidden_size)
    most = resolve_settings(
        use_single_row_subsets(config.stride), len(find_decoder_blocks(pretrained.model)), width, 1
    ).K_most
    room = (
        most // 2 - sum(len(attack.rows) for attack in attacks) - 2
    )  # beside the fit of all rows there is that of one audit
    if room < 2:
        raise ConfigError(
            f"stride.memory_gb is {config.stride.memory_gb:g}, too little for a drill of {len(attacks)} recipes: raise it"
        )
    share = min(1.0, room / (len(clean) + len(trusted)))

    def drawn(rows: Sequence[Example]) -> tuple[Example, ...]:
        order = draw_order([row.id for row in rows], config.seed)[: math.ceil(share * len(rows))]
        return tuple(rows[i] for i in sorted(order.tolist()))

    kept = PlantedRows(drawn(clean), drawn(trusted), attacks)
    if share < 1:
        notes.append(
            f"{len(kept.clean)} of {len(clean)} clean and {len(kept.trusted)} of {len(trusted)} trusted rows were drawn: "
            f"stride.memory_gb ({config.stride.memory_gb:g}) holds no more"
        )
    return replace(kept, notes=tuple(notes))


def use_single_row_subsets(stride: StrideConfig) -> StrideConfig:
    """The settings with a subset for every row, measured to first order."""
    return stride.model_copy(update={"K": None, "d": None, "measurement": "first-order"})


class DrillRunner:
    """Every audit of a drill, from one fit of all `planted` rows."""

    def __init__(
        self,
        pretrained: Pretrained,
        planted: PlantedRows,
        config: AuditConfig,
        progress: Progress = silent,
    ) -> None:
        self.planted, self.config, self.stride = (
            planted,
            config,
            use_single_row_subsets(config.stride),
        )
        self.special = [str(token) for token in pretrained.tokenizer.all_special_tokens]
        self.sentinels = load_sentinels(config.sentinels)
        rows = planted.rows
        self.ordinary = np.arange(len(planted.clean) + len(planted.trusted))
        self.fitted = fit(
            pretrained, rows, self.stride, config.seed, progress, ordinary=self.ordinary
        )
        self.order = draw_order(self.fitted.ids, config.seed)
        # An audit has all ordinary rows, so that those in its sample are among the first of these.
        first = self.order[np.isin(self.order, self.ordinary)][: self.stride.background]
        probes = np.concatenate([first, np.arange(len(self.ordinary), len(rows))])
        self.column = np.full(len(rows), -1)
        self.column[probes] = np.arange(len(probes))
        self.pushes = compute_pushes(self.fitted, probes)
        self.known: dict[tuple[object, ...], torch.Tensor] = {}

    def restricted(self, drawn: RowIndices) -> Fitted:
        """What the fit of the clean rows, planted ones at the places `drawn`, and the trusted rows
        would be, with their own yardstick.
        """
        clean, trusted = np.split(self.ordinary, [len(self.planted.clean)])
        rows = np.concatenate([clean, drawn, trusted])
        sample = self.order[np.isin(self.order, rows)][: self.stride.background]
        others = (
            (rows[:, None] != sample) if len(sample) > 1 else np.ones((len(rows), 1), dtype=bool)
        )
        pushes = self.pushes[np.ix_(rows, self.column[sample])]
        centre, spread = compute_centre_and_spread(
            torch.from_numpy(pushes), torch.from_numpy(others)
        )
        return self.fitted.restricted(
            rows, self.stride, ((centre / spread).numpy(), spread.numpy())
        )

    def asked(self, sentinels: Sequence[Sentinel]) -> tuple[tuple[Query, ...], PreparedQueries]:
        """The sentinels' queries, each differentiated once in a drill."""

        def key(query: Query) -> tuple[object, ...]:
            sentinel = query.sentinel
            return sentinel.messages, sentinel.forbidden, sentinel.reference, query.kind

        queries = build_queries(sentinels)
        new = list(
            dict.fromkeys(query.sentinel for query in queries if key(query) not in self.known)
        )
        if new:
            found, asked = prepare_queries(self.fitted, new, self.stride)
            self.known |= dict(zip(map(key, found), asked.G, strict=True))
        return queries, PreparedQueries(
            (),
            np.zeros((0, len(queries))),
            torch.stack([self.known[key(query)] for query in queries]),
        )

    def audit(self, attack: Attack, drawn: Sequence[int]) -> tuple[int, int, int]:
        """Flags of an audit in which rows `drawn` of the attack are planted: right ones, those by
        attribution, and false ones.
        """
        planted, config = self.planted, self.config
        others = planted.attacks[: planted.attacks.index(attack)]
        first = len(self.ordinary) + sum(len(other.rows) for other in others)
        fitted = self.restricted(first + np.array(drawn, dtype=np.int64))
        attacking = [attack.rows[i] for i in drawn]
        rows = AuditRows((*planted.clean, *attacking), planted.trusted)
        sentinels = add_guards(self.sentinels, attack)
        sentinels += make_probes(sentinels, mine_triggers(rows, config.probes, sentinels))
        influence, _ = recover_in_rounds(
            fitted, *self.asked(sentinels), fitted.restore_gradients, self.stride
        )
        findings = run_screens(rows, self.special, config.screens)
        flags = flag_rows(influence, rows, config.detection, findings).flags
        right = [flag for flag in flags if flag.example in attacking]
        return len(right), sum(flag.by_attribution for flag in right), len(flags) - len(right)

    def run(self, plan: DrillPlan, progress: Progress = silent) -> DrillResult:
        """All audits of the plan."""
        audits = [
            (attack, count, repeat)
            for attack in self.planted.attacks
            for count in plan.counts
            for repeat in range(plan.repeats)
        ]
        n = len(self.planted.clean) + len(self.planted.trusted)
        found: dict[tuple[str, int], list[tuple[int, int, int]]] = {}
        for attack, count, repeat in progress(
            audits, "audits", sum(n + count for _, count, _ in audits), lambda audit: n + audit[1]
        ):
            drawn = random.Random(f"{self.config.seed}/{attack.recipe}/{repeat}").sample(
                range(len(attack.rows)), len(attack.rows)
            )
            found.setdefault((attack.recipe, count), []).append(self.audit(attack, drawn[:count]))
        packs = {attack.recipe: attack.pack for attack in self.planted.attacks}
        clean = len(self.planted.clean)
        powers = []
        for (recipe, count), results in found.items():
            right, attributed, false = np.array(results).T
            powers.append(
                DetectionPower(
                    recipe=recipe,
                    pack=packs[recipe],
                    count=count,
                    repeats=plan.repeats,
                    found=int((right > 0).sum()),
                    recall=float(right.mean() / count),
                    recall_by_attribution=float(attributed.mean() / count),
                    false_flags=1000 * float(false.mean()) / clean,
                )
            )
        return DrillResult(tuple(powers), clean, len(self.planted.trusted), self.planted.notes)


def add_guards(sentinels: Sequence[Sentinel], attack: Attack) -> list[Sentinel]:
    """The sentinels with those of the pack against the attack that are not among them."""
    known = {sentinel.id for sentinel in sentinels}
    return [
        *sentinels,
        *(sentinel for sentinel in load_sentinels([attack.pack]) if sentinel.id not in known),
    ]


def compute_pushes(fitted: Fitted, probes: RowIndices) -> Array:
    """(n, b): what each row does to each of the rows `probes` (b,), as a `Yardstick` measures it; 0
    for a row that moves nothing.
    """
    y = measure_first_order(fitted.operators, unit_norm(fitted.restore_gradients(probes)))[
        fitted.subset_alone
    ]
    pushes: Array = (
        y * np.where(np.isfinite(fitted.spread), fitted.spread, 0.0)[:, None] / fitted.operators.eta
    )
    return pushes
