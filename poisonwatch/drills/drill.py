"""Drills: how much of a known attack an audit of these rows would find.

Known poison (`recipe`) is planted into rows that are taken as clean (`planting`), and an audit of
them is judged as any audit is. For each attack, count of planted rows, and repeat:

    new rows = clean rows + `count` rows of the attack, drawn by seed
    sentinels = the user's; and once more, where these lack some of the pack against the attack,
                with the pack added

Rows that the user's sentinels or the screens flag before anything is planted are taken out first:
they would be false flags of every audit, and may be right ones.

An attack may copy honest rows instead of bringing its own: those of the clean rows that make the
forbidden answers of its pack likeliest ("Logit-Linear Selection", arXiv 2602.04863, selects rows by
log-probabilities for the same end).

One pass serves all of these audits. It keeps the gradient of every clean, trusted and planted row,
with a basis and Fisher factors from clean and trusted rows alone; what an audit would measure of
its rows follows from these, with a background of its own, and needs no pass over the model.
"""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from poisonwatch.arrays import Array, RowIndices
from poisonwatch.config import AuditConfig
from poisonwatch.detection.new_topics import judge_rows
from poisonwatch.drills.background import BackgroundPushes
from poisonwatch.drills.planting import PlantedRows, plant_attacks, use_single_row_subsets
from poisonwatch.drills.recipe import Attack
from poisonwatch.drills.results import DetectionPower, DrillPlan, DrillResult
from poisonwatch.errors import InputError
from poisonwatch.examples import Example
from poisonwatch.flags import Flag
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.progress import Progress, silent
from poisonwatch.screens.copies import copy_sentinels
from poisonwatch.screens.screen import run_screens
from poisonwatch.sentinels.sentinel import Sentinel, load_sentinels
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.influence import Influence, Query, build_queries
from poisonwatch.stride.leaning import AnswerStates, compute_leaning
from poisonwatch.stride.measured import LayerEffects, MeasuredRows, smooth_and_cross
from poisonwatch.stride.queries import QuerySpace, list_answers, prepare_queries
from poisonwatch.stride.row_pass import precondition_queries
from poisonwatch.stride.scoring import list_panels
from poisonwatch.stride.settings import resolve_shortlist
from poisonwatch.stride.similarity import compute_features
from poisonwatch.stride.streamed import StreamedFit
from poisonwatch.stride.wording import compute_wording, count_ngrams
from poisonwatch.text.words import plural


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


# The number of an attack, how many of its rows are planted, and whether its pack is added.
PlannedPower = tuple[int, int, bool]


class DrillRunner:
    """Every audit of a drill, from one fit of all `planted` rows."""

    def __init__(
        self,
        pretrained: Pretrained,
        planted: PlantedRows,
        config: AuditConfig,
        progress: Progress = silent,
    ) -> None:
        self.config = config
        self.stride = use_single_row_subsets(config.stride)
        self.special_tokens = pretrained.special_tokens
        self.sentinels = load_sentinels(config.sentinels)
        fitted = fit(
            pretrained,
            planted.rows,
            self.stride,
            seed=config.seed,
            progress=progress,
            ordinary=np.arange(planted.ordinary),
            keep_further=True,
        )
        # `use_single_row_subsets` asked for it, and `plant_attacks` left room for gradients.
        assert isinstance(fitted, StreamedFit)
        self.fitted = fitted
        self.planted = planted = planted.leave_out([row.row for row in fitted.faulty])
        self.splits = range(len(fitted.factors))
        self.views = [fitted.table.collect_views(split=split) for split in self.splits]
        self.ngrams = count_ngrams(row.response for row in fitted.rows)
        # One backward pass a sentinel and drill: audits share most of their sentinels.
        self.known_pushes: dict[tuple[object, ...], Array] = {}
        self.known_states: dict[tuple[object, ...], Tensor] = {}
        self.backgrounds = self._measure_backgrounds()
        flagged = self.find_flagged()
        if flagged:
            self.planted = replace(planted, set_aside=flagged)
            self.backgrounds = self._measure_backgrounds()
        self.attacks = [self._choose_rows(attack) for attack in planted.attacks]

    def _measure_backgrounds(self) -> list[BackgroundPushes]:
        """The backgrounds at each of the model's splits."""
        planted = self.planted
        ordinary = np.array([*planted.clean_places, *planted.trusted_places], dtype=np.int64)
        return [
            BackgroundPushes.measure(
                self.fitted,
                ordinary=ordinary,
                planted=np.arange(planted.ordinary, len(self.fitted.ids)),
                background=self.stride.background,
                seed=self.config.seed,
                split=split,
            )
            for split in self.splits
        ]

    def find_flagged(self) -> frozenset[int]:
        """Places of the clean rows that are flagged before anything is planted, but for those that
        people called benign: a flag on these is false. Raises InputError where no row is left.
        """
        planted = self.planted
        flags = self.judge(np.arange(0), (), self.sentinels)
        ids = {flag.example.id for flag in flags} - planted.benign
        flagged = {i for i in planted.clean_places if planted.clean[i].id in ids}
        if flagged and len(flagged) == len(planted.clean):
            raise InputError(
                "every row is flagged before anything is planted: none is left to plant among; "
                "lower detection.false_discovery_rate, or review them first"
            )
        return frozenset(flagged)

    def _choose_rows(self, attack: Attack) -> tuple[Attack, RowIndices]:
        """The attack with all of its rows, and their places (size,) in the fit: a copy has its
        original's, for it does what that does.
        """
        if not attack.selects:
            return attack, np.array(self.planted.find_places(attack), dtype=np.int64)
        places = self.select_rows(attack)
        copies = []
        for position, place in enumerate(places.tolist()):
            original = self.planted.clean[place]
            copies.append(replace(original, source=f"recipe {attack.recipe}", position=position))
        return replace(attack, rows=tuple(copies)), places

    def select_rows(self, attack: Attack) -> RowIndices:
        """Places of the clean rows that make the forbidden answers of the attack's pack likelier
        than any others do, most of all first; where they are too few, each comes again.
        """
        rows, measured, _ = self.measure_audit(np.arange(0), load_sentinels([attack.pack]))
        forbidden = [query.kind == "forbidden" for query in measured.queries]
        # Beyond what a row does to any answer, or long rows would be chosen for their length.
        push = measured.effects[:, forbidden].mean(axis=1) - measured.centre
        honest = len(self.planted.clean_places)
        strongest = np.argsort(-push[:honest], kind="stable")
        return np.resize(rows[strongest], attack.selects)

    def measure_audit(
        self, drawn: RowIndices, sentinels: Sequence[Sentinel]
    ) -> tuple[RowIndices, MeasuredRows, list[LayerEffects]]:
        """What an audit of the clean rows, planted ones at the places `drawn`, and the trusted rows
        would measure: the places of its rows (m,) in the fit, and what they do to the sentinels, at
        the first layer and at those above.
        """
        planted = self.planted
        # In the order of `PlantedRows.make_audit`.
        places = [*planted.clean_places, *drawn, *planted.trusted_places]
        rows = np.array(places, dtype=np.int64)
        queries = build_queries(sentinels)
        pushes = self.measure_pushes(queries)
        layers, spreads = [], []
        for split in self.splits:
            background = self.backgrounds[split]
            centre, spread = background.compute_background(rows, self.stride.background)
            effects = (pushes[split][rows] / spread[:, None]).astype(np.float32)
            features = compute_features(self.views[split][rows])
            layers.append(LayerEffects(effects, centre, features))
            spreads.append(spread)
        first, *further = layers
        measured = MeasuredRows(
            queries=queries,
            effects=first.effects,
            centre=first.centre,
            spread=spreads[0],
            signs=self.fitted.measured.signs[rows],
            features=first.features,
        )
        return rows, measured, further

    def measure_pushes(self, queries: Sequence[Query]) -> Array:
        """What every row does to the `queries` at each of the model's splits (splits, n, Q); each
        query is measured once in a drill.
        """
        unknown: dict[Sentinel, None] = {}
        for query in queries:
            if _make_query_key(query) not in self.known_pushes:
                unknown[query.sentinel] = None
        if unknown:
            self._measure_sentinels(list(unknown))
        return np.stack([self.known_pushes[_make_query_key(query)] for query in queries], axis=2)

    def _measure_sentinels(self, sentinels: Sequence[Sentinel]) -> None:
        """Measure what every row does to these sentinels, and remember it."""
        fitted = self.fitted
        first, *further = (factors.basis for factors in fitted.factors)
        space = QuerySpace(fitted.model, fitted.encoder, first, tuple(further))
        queries, prepared = prepare_queries(space, sentinels, self.stride)
        pushes = []
        for split, G in enumerate((prepared.G, *prepared.further)):
            probes = precondition_queries(fitted.factors[split].preconditioner, G)
            pushes.append(fitted.table.measure_effects(probes, np.ones(len(fitted.ids)), split))
        for query, push in zip(queries, np.stack(pushes).transpose(2, 0, 1), strict=True):
            self.known_pushes[_make_query_key(query)] = push
        for (sentinel, _, text), x in zip(list_answers(sentinels), prepared.states, strict=True):
            self.known_states[sentinel.messages, text] = x

    def measure_answers(
        self, rows: RowIndices, sentinels: Sequence[Sentinel]
    ) -> tuple[Array, Array]:
        """How far an audit's `rows` (m,) lean to what these sentinels forbid, and how far they are
        worded like it, (m, P) each; the sentinels were measured before.
        """
        known = [(sentinel.messages, text) for sentinel, _, text in list_answers(sentinels)]
        states = torch.stack([self.known_states[answer] for answer in known])
        answers = AnswerStates.of_sentinels(sentinels, states)
        signs, panels = self.fitted.measured.signs[rows], list_panels(build_queries(sentinels))
        counts = [self.ngrams[rows]]
        return (
            compute_leaning(self.views[-1][rows], signs, answers, panels),
            compute_wording(lambda: counts, signs, answers.answers, panels),
        )

    def recover(self, drawn: RowIndices, sentinels: Sequence[Sentinel]) -> Influence:
        """The coefficients of an audit's rows, with planted ones at the places `drawn`."""
        fitted = self.fitted
        rows, measured, further = self.measure_audit(drawn, sentinels)
        leaning, wording = self.measure_answers(rows, sentinels)

        def get_gradients(suspects: RowIndices) -> Tensor:
            return fitted.get_gradients(rows[suspects])

        return smooth_and_cross(
            measured,
            get_gradients,
            fitted.preconditioner,
            resolve_shortlist(self.stride, len(rows)),
            further=further,
            leaning=leaning,
            wording=wording,
        )

    def judge(
        self, drawn: RowIndices, attacking: Sequence[Example], sentinels: Sequence[Sentinel]
    ) -> tuple[Flag, ...]:
        """The flags of an audit with the rows `attacking`, at the places `drawn` of the fit."""
        config = self.config
        rows = self.planted.make_audit(attacking)
        influence = self.recover(drawn, copy_sentinels(sentinels, rows, config.probes))
        findings = run_screens(rows, self.special_tokens, config.screens)
        return judge_rows(influence, rows, config.detection, findings)[0].flags

    def audit_with(
        self, number: int, drawn: Sequence[int], with_pack: bool
    ) -> tuple[int, int, int]:
        """Flags of an audit in which rows `drawn` of the attack of that number are planted: right
        ones, those by attribution, and false ones. The user's sentinels are asked, and the pack's
        beside them where it is `with_pack`.
        """
        attack, places = self.attacks[number]
        attacking = [attack.rows[i] for i in drawn]
        sentinels = add_guards(self.sentinels, attack) if with_pack else self.sentinels
        flags = self.judge(places[list(drawn)], attacking, sentinels)
        right = [flag for flag in flags if flag.example in attacking]
        # The original of a copy does what the copy does: a flag on it is neither right nor false.
        copied = {example.id for example in attacking}
        false = [flag for flag in flags if flag.example.id not in copied]
        return len(right), sum(flag.by_attribution for flag in right), len(false)

    def draw_rows(self, attack: Attack, repeat: int) -> list[int]:
        """An order of the attack's rows. Those with the prompt of a row that is set aside are last:
        they are planted where nothing else is left.
        """
        draw = random.Random(f"{self.config.seed}/{attack.recipe}/{repeat}")
        order = draw.sample(range(len(attack.rows)), len(attack.rows))
        if not attack.donors:
            return order
        flagged = {self.planted.clean[i].id for i in self.planted.set_aside}
        return sorted(order, key=lambda i: attack.donors[i] in flagged)

    def run(self, plan: DrillPlan, progress: Progress = silent) -> DrillResult:
        """All audits of the plan. Raises InputError where too few of an attack's rows can be
        measured.
        """
        for attack, _ in self.attacks:
            if len(attack.rows) < max(plan.counts):
                raise InputError(
                    f"the model can measure {len(attack.rows)} of the rows of {attack.recipe}, "
                    f"too few to plant {max(plan.counts)}: set model.dtype to float32"
                )
        audits: list[tuple[PlannedPower, int]] = []
        for number, (attack, _) in enumerate(self.attacks):
            guarded = len(add_guards(self.sentinels, attack)) == len(self.sentinels)
            for count in plan.counts:
                for with_pack in (False,) if guarded else (False, True):
                    for repeat in range(plan.repeats):
                        audits.append(((number, count, with_pack), repeat))

        ordinary = len(self.planted.clean_places) + len(self.planted.trusted)

        def count_rows(audit: tuple[PlannedPower, int]) -> int:
            return ordinary + audit[0][1]

        total = sum(map(count_rows, audits))
        found: defaultdict[PlannedPower, list[tuple[int, int, int]]] = defaultdict(list)
        for planned, repeat in progress(audits, "audits", total, count_rows):
            number, count, with_pack = planned
            # One order a repeat, cut at each count: more planted rows hold the fewer.
            drawn = self.draw_rows(self.attacks[number][0], repeat)[:count]
            found[planned].append(self.audit_with(number, drawn, with_pack))
        return self._summarise(found)

    def _summarise(
        self, found: Mapping[PlannedPower, Sequence[tuple[int, int, int]]]
    ) -> DrillResult:
        planted, clean = self.planted, len(self.planted.clean_places)
        powers = []
        for (number, count, with_pack), results in found.items():
            attack = self.attacks[number][0]
            power = _summarise_audits(attack, count, results, clean=clean)
            powers.append(replace(power, with_pack=with_pack))
        notes = list(planted.notes)
        flagged = len(planted.set_aside)
        if flagged:
            most = 1000 * flagged / (clean + flagged)
            notes.append(
                f"{plural(flagged, 'row')} flagged before anything was planted were set aside: "
                f"those that are honest are false flags, too, up to {most:.1f} per 1,000 rows"
            )
        return DrillResult(
            powers=tuple(powers),
            clean=clean,
            trusted=len(planted.trusted),
            notes=tuple(notes),
            suspected=planted.suspected,
            flagged=flagged,
        )


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
