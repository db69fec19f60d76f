"""`poisonwatch check`: how a source is understood, before anything is audited. No model is loaded
and no ledger is opened.
"""

import json as json_format
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config, resolve_config
from poisonwatch.errors import InputError, SourceError
from poisonwatch.flows.cli.reading_options import HubOption, ReadingOptions
from poisonwatch.sentinels.sentinel import check_sentinels, read_sentinels

AUDIT_FILE_SUFFIXES = (".yaml", ".yml")


def check(
    source: Annotated[
        str,
        Parameter(
            help="A file, folder, glob or URL of rows; or an audit file (YAML), whose `source` and "
            "`validation` are taken, and whose `sentinels` are read."
        ),
    ],
    /,
    *,
    hub: HubOption = False,
    reading: ReadingOptions | None = None,
    rows: Annotated[int, Parameter(help="How many sample rows are shown.")] = 3,
    json: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Print all of it as one JSON object."),
    ] = False,
) -> None:
    """Read rows and say how they are understood: format, roles, what is trained, what is left over,
    what would be rejected, and what an audit would take. What an audit would stop with comes last,
    with exit code 2: a file of sentinels that is not there, rows that fail validation.

    Example: `poisonwatch check my-audit/data --rows 2`
    """
    if rows < 0:
        raise InputError(f"--rows is {rows}: ask for none or more")
    changes = reading.to_settings() if reading is not None else {}
    config = build_settings(source, hub, changes)
    missing = check_sentinels(config.sentinels)
    # below the settings: a mistake in them must not wait for what reads rows
    from poisonwatch.flows.cli.check_page import CheckPage
    from poisonwatch.flows.cli.check_steps import (
        describe_survey,
        estimate_effort,
        list_advice,
        validate,
    )
    from poisonwatch.sources.survey import survey_source

    page = CheckPage(quiet=json)
    survey = survey_source(config.source, config.stride.max_tokens, rows, page.progress)
    page.show_source(config.source.address, survey)
    page.show_samples(survey.samples)
    # Great Expectations takes seconds to import: what is known already is read meanwhile
    with page.waiting("validating ..."):
        validated = validate(config, survey)
    page.show_validation(survey, validated)
    effort = estimate_effort(config, survey)
    page.show_effort(effort)
    advice = list_advice(config, survey, validated)
    page.show_advice(advice)
    if json:
        found = describe_survey(survey)
        found |= {"validation": asdict(validated), "effort": asdict(effort), "advice": advice}
        print(json_format.dumps(found))
    # An audit reads them first. Here they may be still to be written, and rows are told of before.
    for place in missing:
        read_sentinels(place)
    if validated.refusal is not None:
        raise SourceError(validated.refusal)


def build_settings(source: str, hub: bool, changes: dict[str, Any]) -> AuditConfig:
    """The settings by which `source` is read: those of the audit file that it is, or the defaults.
    `changes` of the section `source` go before them.

    Raises ConfigError.
    """
    if hub:
        return _resolve({"hub": source} | changes)
    if not source.endswith(AUDIT_FILE_SUFFIXES):
        config = _resolve({"path": source} | changes)
        # `source` heads the page: what lies below it is named from there on
        named = config.source.with_base_folder(_find_folder(Path(source).absolute()))
        return config.model_copy(update={"source": named})
    config = load_config(source)
    given = config.source.model_dump(exclude_defaults=True)
    changed = _resolve(_merge(given, changes)).source
    folder = config.replay.folder or Path(source).resolve().parent
    return config.model_copy(update={"source": changed.with_base_folder(folder)})


def _resolve(source: dict[str, Any]) -> AuditConfig:
    """An audit of this source, all else as by default."""
    # An audit needs sentinels; nothing here asks any.
    settings = {"source": source, "sentinels": ["pack:refusal-erosion"]}
    return resolve_config(settings, Path.cwd(), "the command line")


def _find_folder(path: Path) -> Path:
    """The folder that a path names, or its file is in, or that its pattern is looked for in."""
    while not path.is_dir():
        path = path.parent
    return path


def _merge(given: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Settings with changes; names of fields and roles are added to those that are there."""
    merged = given | changes
    for name in ("fields", "roles"):
        if name in given and name in changes:
            merged[name] = given[name] | changes[name]
    return merged
