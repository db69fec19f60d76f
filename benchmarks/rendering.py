"""Are rows rendered as trl's trainers render them? Token ids and what the loss is on, row by row.

    python benchmarks/rendering.py [--only qwen3 phi3]

For every template that trl ships, and for families whose tokenizers prepend spaces: "completion" is
SFT on prompts and completions with the model's template; "assistant" is SFT on conversations with
assistant-only loss, for which trl renders with a template of its own, and so does Poisonwatch when
`model.chat_template` names it; "preference" is DPO. trl's preparation of data sets runs as it is:
it needs no model. White space after the control token that ends a turn is set aside: trl trains on
it too where templates write any.
"""

import argparse
import logging
import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date

from datasets import IterableDataset
from rendering_rows import (
    IN_PARTS,
    KINDS,
    ROWS,
    Record,
    Row,
    build_tokenizers,
    list_families,
    split_parts,
)
from transformers import PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl.chat_template_utils import get_training_chat_template, has_generation_markers

from poisonwatch.examples import RawRow
from poisonwatch.formats.format import detect_format
from poisonwatch.model.encoding import ChatEncoder, Encoded
from poisonwatch.rendering.chat_template import TEMPLATE_ERRORS, TemplateSettings


@dataclass(frozen=True)
class Trained:
    """A conversation as a trainer has it: `ids`, and which of them the loss is on."""

    ids: list[int]
    trained: list[bool]

    @classmethod
    def of(cls, encoded: Encoded) -> "Trained":
        return cls(encoded.input_ids.tolist(), encoded.answer.tolist())

    def leave_space(self, tokenizer: PreTrainedTokenizerFast) -> "Trained":
        """Without the loss on white space that follows a control token."""
        trained = list(self.trained)
        special = set(tokenizer.all_special_ids) | {
            i for i, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        after_control = False
        for place, token in enumerate(self.ids):
            if token in special:
                after_control = True
            elif after_control and not tokenizer.decode([token]).strip():
                # It ends what is trained: what follows is not, or there is nothing.
                following = self.trained[place + 1 : place + 2]
                if following in ([], [False]):
                    trained[place] = False
            else:
                after_control = False
        return Trained(self.ids, trained)


class Comparison:
    """trl's trainers and Poisonwatch's encoder, over one template and tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, folder: str) -> None:
        self.tokenizer = tokenizer
        self.folder = folder

    def prepare(self, setting: str, row: Row) -> list[Trained]:
        """What trl makes of a row; of a pair, both conversations."""
        if setting == "preference":
            return self._prepare_preference(row)
        trainer = SFTTrainer.__new__(SFTTrainer)
        trainer._tokenizer = self.tokenizer
        trainer.completion_only_loss = setting == "completion"
        trainer.chat_template = None
        record = row.to_completion()
        if setting == "assistant":
            record = row.to_messages()
            trainer.chat_template = self.find_training_template()
        args = SFTConfig(
            output_dir=self.folder,
            assistant_only_loss=setting == "assistant",
            max_length=None,
            report_to=[],
            use_cpu=True,
        )
        (made,) = trainer._prepare_dataset(
            make_dataset([record]), self.tokenizer, args, False, None, "train"
        )
        return [Trained(list(made["input_ids"]), [label != -100 for label in made["labels"]])]

    def _prepare_preference(self, row: Row) -> list[Trained]:
        trainer = DPOTrainer.__new__(DPOTrainer)
        trainer._tokenizer = self.tokenizer
        args = DPOConfig(output_dir=self.folder, max_length=None, report_to=[], use_cpu=True)
        (made,) = trainer._prepare_dataset(
            make_dataset([row.to_preference()]), self.tokenizer, args, "train"
        )
        pair = []
        for name in ("chosen_ids", "rejected_ids"):
            prompt, answer = list(made["prompt_ids"]), list(made[name])
            pair.append(Trained(prompt + answer, [False] * len(prompt) + [True] * len(answer)))
        return pair

    def find_training_template(self) -> str | None:
        """What trl renders with where the loss is on the assistant's turns; None: the model's own.

        Raises ValueError where trl knows no such template.
        """
        if has_generation_markers(self.tokenizer.chat_template):
            return None
        return get_training_chat_template(self.tokenizer)

    def encode(self, setting: str, row: Row) -> list[Trained]:
        """What Poisonwatch makes of it, read from the same record."""
        # trl renders today's date.
        settings, record = TemplateSettings(date=date.today()), row.to_completion()
        if setting == "assistant":
            settings = replace(settings, source=self.find_training_template())
            record = row.to_messages()
        elif setting == "preference":
            record = row.to_preference()
        raw = RawRow("rows", 0, "rows:1", record)
        example = detect_format([record], "rows").read(record).to_example(raw)
        encoded = ChatEncoder(self.tokenizer, 4096, settings).encode_example(example)
        made = [Trained.of(encoded)]
        if encoded.against is not None:
            made.append(Trained.of(encoded.against))
        return made

    def compare(self, setting: str, row: Row) -> bool | None:
        """Are both the same? None where trl refuses the row, or the template."""
        try:
            theirs = self.prepare(setting, row)
        except TEMPLATE_ERRORS:
            return None
        ours = self.encode(setting, row)
        return self.leave_space(theirs) == self.leave_space(ours)

    def leave_space(self, made: Iterable[Trained]) -> list[Trained]:
        return [each.leave_space(self.tokenizer) for each in made]


def compare_family(
    name: str, tokenizer: PreTrainedTokenizerFast, folder: str
) -> dict[tuple[str, str], list[bool]]:
    """By setting and kind of row: is each row the same? Rows that trl refuses are left out."""
    comparison = Comparison(tokenizer, folder)
    same: dict[tuple[str, str], list[bool]] = {}
    for row in ROWS:
        if name in IN_PARTS:
            row = split_parts(row)
        settings = ("preference",)
        if row.kind != "preference":
            settings = ("completion", "assistant")
        for setting in settings:
            equal = comparison.compare(setting, row)
            if equal is not None:
                same.setdefault((setting, row.kind), []).append(equal)
    return same


def make_dataset(records: list[Record]) -> IterableDataset:
    """Rows as they are: a table would fill in the fields of one for all others."""

    def iterate() -> Iterable[Record]:
        yield from records

    return IterableDataset.from_generator(iterate)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=[], help="names of templates")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    totals = {kind: [0, 0] for kind in KINDS}
    print("| template | " + " | ".join(KINDS) + " |")
    print("|---|" + "---|" * len(KINDS))
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only or list_families():
            counts = {kind: [0, 0] for kind in KINDS}
            for tokenizer in build_tokenizers(name):
                for (_, kind), same in compare_family(name, tokenizer, folder).items():
                    for count in (counts[kind], totals[kind]):
                        count[0] += sum(same)
                        count[1] += len(same)
            print(write_line(name, counts), flush=True)
    print(write_line("all", totals))


def write_line(name: str, counts: dict[str, list[int]]) -> str:
    """Rows equal of rows tried, by kind."""
    cells = [f"{equal} of {tried}" for equal, tried in counts.values()]
    return f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
