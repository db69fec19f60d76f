"""What `pw.audit` gives back: flags, scores and groups as tables, and the rows that are clean."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from poisonwatch.atomic import read_jsonl
from poisonwatch.config import AuditConfig
from poisonwatch.discovery.described import DescribedGroup
from poisonwatch.errors import InputError
from poisonwatch.examples import Example
from poisonwatch.flows.bars import Bars
from poisonwatch.flows.discover import Inquiry, discover_inline
from poisonwatch.flows.engine import AuditOutcome
from poisonwatch.flows.explaining import explain_run
from poisonwatch.flows.notebook.rows import GivenRows
from poisonwatch.flows.notebook.site import LentFolder
from poisonwatch.ledger.batches import load_examples
from poisonwatch.ledger.history import find_by_audit_id
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.placed_rows import select_placed_rows
from poisonwatch.release.release import write_release
from poisonwatch.release.selection import CLEARED_STATUSES
from poisonwatch.reports.links import locate_report
from poisonwatch.run_directory import read as readback
from poisonwatch.text.display import excerpt
from poisonwatch.text.words import plural

GROUPS_SHOWN = 10
EXCERPT = 120  # characters of a row's text in the page of a result

FLAG_COLUMNS = ("id", "panel", "severity", "score", "rank", "p_value", "q_value", "sentinel_id")
DISCOVERED_COLUMNS = (
    "rows",
    "passed",
    "q_value",
    "prompts_share",
    "answers_share",
    "unusual",
    "beside",
    "says",
)


class AuditResult:
    """An audit's results. Tables have a line for every row that was given, copies among them, by
    the label that it has where it comes from: a list's index from 0, a DataFrame's own.

        flags      the rows to look at, strongest first, each with its reasons and its text
        scores     every audited row with its score on the panel that it pushes most
        groups     flagged rows that are alike: what they share, and what they do together
        rejected   rows that were not audited, and why
        clean      the other rows, in the type that they were given in

    Texts are what the rows say, whatever that is: data, never to be trusted.
    """

    def __init__(
        self,
        *,
        config: AuditConfig,
        outcome: AuditOutcome,
        given: GivenRows | None,
        lent: LentFolder | None,
    ) -> None:
        self._config, self._outcome, self._given = config, outcome, given
        # goes with the result
        self._lent = lent
        # at once: another audit in the same folder may be of other rows
        self._placed = _read_places(config)

    @property
    def summary(self) -> Mapping[str, Any]:
        """Counts, versions, settings and costs: what `summary.json` holds."""
        return self._outcome.summary

    @property
    def warnings(self) -> list[str]:
        """What went wrong beside the verdicts."""
        return self._outcome.warnings

    @property
    def run_dir(self) -> Path:
        """The folder with all that the audit left; it goes with this result unless the audit was
        given a `folder`.
        """
        return self._outcome.run_dir

    @cached_property
    def flags(self) -> pd.DataFrame:
        """The flagged rows, strongest first."""
        by_id = {line["example_id"]: line for line in self._outcome.flags}
        order = {id: number for number, id in enumerate(by_id)}
        groups = self._group_numbers
        found = []
        for label, place in self._list_places():
            line = by_id.get(place["id"])
            if line is None:
                continue
            chosen = {name: line.get(name) for name in FLAG_COLUMNS if name in line}
            record = {**place, **chosen, "group": groups.get(place["id"])}
            record["reasons"] = list(line["reasons"])
            found.append((label, record | _show_text(self._examples[place["id"]])))
        found.sort(key=lambda each: order[each[1]["id"]])
        return _make_table(found, (*FLAG_COLUMNS, "group", "reasons", "prompt", "response"))

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Every audited row with its score on the panel that it pushes most, in order."""
        strongest = self._read_strongest()
        flagged = {line["example_id"] for line in self._outcome.flags}
        found = []
        for label, place in self._list_places():
            line = strongest.get(place["id"])
            if line is None:
                continue
            record = {**place, **line, "flagged": place["id"] in flagged}
            found.append((label, record | _show_text(self._examples[place["id"]])))
        columns = ("id", "panel", "score", "p_value", "q_value", "flagged", "prompt", "response")
        return _make_table(found, columns)

    @cached_property
    def groups(self) -> pd.DataFrame:
        """Flagged rows that are alike, largest group first: how many, what all of them say in
        prompts and answers, what a model that is steered by them does, and the one in their middle.
        """
        lines = []
        for number, group in enumerate(readback.read_evidence(self.run_dir), start=1):
            middle = group["rows"].index(group["example"])
            example = self._examples[group["example_ids"][middle]]
            lines.append((number, _describe_group(group) | _show_text(example)))
        columns = ("panel", "rows", "prompts_share", "answers_share", "second_look")
        return _make_table(lines, (*columns, "prompt", "response"))

    @cached_property
    def rejected(self) -> pd.DataFrame:
        """Rows that were not audited, and why."""
        file = self.run_dir / "rejected.jsonl"
        lines = list(read_jsonl(file)) if file.is_file() else []
        if self._given is None:
            return pd.DataFrame(lines, columns=["source", "position", "expectation", "reason"])
        labels = [self._given.labels[line["position"]] for line in lines]
        return pd.DataFrame(lines, index=labels, columns=["expectation", "reason"])

    @cached_property
    def clean(self) -> Any:
        """The rows that may be trained on, in order and in the type that they were given in: all
        but those that are flagged or rejected. Of rows at a path: the folder of a release, with
        their bytes and a manifest for `pw.gate`.
        """
        if self._given is None:
            folder = self.run_dir.parent / f"clean-{self.summary['audit_id']}"
            with Ledger.existing(self._config.state) as ledger:
                write_release(ledger, self._config.name, folder, self._config.validation.duplicates)
            return folder
        cleared = [place for place in self._placed if place["status"] in CLEARED_STATUSES]
        return self._given.choose([place["position"] for place in cleared])

    def explain(self, prompt: str, response: str, top: int = 10) -> pd.DataFrame:
        """The `top` rows, trusted ones among them, that push the model towards answering a prompt
        with this response, strongest first.

        Raises InputError where either is empty, ModelError where the model is not there any more.
        """
        found = explain_run(self.run_dir, prompt, response, top)
        labels = {place["id"]: label for label, place in self._list_places()}
        lines = []
        for row in found.rows:
            record = {
                "row": labels.get(row.example_id),
                "trusted": row.source is None,
                "coefficient": row.coefficient,
                "score": row.score,
                "exact": row.exact,
            }
            example = found.examples.get(row.example_id)
            text = {} if example is None else _show_text(example)
            lines.append((row.rank, record | text))
        columns = ("row", "trusted", "coefficient", "score", "exact", "prompt", "response")
        return _make_table(lines, columns)

    def discover(self, say: int | None = None) -> pd.DataFrame:
        """Groups of rows that push the model a way that trusted rows do not, whatever the sentinels
        ask, as `poisonwatch discover` shows them: which `rows`, what all of them share, how
        unusual they are beside trusted rows, and which stronger group each is `beside`. Those
        that are not `passed` may be chance.

        About the first `say` groups (default: a few) the steered model is asked; `says` is its
        answer to a prompt of no topic, where steering changes it most. Raises InputError where no
        row was audited, RunError where too many were.
        """
        with Ledger.existing(self._config.state) as ledger:
            past = find_by_audit_id(ledger, self.summary["audit_id"])
            if past is None or past.nothing_new:
                raise InputError("no row was audited: there is nothing to look at")
            found = discover_inline(self._config, past, ledger, Inquiry(say), Bars(quiet=True))
        labels: dict[str, list[Any]] = {}
        for label, place in self._list_places():
            labels.setdefault(place["id"], []).append(label)
        relations = found.report.relations
        lines = []
        for group, _ in found.report.ordered:
            relation = relations.get(group.number)
            beside = None if relation is None else relation.words
            rows = [label for row in group.rows for label in labels.get(row.example_id, ())]
            record = _describe_discovered(group) | {"rows": rows, "beside": beside}
            lines.append((group.number, {name: record[name] for name in DISCOVERED_COLUMNS}))
        return _make_table(lines, DISCOVERED_COLUMNS)

    def report(self) -> Path:
        """The audit's report, a page of HTML that needs nothing else. Raises InputError where it
        could not be drawn.
        """
        page = locate_report(self.run_dir)
        if not page.is_file():
            raise InputError(f"the audit left no report: {'; '.join(self.warnings) or 'see logs'}")
        return page

    def __repr__(self) -> str:
        return f"<AuditResult: {self._describe()}>"

    def _repr_html_(self) -> str:
        """Counts and groups, for notebooks; rows' text as inert text."""
        shown = self.groups.head(GROUPS_SHOWN).copy()
        for name in ("prompt", "response"):
            shown[name] = [excerpt(text, EXCERPT) for text in shown[name]]
        left = len(self.groups) - len(shown)
        more = f"<p>and {plural(left, 'more group')} in <code>.groups</code></p>" if left else ""
        table = shown.to_html(escape=True) if len(shown) else ""
        troubles = "".join(f"<p>{escape(warning)}</p>" for warning in self.warnings)
        return f"<p>{escape(self._describe())}</p>{table}{more}{troubles}"

    def _describe(self) -> str:
        counts = self.summary["counts"]
        return (
            f"{counts['flagged']} of {counts['new']} rows flagged, in "
            f"{plural(len(self.groups), 'group')}; {counts['rejected']} rejected, "
            f"{plural(counts['reference'], 'trusted row')} to compare with"
        )

    def _list_places(self) -> list[tuple[Any, dict[str, Any]]]:
        """What every row is called, with its id, and where it stands unless that is a notebook."""
        if self._given is None:
            return [
                (number, {"id": at["id"], "source": at["source"], "line": at["position"] + 1})
                for number, at in enumerate(self._placed)
            ]
        labels = self._given.labels
        return [(labels[at["position"]], {"id": at["id"]}) for at in self._placed]

    @cached_property
    def _examples(self) -> dict[str, Example]:
        with Ledger.existing(self._config.state) as ledger:
            return load_examples(ledger, sorted({place["id"] for place in self._placed}))

    @property
    def _group_numbers(self) -> dict[str, int]:
        """The group of each flagged row, from 1, by id."""
        found = {}
        for number, group in enumerate(readback.read_evidence(self.run_dir), start=1):
            found.update(dict.fromkeys(group["example_ids"], number))
        return found

    def _read_strongest(self) -> dict[str, dict[str, Any]]:
        """Of every audited row the panel on which it scores most, with what is known of it."""
        file = self.run_dir / "scores.parquet"
        if not file.is_file():
            return {}
        columns = ["example_id", "panel", "score", "p_value", "q_value"]
        pairs = pq.read_table(file, columns=columns).to_pandas()
        pairs = pairs.sort_values("score", ascending=False).drop_duplicates("example_id")
        records: dict[str, dict[str, Any]] = pairs.set_index("example_id").to_dict("index")
        return records


def _read_places(config: AuditConfig) -> list[dict[str, Any]]:
    """Every place of the source, in order, with the row that stands there."""
    found = []
    with Ledger.existing(config.state) as ledger, ledger.read() as connection:
        for row in connection.execute(select_placed_rows(config.name)):
            place = {"source": row.name, "position": row.position, "status": row.status}
            found.append({"id": bytes(row.id).hex(), **place})
    return found


def _describe_group(group: Mapping[str, Any]) -> dict[str, Any]:
    confirmation = group["confirmation"]
    return {
        "panel": group["panel"],
        "rows": len(group["example_ids"]),
        "prompts_share": [each["text"] for each in group["prompt_ngrams"]],
        "answers_share": [each["text"] for each in group["answer_ngrams"]],
        "second_look": group["unconfirmed"] if confirmation is None else confirmation["grade"],
    }


def _describe_discovered(group: DescribedGroup) -> dict[str, Any]:
    says = [reply.after for reply in group.neutral_replies if reply.change > 0]
    return {
        "passed": group.passed,
        "q_value": group.q_value,
        "prompts_share": list(group.prompt_words),
        "answers_share": list(group.answer_words),
        "unusual": group.unusual,
        "says": says[0] if says else None,
    }


def _show_text(example: Example) -> dict[str, str]:
    """What a row says: all that comes before its last answer, and that answer."""
    before = "\n\n".join(message.content for message in example.messages[:-1])
    return {"prompt": before, "response": example.messages[-1].content}


def _make_table(
    lines: Sequence[tuple[Any, Mapping[str, Any]]], columns: Sequence[str]
) -> pd.DataFrame:
    """A line for each record; without one, the columns alone."""
    labels = [label for label, _ in lines]
    records = [record for _, record in lines]
    if not records:
        return pd.DataFrame(columns=list(columns))
    return pd.DataFrame(records, index=labels)
