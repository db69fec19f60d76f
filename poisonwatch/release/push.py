"""A release as a data set on the hub: its cleared rows, its manifest and signatures, and a card
that says how they load. What is held back stays where it is.
"""

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from poisonwatch.errors import InputError, OperationError
from poisonwatch.release.manifest import CLEAN_PREFIX, Manifest, load_manifest
from poisonwatch.sources.saved import MANIFEST_NAME, SIGNED_NAME
from poisonwatch.text.display import excerpt

CARD_NAME = "README.md"
CARD = """---
configs:
{configs}---

# Rows that Poisonwatch cleared

{rows} rows, released from audited sources. `manifest.json` (SHA-256 `{digest}`) says where each row
came from, what cleared it, and which rows people repaired. Before training:
`poisonwatch gate manifest.json`.
"""


@dataclass(frozen=True, slots=True)
class PushedRelease:
    """Where a release is on the hub, and by which commit; whether the data set had a card of its
    own, which stays.
    """

    url: str
    commit: str
    files: tuple[str, ...]
    kept_card: bool

    def record(self) -> dict[str, object]:
        """As JSON."""
        return {
            "url": self.url,
            "commit": self.commit,
            "files": list(self.files),
            "kept_card": self.kept_card,
        }


def push_release(path: Path, name: str, *, public: bool = False) -> PushedRelease:
    """Put the files of a manifest's release into the data set NAME (USER/NAME) in one commit, which
    takes out those of an earlier release. A data set that is not there is made, private unless
    `public`; one that is there stays as visible as it is.

    Who asks is told by huggingface_hub's own token (HF_TOKEN, or `hf auth login`). Raises
    InputError where the name or the manifest is none, OperationError where the hub does not take
    it.
    """
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise InputError(f"{excerpt(name, 100)} names no data set: give USER/NAME") from None
    manifest, digest = load_manifest(path)
    try:
        return _push(HfApi(), path.parent, name, manifest, digest=digest, public=public)
    except HfHubHTTPError as error:
        raise OperationError(
            f"the hub does not take {name} ({_explain(error)}); the release is still in "
            f"{path.parent}: push it again"
        ) from None
    except HTTPError as error:
        raise OperationError(
            f"the hub cannot be reached ({type(error).__name__}); the release is still in "
            f"{path.parent}: push it again"
        ) from None


def _push(
    api: HfApi, folder: Path, name: str, manifest: Manifest, *, digest: str, public: bool
) -> PushedRelease:
    api.create_repo(name, repo_type="dataset", private=not public, exist_ok=True)
    there = api.list_repo_files(name, repo_type="dataset")
    names = [file.name for file in manifest.files] + [MANIFEST_NAME]
    if (folder / SIGNED_NAME).is_file():
        names.append(SIGNED_NAME)
    changes: list[CommitOperationAdd | CommitOperationDelete] = []
    for each in names:
        changes.append(CommitOperationAdd(each, folder / each))
    has_card = CARD_NAME in there
    if not has_card:
        changes.append(CommitOperationAdd(CARD_NAME, _write_card(manifest, digest).encode()))
    for each in there:
        # Of an earlier release: it would be read with this one.
        if _is_of_release(each) and each not in names:
            changes.append(CommitOperationDelete(each))
    message = f"Release {digest[:12]} by Poisonwatch"
    made = api.create_commit(name, changes, commit_message=message, repo_type="dataset")
    return PushedRelease(
        url=f"{api.endpoint}/datasets/{name}",
        commit=str(made.oid),
        files=tuple(names),
        kept_card=has_card,
    )


def _is_of_release(name: str) -> bool:
    suffix = Path(name).suffix
    is_clean = name.startswith(CLEAN_PREFIX) and suffix in (".jsonl", ".parquet")
    return is_clean or name in (MANIFEST_NAME, SIGNED_NAME)


def _write_card(manifest: Manifest, digest: str) -> str:
    """The card: a configuration a file, since files of a release do not go together."""
    configs = ""
    for file in manifest.files:
        configs += f"- config_name: {Path(file.name).stem}-{Path(file.name).suffix[1:]}\n"
        configs += f"  data_files: {file.name}\n"
        if file is manifest.files[0]:
            configs += "  default: true\n"
    return CARD.format(configs=configs, rows=f"{len(manifest.rows):,}", digest=digest)


def _explain(error: HfHubHTTPError) -> str:
    """What the hub answered, without the request, which may hold a token."""
    status = error.response.status_code
    hints = {401: "no token that it knows: set HF_TOKEN", 403: "the token may not write there"}
    return f"it answered {status}" + (f", {hints[status]}" if status in hints else "")
