"""The gate: whether exactly these rows are cleared, asked by a training job just before it trains
on them.

A content is cleared by an audit under the required model, sentinels and settings, read by the model
as it is now, that did not flag it, unless it is in quarantine now; or by a person who called it
benign. A row is cleared where its content is, its bytes are those that stand in the source, and
they come no more often than there. Everything else is a reason (`reasons`). What the ledger says is
checked against its records; with keys, these must be signed.

The ledger is only read, and no lock is taken: the gate answers while an audit runs. A training run
that is to be on record is the one thing that is written (`trainings`).
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from poisonwatch.attestation.keys import read_public_keys
from poisonwatch.config import AuditConfig, ScreenName
from poisonwatch.config_file import load_config
from poisonwatch.errors import InputError, NotClearedError
from poisonwatch.ledger.decisions import MIN_ID_DIGITS
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.queries import ID_DIGITS, find_place, is_hex
from poisonwatch.ledger.read_only import require_one_name
from poisonwatch.ledger.transactions import retried
from poisonwatch.ledger.two_people import find_lone_decisions
from poisonwatch.ledger.verdict_settings import describe_verdict_settings
from poisonwatch.model.files import find_model_files
from poisonwatch.release.answer import GateAnswer, RequiredVersions, UnclearedRow
from poisonwatch.release.data_check import check_data
from poisonwatch.release.known_rows import KnownRows
from poisonwatch.release.ledger_check import check_chains, check_known_rows
from poisonwatch.release.manifest import CLEAN_PREFIX, is_manifest
from poisonwatch.release.manifest_check import check_manifest
from poisonwatch.release.reasons import REASON_LONE, REASON_UNSIGNED
from poisonwatch.release.trainings import check_run, record_training
from poisonwatch.release.trust import Trust, is_signed
from poisonwatch.sentinels.sentinel import compute_sentinels_version, load_sentinels
from poisonwatch.source_config import SourceConfig
from poisonwatch.text.display import excerpt, make_visible
from poisonwatch.text.environment import expand_home, find_variables

MAX_NAMED_ROWS = 3  # rows that an error names
MAX_ROW_NAME_CHARS = 200
LAST_RECORD = "the ledger's last record"
PULLS = "the ledger's records of what was pulled"


def check_cleared(
    paths: Sequence[str | Path],
    audit: str | Path | None = None,
    model_version: str | None = None,
    sentinels_version: str | None = None,
    reading_version: str | None = None,
    keys: Sequence[str | Path] | None = None,
    head: str | None = None,
    rate: float | None = None,
    screens: Sequence[str] | None = None,
    training_run: str | None = None,
) -> GateAnswer:
    """Whether the rows of these manifests, files, folders, globs and URLs are cleared.

    Rows are read as the audit file's source is, and asked for in its ledger, under its model, its
    tokenizer and chat template (the reading), and its sentinels, or the versions given (8 or more
    hex digits); a model's version that is given without a reading is of any. Without an audit file,
    a manifest is compared with its files alone.

    Audits must have been of the audit file's settings, too; or, with a `rate` or `screens`, of a
    false-discovery rate that is no lower, and with these screens at least.

    What clears a row must be signed by one of these `keys`, files of public ones; None: those that
    the audit file names, if any. The ledger must go through the `head` NUMBER:HASH.

    With a `training_run`, the ledger gets a record that this run named these manifests, and of the
    answer, signed where the audit file names a key. Raises InputError where there are no rows, data
    come without an audit file, no audit has run, a version or key is none, or the ledger was
    tampered with, cut off or replaced.
    """
    required = RequiredVersions(
        model=_check_digits(model_version, "model"),
        sentinels=_check_digits(sentinels_version, "sentinels"),
        reading=_check_digits(reading_version, "reading"),
        rate=_check_rate(rate),
        screens=_check_screens(screens),
    )
    manifests, data = _split_paths(paths)
    if training_run is not None:
        training_run = check_run(training_run)
        _require_manifests(manifests, data, audit)
    if audit is None:
        if data:
            raise InputError(
                f"{make_visible(data[0])} is no manifest of a release: give the audit file whose "
                "ledger knows its rows (--audit)"
            )
        if head is not None:
            raise InputError("a head is one of a ledger: give the audit file, too (--audit)")
        trusted = read_public_keys(keys or ())
        alone = [check_manifest(path, required, keys=trusted) for path in manifests]
        return replace(_combine_answers(alone, required), keys=tuple(trusted))
    settings = load_config(audit)
    trusted = settings.signing.load_public_keys() if keys is None else read_public_keys(keys)
    required = _fill_in_versions(required, settings)
    # All answers are of one state: what is compared with the records is what clears rows.
    require_one_name(settings.state)
    with Ledger.existing(settings.state) as ledger, ledger.hold():
        end = check_chains(ledger, head)
        trust = Trust(ledger, trusted) if trusted else None
        known = KnownRows(ledger, required, trust)
        answers = [check_manifest(path, required, known) for path in manifests]
        # A file that is given twice, or with its manifest, is there once.
        seen: set[str] = set()
        for manifest in manifests:
            folder = manifest.parent.resolve()
            seen |= {f"file://{file}" for file in folder.glob(f"{CLEAN_PREFIX}*")}
        for path in data:
            source = _resolve_source(settings.source, path)
            answers.append(check_data(known, source, seen))
        check_known_rows(ledger, known.asked)
        answer = _combine_answers(answers, known.required)
        if trust is not None:
            answer = replace(answer, missing=(*answer.missing, *_list_unsigned(trust)))
        lone = _list_lone(ledger, known.asked, settings)
        answer = replace(answer, missing=(*answer.missing, *lone))
        is_any_signed = answer.is_signed or is_signed(ledger)
    answer = replace(answer, keys=tuple(trusted), is_signed=is_any_signed, head=str(end))
    if training_run is not None:
        signer = settings.signing.load_signer()
        with Ledger.existing(settings.state, signer=signer) as ledger:
            record_training(ledger, training_run, manifests, answer)
    return answer


def _require_manifests(
    manifests: Sequence[Path], data: Sequence[str], audit: str | Path | None
) -> None:
    """Raises InputError where a training run could not be put on record: it names releases, and a
    ledger keeps it.
    """
    for path in data:
        if path.endswith(".json") and not Path(path).exists():
            raise InputError(f"{make_visible(path)} does not exist: give the manifest of a release")
    if data or not manifests:
        raise InputError(
            "a training run is recorded with the release that it trains on: give the manifest.json "
            "that `poisonwatch release` wrote, and nothing else"
        )
    if audit is None:
        raise InputError("a training run is recorded in a ledger: give the audit file (--audit)")


def _list_unsigned(trust: Trust) -> list[UnclearedRow]:
    """What of a ledger as a whole nobody who counts signed."""
    unsigned = []
    if not trust.vouches_for_head():
        unsigned.append(UnclearedRow(LAST_RECORD, None, None, reason=REASON_UNSIGNED))
    if not trust.vouches_for_pulls():
        unsigned.append(UnclearedRow(PULLS, None, None, reason=REASON_UNSIGNED))
    return unsigned


@retried
def _list_lone(
    ledger: Ledger, numbers: Collection[int], settings: AuditConfig
) -> list[UnclearedRow]:
    """The rows that one person's word cleared, where the audit file asks for two."""
    found = []
    two_people = settings.review.two_people
    with ledger.read() as connection:
        for id in find_lone_decisions(connection, sorted(numbers), two_people):
            source, position = find_place(connection, id) or ("the ledger", 0)
            found.append(UnclearedRow(source, position, id, reason=REASON_LONE))
    return found


def _split_paths(paths: Sequence[str | Path]) -> tuple[list[Path], list[str]]:
    """The manifests among the paths, and the others. Raises InputError where one is the folder of a
    release: its files would be taken without their manifest.
    """
    manifests: list[Path] = []
    data: list[str] = []
    for path in dict.fromkeys(paths):
        if is_manifest(Path(path)):
            if not any(Path(path).samefile(other) for other in manifests):
                manifests.append(Path(path))
            continue
        inside = Path(path) / "manifest.json"
        if inside.is_file():
            raise InputError(
                f"{make_visible(str(path))} is a folder with a manifest: give "
                f"{make_visible(str(inside))} itself, or files"
            )
        _require_there(str(path))
        data.append(str(path))
    return manifests, data


def _require_there(path: str) -> None:
    """Raises InputError where a path of this machine leads nowhere; patterns and addresses are
    looked up later.
    """
    is_pattern = not set("*?[").isdisjoint(path)
    if "://" in path or is_pattern or find_variables(path) or Path(path).exists():
        return
    raise InputError(
        f"{make_visible(path)} does not exist: give the manifest of a release, or rows of yours "
        "(relative paths start at the working directory)"
    )


def require_cleared(
    paths: Sequence[str | Path],
    audit: str | Path | None = None,
    model_version: str | None = None,
    sentinels_version: str | None = None,
    reading_version: str | None = None,
    keys: Sequence[str | Path] | None = None,
    head: str | None = None,
    rate: float | None = None,
    screens: Sequence[str] | None = None,
    training_run: str | None = None,
) -> int:
    """The number of these rows, all of which are cleared. Raises NotClearedError where some are
    not, and what `check_cleared` raises.
    """
    answer = check_cleared(
        paths,
        audit,
        model_version,
        sentinels_version=sentinels_version,
        reading_version=reading_version,
        keys=keys,
        head=head,
        rate=rate,
        screens=screens,
        training_run=training_run,
    )
    if not answer.cleared:
        reasons = ", ".join(f"{count} {reason}" for reason, count in answer.reasons.items())
        first = answer.missing[:MAX_NAMED_ROWS]
        named = ", ".join(excerpt(place.account, MAX_ROW_NAME_CHARS) for place in first)
        raise NotClearedError(
            f"{answer.headline} ({reasons}), such as {named}: audit them, decide on them, or train "
            "without them"
        )
    return answer.rows


def _resolve_source(audited: SourceConfig, path: str) -> SourceConfig:
    """The rows of a path, which starts at the current folder, read as those of an audit's
    source.
    """
    # Not an audit file's folder: who asks names files from where they are. A variable may hold a
    # whole URL.
    if "://" not in path and "${" not in path:
        path = str(expand_home(path).absolute())
    # What says where rows are (hub, split, query) is another source's.
    placed = {"hub", "subset", "split", "revision", "sql", "query", "watermark"}
    read = audited.model_dump(exclude=placed) | {"path": path}
    return SourceConfig.model_validate(read).with_base_folder(Path.cwd())


def _fill_in_versions(required: RequiredVersions, settings: AuditConfig) -> RequiredVersions:
    """The required versions, by default those that an audit of these settings would be of now."""
    # Each only where it is asked for: a model's files take long to hash.
    if not required.model:
        files = find_model_files(settings.model)
        required = replace(
            required,
            model=files.fingerprint,
            reading=required.reading or files.reading,
            reads_as_before=files.reads_as_before and required.reading is None,
        )
    if not required.sentinels:
        sentinels = compute_sentinels_version(load_sentinels(settings.sentinels))
        required = replace(required, sentinels=sentinels)
    return replace(required, settings=describe_verdict_settings(settings))


def _check_rate(rate: float | None) -> float | None:
    """A false-discovery rate. Raises InputError where it is none."""
    if rate is not None and not 0 < rate < 1:
        raise InputError(f"the least rate is {rate:g}: give one between 0 and 1, such as 0.1")
    return rate


def _check_screens(screens: Sequence[str] | None) -> tuple[str, ...] | None:
    """The screens, each once. Raises InputError where one is none."""
    if screens is None:
        return None
    known = get_args(ScreenName)
    for name in screens:
        if name not in known:
            raise InputError(f"{excerpt(name, 40)!r} is no screen: choose {', '.join(known)}")
    return tuple(sorted(set(screens)))


def _check_digits(text: str | None, what: str) -> str | None:
    """A version's digits in lower case. Raises InputError where they are none."""
    if text is None:
        return None
    digits = text.lower()
    if not is_hex(digits) or not MIN_ID_DIGITS <= len(digits) <= ID_DIGITS:
        raise InputError(
            f"{excerpt(text, ID_DIGITS)!r} is no {what} version: give the SHA-256 in hex, or the "
            "first 8 or more digits of it, as summary.json and the release's manifest have it"
        )
    return digits


def _combine_answers(answers: Sequence[GateAnswer], required: RequiredVersions) -> GateAnswer:
    """One answer for all. Raises InputError where there is nothing to say."""
    missing: list[UnclearedRow] = []
    # Of one ledger, all answers name the same version by all of its digits.
    if answers:
        required = answers[0].required
    for answer in answers:
        missing += answer.missing
    number = sum(answer.rows for answer in answers)
    if not number and not missing:
        raise InputError("there are no rows to be cleared: give at least one file that holds some")
    return GateAnswer(
        rows=number,
        files=sum(answer.files for answer in answers),
        required=required,
        by_decision=sum(answer.by_decision for answer in answers),
        missing=tuple(missing),
        compared=all(answer.compared for answer in answers),
        passed_over=sum(answer.passed_over for answer in answers),
        is_signed=any(answer.is_signed for answer in answers),
    )
