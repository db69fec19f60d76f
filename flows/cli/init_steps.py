"""What `poisonwatch init` does: reads rows, proposes what an audit of them would be, asks where
somebody can answer, and writes it.
"""

import json
import os
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from poisonwatch.atomic import write_together
from poisonwatch.config import DEFAULT_MODEL
from poisonwatch.errors import InputError, PoisonwatchError, SourceError
from poisonwatch.examples import Example
from poisonwatch.flows.cli.check import AUDIT_FILE_SUFFIXES, build_settings
from poisonwatch.flows.cli.init_page import InitPage
from poisonwatch.flows.first_audit import (
    AUDIT_FILE,
    ROWS_FOLDER,
    SENTINELS_FILE,
    SPLIT_FILE,
    TRUSTED_FOLDER,
    fill_template,
    read_template,
    refuse_existing,
)
from poisonwatch.flows.trusted_split import (
    READING,
    WORTH,
    Split,
    choose_trusted_count,
    split_source,
)
from poisonwatch.release.destination import refuse_folder_inside
from poisonwatch.sentinels.pack import PACK_PREFIX
from poisonwatch.sentinels.proposals import Proposal, propose_packs
from poisonwatch.sentinels.sentinel import load_sentinels
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.survey import Survey, survey_source
from poisonwatch.text.display import make_visible
from poisonwatch.text.environment import expand_home
from poisonwatch.text.words import plural

SAMPLES = 2  # rows that are shown
SPLIT_NAMES = (ROWS_FOLDER, TRUSTED_FOLDER, SPLIT_FILE)
COMMENT_WIDTH = 140  # columns of a comment in the audit file


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the user said: as the options of `init`; None is what is left to be proposed."""

    folder: Path
    source: str
    hub: bool
    reading: dict[str, Any]
    reference: str | None
    trusted: int | None
    packs: Sequence[str] | None
    model: str | None
    seed: int
    force: bool


def ask_for_rows() -> str | None:
    """The rows that are to be audited; None for a template."""
    return _ask("Rows to audit (file, folder, glob or URL; nothing: a template)", "") or None


def write_templates(folder: Path, force: bool, as_json: bool) -> None:
    """The two files that nobody has filled in yet."""
    names = (SENTINELS_FILE, AUDIT_FILE)
    refuse_existing(folder, names, force)
    with write_together(folder, names) as scratch:
        audit = fill_template({"name": _name_audit(folder)}, {})
        (scratch / AUDIT_FILE).write_text(audit, encoding="utf-8")
        (scratch / SENTINELS_FILE).write_text(read_template(SENTINELS_FILE), encoding="utf-8")
    config, sentinels = folder / AUDIT_FILE, folder / SENTINELS_FILE
    if as_json:
        print(json.dumps({"audit": str(config), "written": [str(config), str(sentinels)]}))
        return
    print(f"wrote {config} and {sentinels}; edit both, then:")
    print(f"  poisonwatch check {config}    # how your rows are understood, without a model")
    print(f"  poisonwatch audit {config}")


def write_first_audit(wishes: Wishes, asks: bool, as_json: bool) -> None:
    """An audit file for the user's own rows. Raises InputError, SourceError, ConfigError or
    SentinelError; then nothing was written.
    """
    refuse_existing(wishes.folder, (AUDIT_FILE,), wishes.force)
    page = InitPage(quiet=as_json)
    source, survey = _survey(wishes.source, wishes, page, SAMPLES)
    page.show_source(source.address, survey)
    page.show_samples(survey.samples)
    proposals = propose_packs(_list_examples(survey))
    page.show_proposals(proposals, wishes.packs)
    contents = survey.complete - survey.copies - survey.variants
    if asks:
        wishes = _ask_for_rest(wishes, proposals, contents, page)
    packs = _choose_packs(wishes, proposals)
    count = _count_trusted(wishes, contents)
    trusted = _count_reference(wishes, page)
    if trusted is None and not count:
        page.show_no_split(contents, wishes.trusted)
    split = _write_files(wishes, source, packs, count, page)
    config = wishes.folder / AUDIT_FILE
    if not as_json:
        if split is not None:
            page.show_split(wishes.folder, split)
        page.show_next(config)
        return
    rows, worth = contents, None
    if split is not None:
        rows, trusted, worth = split.audited, split.trusted, WORTH
    found = {
        "audit": str(config),
        "written": [str(wishes.folder / name) for name in _list_names(count)],
        "rows": rows,
        "trusted": trusted,
        "split": None if split is None else asdict(split),
        "worth": worth,
        "packs": packs,
        "proposed": [asdict(proposal) for proposal in proposals],
    }
    print(json.dumps(found))


def _list_names(count: int) -> list[str]:
    """What is written where so many rows are set apart, the audit file last."""
    return [*SPLIT_NAMES, AUDIT_FILE] if count else [AUDIT_FILE]


def _count_reference(wishes: Wishes, page: InitPage) -> int | None:
    """How many trusted rows the user has; None: none of their own."""
    if wishes.reference is None:
        return None
    _, reference = _survey(wishes.reference, wishes, page, key="reference")
    page.show_reference(reference.complete)
    return reference.complete


def _write_files(
    wishes: Wishes, source: SourceConfig, packs: Sequence[str], count: int, page: InitPage
) -> Split | None:
    """Set `count` rows apart, and write the audit file; where none are, None."""
    names = _list_names(count)
    refuse_existing(wishes.folder, names, wishes.force)
    for name in names[:-1]:
        refuse_folder_inside(source, wishes.folder / name)
    settings, notes = _describe_settings(wishes, packs), {}
    split = None
    with write_together(wishes.folder, names) as scratch:
        if count:
            split = _set_apart(wishes, source, count, scratch, page)
            reading = _get_reading(source)
            settings["source"] = _write_source(ROWS_FOLDER, reading)
            settings["reference"] = _write_source(TRUSTED_FOLDER, reading)
            notes["source"] = _describe_rest(source, split)
            notes["reference"] = _describe_split(source, split)
        (scratch / AUDIT_FILE).write_text(fill_template(settings, notes), encoding="utf-8")
    return split


def _survey(
    place: str, wishes: Wishes, page: InitPage, samples: int = 0, key: str = "source"
) -> tuple[SourceConfig, Survey]:
    """Read rows once. Raises SourceError where none of them is a whole conversation."""
    if place.endswith(AUDIT_FILE_SUFFIXES):
        raise InputError(f"{place} is an audit file: name the rows themselves")
    config = build_settings(place, wishes.hub and place == wishes.source, wishes.reading)
    longest = config.stride.max_tokens
    survey = survey_source(config.source, longest, samples, page.progress, key=key)
    address = config.source.address
    if survey.problems:
        raise SourceError(survey.problems[0])
    if not survey.complete:
        raise SourceError(
            f"{address} holds no row that is a whole conversation: `poisonwatch check` says why"
        )
    return config.source, survey


def _list_examples(survey: Survey) -> list[Example]:
    """The first rows, as conversations."""
    examples = (draft.to_example(row) for row, draft in survey.kept)
    return [example for example in examples if example is not None]


def _ask_for_rest(
    wishes: Wishes, proposals: Sequence[Proposal], contents: int, page: InitPage
) -> Wishes:
    """What no option said; a question whose answer cannot be used is asked again."""

    def take_reference(answer: str) -> Wishes:
        if answer:
            _survey(answer, wishes, page, key="reference")
        return replace(wishes, reference=answer or None)

    def take_count(answer: str) -> Wishes:
        if not answer.isdecimal():
            raise InputError(f"{answer} is no number of rows")
        counted = replace(wishes, trusted=int(answer))
        _count_trusted(counted, contents)
        return counted

    def take_packs(answer: str) -> Wishes:
        named = replace(wishes, packs=answer.replace(",", " ").split())
        _choose_packs(named, proposals)
        return named

    if wishes.reference is None and wishes.trusted is None:
        question = "Rows that you trust, in a place of their own (nothing: none)"
        wishes = _ask_until_taken(question, "", take_reference)
    if wishes.reference is None and wishes.trusted is None:
        question = "Rows to set apart as trusted, drawn at random (0: none)"
        wishes = _ask_until_taken(question, str(choose_trusted_count(contents)), take_count)
    if wishes.packs is None:
        ready = " ".join(_list_ready(proposals))
        wishes = _ask_until_taken("Packs of sentinels", ready, take_packs)
    if wishes.model is None:
        wishes = replace(wishes, model=_ask("Model that will be trained", DEFAULT_MODEL))
    return wishes


def _ask_until_taken(question: str, default: str, take: Callable[[str], Wishes]) -> Wishes:
    """What `take` makes of an answer, which is asked for again where it raises an error."""
    while True:
        answer = _ask(question, default)
        try:
            return take(answer)
        except PoisonwatchError as error:
            print(make_visible(f"  {error}"))


def _ask(question: str, default: str) -> str:
    """An answer typed at the terminal. Raises InputError where its input is at an end."""
    offered = f" [{default}]" if default else ""
    try:
        return input(f"{question}{offered}: ").strip() or default
    except EOFError:
        raise InputError("no answer was given: nothing was written") from None


def _choose_packs(wishes: Wishes, proposals: Sequence[Proposal]) -> list[str]:
    """The places of packs, as `sentinels` names them. Raises SentinelError where there is none of a
    name, or it needs values.
    """
    names = _list_ready(proposals) if wishes.packs is None else wishes.packs
    places = [f"{PACK_PREFIX}{name.removeprefix(PACK_PREFIX)}" for name in dict.fromkeys(names)]
    if not places:
        raise InputError("an audit needs at least one pack: `poisonwatch packs` lists them")
    load_sentinels(places)
    return places


def _list_ready(proposals: Sequence[Proposal]) -> list[str]:
    return [proposal.pack for proposal in proposals if not proposal.needs_values]


def _count_trusted(wishes: Wishes, contents: int) -> int:
    """How many rows are set apart. Raises InputError where the rows are not so many."""
    if wishes.reference is not None:
        return 0
    if wishes.trusted is None:
        return choose_trusted_count(contents)
    if wishes.trusted >= contents:
        raise InputError(
            f"--trusted is {wishes.trusted}, of {plural(contents, 'different row')}: leave some "
            "to be audited"
        )
    return wishes.trusted


def _describe_settings(wishes: Wishes, packs: Sequence[str]) -> dict[str, Any]:
    """The settings of the audit, where no rows are set apart."""
    reading = wishes.reading
    settings = {
        "name": _name_audit(wishes.folder),
        "source": _write_source(_relate(wishes.source, wishes.folder), reading),
        "sentinels": list(packs),
        "model": wishes.model or DEFAULT_MODEL,
    }
    if wishes.hub:
        # a folder that `datasets` saved is named as such
        is_folder = Path(wishes.source).is_dir()
        place = _relate(wishes.source, wishes.folder) if is_folder else wishes.source
        settings["source"] = {"hub": place} | reading
    if wishes.reference is not None:
        place = _relate(wishes.reference, wishes.folder)
        settings["reference"] = _write_source(place, reading)
    return settings


def _set_apart(
    wishes: Wishes, source: SourceConfig, count: int, scratch: Path, page: InitPage
) -> Split:
    """Write the two folders of rows, and what says how they came about."""
    split = split_source(
        source,
        count,
        wishes.seed,
        audited=scratch / ROWS_FOLDER,
        trusted=scratch / TRUSTED_FOLDER,
        progress=page.progress,
    )
    record = {
        "source": source.address,
        "drawn": count,
        "seed": wishes.seed,
        "rows": asdict(split),
        "reason": f"no trusted rows were given; {WORTH}",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    text = json.dumps(record, indent=2) + "\n"
    (scratch / SPLIT_FILE).write_text(text, encoding="ascii")
    return split


def _describe_rest(source: SourceConfig, split: Split) -> str:
    text = (
        f"Here: the {plural(split.audited, 'row')} of {source.address} that are not set apart "
        "below, as they stood when `poisonwatch init` read them. What comes later goes into this "
        "folder, too."
    )
    if split.unread:
        text += f" {plural(split.unread, 'row')} could not be read, and are not among them."
    return _wrap_comment(text)


def _describe_split(source: SourceConfig, split: Split) -> str:
    return _wrap_comment(
        f"{plural(split.trusted, 'row')} of {source.address}, drawn at random and set apart "
        f"({SPLIT_FILE} says how): {WORTH}."
    )


def _wrap_comment(text: str) -> str:
    return "\n".join(textwrap.wrap(make_visible(text), COMMENT_WIDTH))


def _name_audit(folder: Path) -> str:
    """A name that no other audit has: a Prefect server, an MLflow server and a ledger tell audits
    apart by it.
    """
    return folder.resolve().name or "my-audit"


def _get_reading(source: SourceConfig) -> dict[str, Any]:
    return source.model_dump(include=READING, exclude_defaults=True)


def _write_source(place: str, reading: dict[str, Any]) -> str | dict[str, Any]:
    """A place of rows as an audit file names it."""
    return {"path": place} | reading if reading else place


def _relate(place: str, folder: Path) -> str:
    """A path from here, as the audit file in `folder` names it."""
    if "://" in place or "${" in place or expand_home(place).is_absolute():
        return place
    return os.path.relpath(Path(place).absolute(), folder.resolve())
