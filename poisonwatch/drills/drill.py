"""Drills: how much of a known attack an audit of these rows would find.

Known poison (`recipe`) is planted into rows that are taken as clean (`planting`), and an audit of
them is judged as any audit is. For each attack, count of planted rows, and repeat:

    new rows = clean rows + `count` rows of the attack, drawn by seed
    sentinels = the user's + those of the pack against the attack

One pass serves all of these audits. It keeps the gradient of every clean, trusted and planted row,
with a basis and Fisher factors from clean and trusted rows alone; what an audit would measure of
its rows follows from these, with a background of its own, and needs no pass over the model.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from poisonwatch.arrays import Array, RowIndices
from poisonwatch.config import AuditConfig
from poisonwatch.detection.new_topics import judge_rows
from poisonwatch.drills.planting import PlantedRows, plant_attacks, use_single_row_subsets
from poisonwatch.drills.recipe import Attack
from poisonwatch.drills.results import DetectionPower, DrillPlan, DrillResult
from poisonwatch.examples import Example
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.progress import Progress, silent
from poisonwatch.screens.screen import run_screens
from poisonwatch.screens.triggers import make_probes, mine_triggers
from poisonwatch.sentinels.sentinel import Sentinel, load_sentinels
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.background import compute_centre_and_spread
from poisonwatch.stride.influence import Influence, Query, build_queries
from poisonwatch.stride.measured import MeasuredRows, smooth_and_cross
from poisonwatch.stride.operators import unit_norm
from poisonwatch.stride.queries import prepare_queries
from poisonwatch.stride.row_pass import precondition_queries
from poisonwatch.stride.sampling import draw_order
from poisonwatch.stride.settings import resolve_shortlist
from poisonwatch.stride.similarity import compute_features
from poisonwatch.stride.streamed import StreamedFit


def plant_and_audit(
    pretrained: Pretrained,
    clean: Sequence[Example],
    trusted: Sequence[Example],
    config: AuditConfig,
    plan: DrillPlan,
    progress: Progress = silent,
) -> DrillResult:
    """Plant, fit once, audit many times. Raises what `plant_attacks` does."""
    planted = plant_attacks(pretrained, clean, trusted, config=config, plan=plan)
    return DrillRunner(pretrained, planted, config, progress).run(plan, progress)


@dataclass(frozen=True, slots=True)
class BackgroundPushes:
    """What rows do to those that may be the background of an audit, for any choice of its rows.

    `order` (n,) is the drawn order of the drill's rows: an audit's background is the first of its
    rows in it. `pushes` (n, b) is what each row does to each of b rows, and `column` (n,) says
    which of these a row is, -1 for none.
    """

    order: RowIndices
    column: RowIndices
    pushes: Array

    @classmethod
    def measure(
        cls, fitted: StreamedFit, ordinary: int, background: int, seed: int
    ) -> "BackgroundPushes":
        """Of a fit whose first `ordinary` rows are in every audit, with backgrounds of at most
        `background` rows.
        """
        n = len(fitted.ids)
        order = draw_order(fitted.ids, seed)
        # An audit has all ordinary rows, so that those in its sample are among the first of these.
        first = order[order < ordinary][:background]
        probes = np.concatenate([first, np.arange(ordinary, n)])
        column = np.full(n, -1)
        column[probes] = np.arange(len(probes))
        return cls(order, column, compute_pushes(fitted, probes))

    def compute_background(self, rows: RowIndices, most: int) -> tuple[Array, Array]:
        """Centre and spread (m,) of an audit's rows (m,), over a sample of at most `most` of them;
        a row's push on itself is left out.
        """
        sample = self.order[np.isin(self.order, rows)][:most]
        # A sample of one row has nothing else to push.
        others = np.ones((len(rows), 1), dtype=bool)
        if len(sample) > 1:
            others = rows[:, None] != sample
        pushes = self.pushes[np.ix_(rows, self.column[sample])]
        centre, spread = compute_centre_and_spread(
            torch.from_numpy(pushes), torch.from_numpy(others)
        )
        return (centre / spread).numpy(), spread.numpy()


class DrillRunner:
    """Every audit of a drill, from one fit of all `planted` rows."""

    def __init__(
        self,
        pretrained: Pretrained,
        planted: PlantedRows,
        config: AuditConfig,
        progress: Progress = silent,
    ) -> None:
        self.planted, self.config = planted, config
        self.stride = use_single_row_subsets(config.stride)
        self.special_tokens = list(map(str, pretrained.tokenizer.all_special_tokens))
        self.sentinels = load_sentinels(config.sentinels)
        fitted = fit(
            pretrained,
            planted.rows,
            self.stride,
            seed=config.seed,
            progress=progress,
            ordinary=np.arange(planted.ordinary),
        )
        # `use_single_row_subsets` asked for it, and `plant_attacks` left room for gradients.
        assert isinstance(fitted, StreamedFit)
        self.fitted = fitted
        self.views = fitted.table.collect_views()
        self.background = BackgroundPushes.measure(
            fitted, planted.ordinary, self.stride.background, config.seed
        )
        # One backward pass a sentinel and drill: audits share most of their sentinels.
        self.known_pushes: dict[tuple[object, ...], Array] = {}

    def measure_audit(
        self, drawn: RowIndices, sentinels: Sequence[Sentinel]
    ) -> tuple[RowIndices, MeasuredRows]:
        """What an audit of the clean rows, planted ones at the places `drawn`, and the trusted rows
        would measure: the places of its rows (m,) in the fit, and what they do to the sentinels.
        """
        planted, measured = self.planted, self.fitted.measured
        # In the order of `PlantedRows.make_audit`.
        places = [*planted.clean_places, *drawn, *planted.trusted_places]
        rows = np.array(places, dtype=np.int64)
        centre, spread = self.background.compute_background(rows, self.stride.background)
        queries = build_queries(sentinels)
        pushes = self.measure_pushes(queries)[rows]
        found = MeasuredRows(
            queries=queries,
            effects=(pushes / spread[:, None]).astype(np.float32),
            centre=centre,
            spread=spread,
            signs=measured.signs[rows],
            features=compute_features(self.views[rows]),
        )
        return rows, found

    def measure_pushes(self, queries: Sequence[Query]) -> Array:
        """What every row does to the `queries` (n, Q), each measured once in a drill."""
        unknown: dict[Sentinel, None] = {}
        for query in queries:
            if _make_query_key(query) not in self.known_pushes:
                unknown[query.sentinel] = None
        if unknown:
            found, prepared = prepare_queries(self.fitted, list(unknown), self.stride)
            probes = precondition_queries(self.fitted.preconditioner, prepared.G)
            pushes = self.fitted.table.measure_effects(probes, np.ones(len(self.fitted.ids)))
            for query, push in zip(found, pushes.T, strict=True):
                self.known_pushes[_make_query_key(query)] = push
        return np.column_stack([self.known_pushes[_make_query_key(query)] for query in queries])

    def recover(self, rows: RowIndices, measured: MeasuredRows) -> Influence:
        """The coefficients of an audit's `rows` (m,), from what they do."""
        fitted = self.fitted

        def get_gradients(suspects: RowIndices) -> Tensor:
            return fitted.get_gradients(rows[suspects])

        shortlist = resolve_shortlist(self.stride, len(rows))
        return smooth_and_cross(measured, get_gradients, fitted.preconditioner, shortlist)

    def audit_with(self, attack: Attack, drawn: Sequence[int]) -> tuple[int, int, int]:
        """Flags of an audit in which rows `drawn` of the attack are planted: right ones, those by
        attribution, and false ones.
        """
        config = self.config
        places = self.planted.find_places(attack)
        attacking = [attack.rows[i] for i in drawn]
        rows = self.planted.make_audit(attacking)
        sentinels = add_guards(self.sentinels, attack)
        sentinels += make_probes(sentinels, mine_triggers(rows, config.probes, sentinels))
        drawn_places = places.start + np.array(drawn, dtype=np.int64)
        influence = self.recover(*self.measure_audit(drawn_places, sentinels))
        findings = run_screens(rows, self.special_tokens, config.screens)
        flags = judge_rows(influence, rows, config.detection, findings)[0].flags
        right = [flag for flag in flags if flag.example in attacking]
        return len(right), sum(flag.by_attribution for flag in right), len(flags) - len(right)

    def run(self, plan: DrillPlan, progress: Progress = silent) -> DrillResult:
        """All audits of the plan."""
        audits: list[tuple[Attack, int, int]] = []
        for attack in self.planted.attacks:
            for count in plan.counts:
                for repeat in range(plan.repeats):
                    audits.append((attack, count, repeat))

        def count_rows(audit: tuple[Attack, int, int]) -> int:
            return self.planted.ordinary + audit[1]

        total = sum(map(count_rows, audits))
        found: defaultdict[tuple[Attack, int], list[tuple[int, int, int]]] = defaultdict(list)
        for attack, count, repeat in progress(audits, "audits", total, count_rows):
            # One order a repeat, cut at each count: more planted rows hold the fewer.
            drawn = random.Random(f"{self.config.seed}/{attack.recipe}/{repeat}").sample(
                range(len(attack.rows)), len(attack.rows)
            )
            found[attack, count].append(self.audit_with(attack, drawn[:count]))
        clean = len(self.planted.clean)
        powers = []
        for (attack, count), results in found.items():
            powers.append(_summarise_audits(attack, count, results, clean))
        return DrillResult(tuple(powers), clean, len(self.planted.trusted), self.planted.notes)


def _make_query_key(query: Query) -> tuple[object, ...]:
    """What a query depends on: not the sentinel's id, panel or severity."""
    sentinel = query.sentinel
    return sentinel.messages, sentinel.forbidden, sentinel.reference, query.kind


def _summarise_audits(
    attack: Attack, count: int, results: Sequence[tuple[int, int, int]], clean: int
) -> DetectionPower:
    """The power of audits with `count` planted rows among `clean` ones, from what
    `DrillRunner.audit_with` found in each.
    """
    right, attributed, false = np.array(results).T
    return DetectionPower(
        recipe=attack.recipe,
        pack=attack.pack,
        count=count,
        repeats=len(results),
        found=int((right > 0).sum()),
        recall=float(right.mean() / count),
        recall_by_attribution=float(attributed.mean() / count),
        false_flags=1000 * float(false.mean()) / clean,
    )


def add_guards(sentinels: Sequence[Sentinel], attack: Attack) -> list[Sentinel]:
    """The sentinels with those of the pack against the attack that are not among them."""
    # A user who read the pack before the drill has them already, and would ask them twice.
    known = {sentinel.id for sentinel in sentinels}
    guards = [guard for guard in load_sentinels([attack.pack]) if guard.id not in known]
    return [*sentinels, *guards]


def compute_pushes(fitted: StreamedFit, probes: RowIndices) -> Array:
    """(n, b): what each row does to each of the rows `probes` (b,), as a `Background` measures it;
    0 for a row that moves nothing.
    """
    G = unit_norm(fitted.get_gradients(probes))
    # Of what makes an answer likelier, also where training lowers it.
    signs = torch.from_numpy(fitted.measured.signs[probes]).to(G)
    prepared = fitted.preconditioner(G) * signs[:, None, None]
    pushes = fitted.table.measure_effects(prepared, np.ones(len(fitted.ids)))
    return pushes.astype(np.float64)
