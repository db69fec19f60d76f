"""Sentinels asked while a model is trained, by any trainer of transformers or TRL:

from poisonwatch.callback import PoisonwatchCallback

watch = PoisonwatchCallback("audit.yaml", manifest="cleared/manifest.json", every=200)
trainer = SFTTrainer(..., callbacks=[watch])
trainer.train()
watch.moved    # sentinels beyond what honest tuning does to an answer
watch.moved_panels    # and panels, as a whole
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.errors import InputError
from poisonwatch.gate import require_cleared
from poisonwatch.integrations.mlflow.training import TrainingCurves
from poisonwatch.model.encoding import ChatEncoder
from poisonwatch.model.files import find_model_files
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.probing.checkpoint import (
    name_checkpoint,
    refuse_other_family,
    refuse_other_tokens,
    require_tokenizer,
)
from poisonwatch.probing.losses import compute_answer_losses
from poisonwatch.probing.movements import Movement, find_movements, list_moved
from poisonwatch.probing.panels import (
    PanelMovement,
    find_panel_movements,
    list_moved_panels,
)
from poisonwatch.probing.probe import ask_losses
from poisonwatch.probing.questions import (
    AnswerLosses,
    EncodedQuestions,
    Questions,
    encode_questions,
    gather_questions,
)
from poisonwatch.probing.rows import read_rows, select_ordinary
from poisonwatch.rendering.chat_template import TemplateSettings
from poisonwatch.run_directory.layout import make_audit_id
from poisonwatch.sentinels.sentinel import load_sentinels
from poisonwatch.text.display import make_visible, to_plain_name

PREFIX = "poisonwatch"  # of what is logged
logger = logging.getLogger(__name__)


class PoisonwatchCallback(TrainerCallback):
    """Checks the rows before the first step, and asks the sentinels every so many steps.

    `movements` has every sentinel as it was last asked, `moved` those beyond their band
    (`probing.band`), `panels` and `moved_panels` the same of panels (`probing.panels`), `curves`
    what was logged, a dictionary each time.
    """

    def __init__(
        self,
        audit: str | Path,
        *,
        manifest: str | Path | None = None,
        every: int = 200,
        stop: Literal["moves"] | None = "moves",
        trusted_checkpoint: str | Path | None = None,
    ) -> None:
        """Of an `audit` file: asked are its sentinels, with copies that hold triggers of the rows,
        and `every` so many steps how far they moved from where training began. `stop` "moves" ends
        the training where one is beyond its band, or a panel moved as a whole.

        With a `manifest` nothing is trained before the gate has cleared its release. Changes are
        counted from a `trusted_checkpoint` where there is one: a model or adapter that was tuned on
        trusted rows alone, by the same recipe (default: `probe.trusted` of the audit file). Raises
        InputError where `every` is no number of steps.
        """
        if every < 1:
            raise InputError(f"every is {every}: ask the sentinels every 1 step or more")
        self.audit, self.every, self.stop = Path(audit), every, stop
        self.manifest = None if manifest is None else Path(manifest)
        self.trusted_checkpoint = None if trusted_checkpoint is None else str(trusted_checkpoint)
        self.movements: list[Movement] = []
        self.panels: list[PanelMovement] = []
        self.curves: list[dict[str, float]] = []
        self._questions: EncodedQuestions | None = None
        self._before: AnswerLosses | None = None
        self._trusted: AnswerLosses | None = None
        self._tracked: TrainingCurves | None = None
        self._budget = 0  # tokens at a time
        self._asked_at = 0  # step

    @property
    def moved(self) -> list[Movement]:
        """Sentinels beyond their band when they were last asked, furthest first."""
        return list_moved(self.movements)

    @property
    def moved_panels(self) -> list[PanelMovement]:
        """Panels that had moved as a whole when they were last asked, furthest first."""
        return list_moved_panels(self.panels)

    def on_train_begin(
        self,
        args: TrainingArguments,  # noqa: ARG002  (as transformers calls it)
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        model: PreTrainedModel | None = None,
        processing_class: Any = None,
        **_: Any,
    ) -> None:
        """Check the rows, and ask the model as it is. Raises NotClearedError where a row of the
        release is not cleared, InputError where there is nothing to ask by, and ModelError where
        the trusted checkpoint cannot be compared with the audit's model.
        """
        if self.manifest is not None:
            require_cleared([self.manifest], self.audit)
        config = load_config(self.audit)
        questions = _gather_questions(config, self.manifest)
        self._questions = _encode(config, questions, processing_class)
        named = self.trusted_checkpoint or config.probe.trusted
        if named is not None:
            self._trusted = _ask_trusted(config, named, questions, self._questions)
        self._budget = 2 * config.stride.max_tokens
        self._asked_at = state.global_step
        self._before = self._ask(model)
        if state.is_world_process_zero:
            self._tracked = TrainingCurves.open(config, f"training-{make_audit_id()}")

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002  (as transformers calls it)
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel | None = None,
        **_: Any,
    ) -> TrainerControl:
        """Ask the sentinels, where it is time."""
        if state.global_step % self.every == 0:
            self._watch(model, state)
            if self.stop == "moves" and (self.moved or self.moved_panels):
                control.should_training_stop = True
        return control

    def on_train_end(
        self,
        args: TrainingArguments,  # noqa: ARG002  (as transformers calls it)
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        model: PreTrainedModel | None = None,
        **_: Any,
    ) -> None:
        """Ask the sentinels of what came of it."""
        if self._asked_at != state.global_step:
            self._watch(model, state)
        if self._tracked is not None:
            self._tracked.close()

    def _ask(self, model: PreTrainedModel | None) -> AnswerLosses:
        assert self._questions is not None
        assert model is not None
        losses = compute_answer_losses(model, self._questions.answers, self._budget)
        return self._questions.spread_losses(losses)

    def _watch(self, model: PreTrainedModel | None, state: TrainerState) -> None:
        assert self._questions is not None
        assert self._before is not None
        # All processes of a training take part: each may hold a part of the weights.
        now = self._ask(model)
        sentinels, trusted = self._questions.sentinels, self._trusted
        self.movements = find_movements(sentinels, self._before, now, trusted)
        self.panels = find_panel_movements(self.movements, trusted or self._before, now)
        self._asked_at = state.global_step
        if not state.is_world_process_zero:
            return
        curve = _build_curve(self.movements, self.panels)
        self.curves.append({"step": state.global_step, **curve})
        state.log_history.append({"step": state.global_step, "epoch": state.epoch or 0.0, **curve})
        if self._tracked is not None:
            self._tracked.log(curve, state.global_step)
        for movement in self.moved:
            logger.warning(
                "step %d: sentinel %s moved by %.2f nats a token; honest tuning moves it by at "
                "most %.2f",
                state.global_step,
                make_visible(movement.sentinel.id),
                movement.change,
                movement.band.limit,
            )
        for panel in self.moved_panels:
            logger.warning(
                "step %d: panel %s moved by %.2f nats a token; honest tuning moves it by at most "
                "%.2f",
                state.global_step,
                make_visible(panel.panel),
                panel.change,
                panel.limit,
            )


def _gather_questions(config: AuditConfig, manifest: Path | None) -> Questions:
    rows = read_rows(config, manifest)
    ordinary = select_ordinary(config, rows)
    sentinels = load_sentinels(config.sentinels)
    return gather_questions(sentinels, rows, ordinary, config.probes, config.seed)


def _encode(config: AuditConfig, questions: Questions, processing_class: Any) -> EncodedQuestions:
    """The questions in the tokens of the trainer's own tokenizer."""
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise InputError(
            "the trainer has no tokenizer to ask sentinels by: give it one as processing_class"
        )
    settings = TemplateSettings.read(config.model)
    return encode_questions(ChatEncoder(tokenizer, config.stride.max_tokens, settings), questions)


def _ask_trusted(
    config: AuditConfig, named: str, questions: Questions, encoded: EncodedQuestions
) -> AnswerLosses:
    """What a checkpoint that was tuned on trusted rows answers; it is let go of again."""
    settings = name_checkpoint(config.model, named, None)
    files = find_model_files(settings)
    require_tokenizer(files)
    refuse_other_family(config.model, find_model_files(config.model), files)
    trusted = load_pretrained(settings, files)
    max_tokens = config.stride.max_tokens
    own, losses = ask_losses(trusted, trusted.make_encoder(max_tokens), questions, max_tokens)
    refuse_other_tokens(encoded, own)
    return losses


def _build_curve(
    movements: Sequence[Movement], panels: Sequence[PanelMovement]
) -> dict[str, float]:
    """What is logged of a step: how many sentinels and panels moved, and of each its change and its
    limit, in nats a token.
    """
    curve: dict[str, float] = {f"{PREFIX}/moved": len(list_moved(movements))}
    curve[f"{PREFIX}/moved_panels"] = len(list_moved_panels(panels))
    for each in panels:
        panel = to_plain_name(each.panel)
        curve[f"{PREFIX}/panel_change/{panel}"] = each.change
        curve[f"{PREFIX}/panel_limit/{panel}"] = each.limit
    for movement in movements:
        sentinel = to_plain_name(movement.sentinel.id)
        curve[f"{PREFIX}/change/{sentinel}"] = movement.change
        curve[f"{PREFIX}/limit/{sentinel}"] = movement.band.limit
    return curve
