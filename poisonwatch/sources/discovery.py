"""Which files a path stands for: a file, a folder with all that is below it, or a glob of both; and
what lies there and is passed over.

Names that begin with . or _ are hidden, here as for Spark, pyarrow and `datasets`; a file that is
named itself is read whatever its name. A folder that `datasets` saved is read as it says itself.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from poisonwatch.errors import SourceError
from poisonwatch.sources.base import RELATIVE_PATHS, PassedOver, tell_to_check
from poisonwatch.sources.file_types import detect_file_type, list_file_types
from poisonwatch.sources.llama_factory import Settings, is_catalogue, read_catalogue
from poisonwatch.sources.looking import Looker
from poisonwatch.sources.saved import (
    ACCOUNTS,
    DESCRIPTIONS,
    INFO,
    MANIFEST_NAME,
    MANIFEST_START,
    MAX_DESCRIPTION_BYTES,
    SPLITS,
    STATE,
    list_data_files,
    list_splits,
    parse_description,
)
from poisonwatch.sources.side_files import (
    HIDDEN,
    TOOL_FOLDERS,
    describe_hidden,
    explain_name,
    is_hidden,
)
from poisonwatch.sources.trees import Listing, Tree

MAX_NAMED = 3  # things passed over that an error names
_CATALOGUE = (
    "LLaMA-Factory's list of data sets: its columns and tags say how they are read, unless "
    "`source.format` or `source.fields` does"
)
# A character of patterns that stands for itself.
_ESCAPED = re.compile(r"\[([*?[])\]")
_DESCRIPTION = "describes a data set and holds no rows"


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of rows: its `path` as it was found, the `name` that stands for it in results, its
    `place` (the path without links to folders), where the path leads (`target`), what the file
    system tells of it, by what it is sorted, and the `settings` by which its folder says it is
    read.
    """

    path: str
    name: str
    place: str
    target: str
    info: Mapping[str, Any]
    order: tuple[str, int]
    settings: Settings | None = None


class Discovery:
    """What is found in a tree.

    `name_path` gives the name that stands for a path in results, `asked` are patterns of hidden
    names that a glob asks for, and `split` is the only one that is read of a saved DatasetDict.
    """

    def __init__(
        self,
        tree: Tree,
        name_path: Callable[[str], str],
        asked: Sequence[str] = (),
        split: str | None = None,
        web: bool = False,
    ) -> None:
        self._tree = tree
        self._looker = Looker(tree, name_path)
        self._name = name_path
        self._asked = asked
        self._split = split
        self._web = web
        self._walked: set[str] = set()  # folders, without links
        self._settings: dict[str, Settings] = {}  # by the path of a file or folder
        self._folders: dict[str, str] = {}  # where they are without links
        self._found: dict[str, FoundFile] = {}
        self._passed_over: dict[str, PassedOver] = {}

    @property
    def found(self) -> list[FoundFile]:
        """The files of rows, sorted by name; of a saved data set, in its own order."""
        return sorted(self._found.values(), key=lambda file: file.order)

    @property
    def passed_over(self) -> list[PassedOver]:
        """The rest, sorted by name."""
        # A glob may ask for what the folder around it would pass over.
        found = {file.name for file in self._found.values()}
        rest = [one for one in self._passed_over.values() if one.name not in found]
        return sorted(rest, key=lambda one: one.name)

    def add_file(self, path: str, info: Mapping[str, Any]) -> None:
        """A file that was named itself."""
        self._find(path, info)

    def add_match(self, base: str, path: str, info: Mapping[str, Any]) -> None:
        """A file or folder that a glob below the folder `base` matches."""
        here = base
        *folders, last = path.removeprefix(base).strip("/").split("/")
        for name in folders:
            here = f"{here.rstrip('/')}/{name}"
            if self._pass_folder(here, name):
                return
        if not self._tree.is_folder(path, info):
            self._add_by_name(path, last, info)
        elif not self._pass_folder(path, last):
            self.add_folder(path)

    def add_folder(self, path: str) -> None:
        """A folder with all that is below it. Raises SourceError where a link leads out of the
        source, or a saved data set is not complete, and OSError where a folder cannot be read.
        """
        folders, links = [path], list[str]()
        while folders or links:
            # A file has the name that needs no link, where it has one.
            is_link = not folders
            folder = (folders or links).pop(0)
            name = self._name(folder)
            target = self._tree.resolve(folder, name)
            if target not in self._walked:
                self._walked.add(target)
                listing = self._tree.list_folder(folder)
                below = self._add_listing(folder, listing)
                folders += [one for one in below if one not in listing.links.values()]
                links += [one for one in below if one in listing.links.values()]
            elif is_link:
                self._pass(folder, "a link to a folder that is read by another name", False)

    def _add_listing(self, folder: str, listing: Listing) -> list[str]:
        """The files of one folder. Returns the folders and links in it that are to be read."""
        described = self._read_descriptions(folder, listing)
        # One that names no files says nothing of those that are there.
        if STATE in described and described[STATE]["_data_files"]:
            self._add_saved(folder, listing, described[STATE])
            return []
        if SPLITS in described:
            return self._add_splits(folder, listing, described[SPLITS])
        for name, record in described.items():
            if name == INFO and is_catalogue(record):
                self._add_catalogue(folder, record)
            else:
                self._pass(_join(folder, name), _DESCRIPTION, False)
        accounts = self._find_accounts(folder, listing)
        for name, info in listing.files.items():
            if name in accounts:
                self._pass(_join(folder, name), "an account of a release", True)
            elif name not in described:
                self._add_by_name(_join(folder, name), name, info)
        below = []
        for name, path in (listing.folders | listing.links).items():
            if not self._pass_folder(path, name):
                below.append(path)
        return below

    def _find_accounts(self, folder: str, listing: Listing) -> tuple[str, ...]:
        """What stands beside the cleared rows in the folder of a release; nothing elsewhere."""
        if MANIFEST_NAME not in listing.files:
            return ()
        path = _join(folder, MANIFEST_NAME)
        head = self._tree.read_head(path, self._name(path), len(MANIFEST_START))
        if head != MANIFEST_START:
            return ()
        return ACCOUNTS

    def _add_catalogue(self, folder: str, record: Mapping[str, Any]) -> None:
        catalogue = read_catalogue(record)
        for file, settings in catalogue.settings.items():
            self._settings[_join(folder, file)] = settings
        reason = _CATALOGUE
        if catalogue.problems:
            reason = f"LLaMA-Factory's list of data sets: {catalogue.problems[0]}"
        elif catalogue.ignored:
            reason += f" (not followed: {', '.join(catalogue.ignored[:MAX_NAMED])})"
        self._pass(_join(folder, INFO), reason, bool(catalogue.problems))

    def _read_descriptions(self, folder: str, listing: Listing) -> dict[str, Mapping[str, Any]]:
        found = {}
        for name in DESCRIPTIONS:
            if name not in listing.files:
                continue
            record = self._read_description(_join(folder, name), name)
            if record is not None:
                found[name] = record
        return found

    def _read_description(self, path: str, name: str) -> Mapping[str, Any] | None:
        content = self._tree.read_head(path, self._name(path), MAX_DESCRIPTION_BYTES)
        return parse_description(name, content)

    def _add_saved(self, folder: str, listing: Listing, state: Mapping[str, Any]) -> None:
        """A folder that Dataset.save_to_disk wrote: the files that its state.json names."""
        shown = self._name(folder)
        data_files = list_data_files(state, shown)
        for number, name in enumerate(data_files):
            if name not in listing.files or detect_file_type(name)[0] != ".arrow":
                raise SourceError(
                    f"{shown} is not complete: its {STATE} names {name!a}, which is no .arrow file "
                    "in it; save the data set again"
                )
            self._find(_join(folder, name), listing.files[name], (f"{shown}/", number))
        self._pass_rest(folder, listing, {*data_files})

    def _add_splits(
        self, folder: str, listing: Listing, description: Mapping[str, Any]
    ) -> list[str]:
        """The splits that are read of a folder that DatasetDict.save_to_disk wrote."""
        shown = self._name(folder)
        splits = list_splits(description, shown)
        folders = listing.folders | listing.links
        missing = [split for split in splits if split not in folders]
        if missing:
            raise SourceError(
                f"{shown} is not complete: its {SPLITS} names the split {missing[0]!a}, which is "
                "no folder in it; save the data set again"
            )
        if self._split is not None and self._split not in splits:
            raise SourceError(
                f"{shown} has no split {self._split}: `source.split` may be {', '.join(splits)}, "
                "or left out for all of them"
            )
        self._pass_rest(folder, listing, {*splits})
        wanted = []
        for split in splits:
            if self._split in (None, split):
                wanted.append(folders[split])
            else:
                self._pass(folders[split], f"another split than {self._split}", False)
        return wanted

    def _pass_rest(self, folder: str, listing: Listing, used: set[str]) -> None:
        """Pass over what stands beside the files or splits of a saved data set."""
        for name in listing.files:
            if name in used:
                continue
            path = _join(folder, name)
            # `datasets` keeps what `map` and `filter` gave beside the data: other rows.
            reason = "beside a saved data set, and none of its files"
            if name.startswith(("cache-", "tmp")) and name.endswith(".arrow"):
                reason = "what `datasets` keeps of earlier work"
            passing = explain_name(name)
            if name in DESCRIPTIONS and self._read_description(path, name) is not None:
                self._pass(path, _DESCRIPTION, False)
            elif passing is None:
                self._pass(path, reason, True)
            else:
                self._pass(path, reason, self._looker.look(path, name, passing)[1])
        for name, path in (listing.folders | listing.links).items():
            if name not in used and not self._pass_folder(path, name):
                may_hold_rows = self._looker.may_folder_hold_rows(path)
                self._pass(path, "beside a saved data set", may_hold_rows)

    def _add_by_name(self, path: str, name: str, info: Mapping[str, Any]) -> None:
        passing = explain_name(name, self._asked, self._web)
        if name in DESCRIPTIONS and self._read_description(path, name) is not None:
            self._pass(path, _DESCRIPTION, False)
        elif passing is None:
            self._find(path, info)
        else:
            self._pass(path, *self._looker.look(path, name, passing))

    def _find(
        self, path: str, info: Mapping[str, Any], order: tuple[str, int] | None = None
    ) -> None:
        shown = self._name(path)
        # A link that leads into a folder above it shows the same file again and again; a link to
        # another file is a file of its own, as for whoever trains on the folder.
        folder, _, name = path.rpartition("/")
        same = _join(self._resolve_folder(folder), name)
        target = same
        if info.get("islink") is not False:
            target = self._tree.resolve(path, shown)
        self._found.setdefault(
            same,
            FoundFile(
                path,
                shown,
                same,
                target=target,
                info=info,
                order=order or (shown, 0),
                settings=self._find_settings(path),
            ),
        )

    def _resolve_folder(self, folder: str) -> str:
        """Where a folder is without links; asked once, for it may hold a million files."""
        if folder not in self._folders:
            self._folders[folder] = self._tree.resolve(folder or "/", self._name(folder))
        return self._folders[folder]

    def _find_settings(self, path: str) -> Settings | None:
        """How a file is read, as the folder of the data set says that it is or lies in."""
        while self._settings and path:
            if path in self._settings:
                return self._settings[path]
            path = path.rpartition("/")[0]
        return None

    def _pass(self, path: str, reason: str, may_hold_rows: bool) -> None:
        name = self._name(path)
        self._passed_over.setdefault(name, PassedOver(name, reason, may_hold_rows))

    def _pass_folder(self, path: str, name: str) -> bool:
        """Whether a folder is passed over, which then is noted."""
        is_asked = name.startswith(HIDDEN) and not is_hidden(name, self._asked)
        if name.lower() in TOOL_FOLDERS and not is_asked:
            may_hold_rows = self._looker.may_tool_folder_hold_rows(path)
            self._pass(path, "a folder that a tool keeps for itself", may_hold_rows)
            return True
        if is_hidden(name, self._asked):
            may_hold_rows = self._looker.may_folder_hold_rows(path)
            self._pass(path, describe_hidden(name), may_hold_rows)
            return True
        return False


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def split_glob(pattern: str) -> tuple[str, list[str]]:
    """The folder that a glob starts in, and the names in it that ask for hidden files."""
    parts = pattern.split("/")
    first = 0
    while set("*?[").isdisjoint(_ESCAPED.sub("", parts[first])):
        first += 1
    asked = [part for part in parts[first:] if part.startswith(HIDDEN)]
    folder = "/".join(_ESCAPED.sub(r"\1", part) for part in parts[:first])
    return folder or "/", asked


def make_no_match_error(shown: str, key: str) -> SourceError:
    """The error of a glob that nothing matches: what was looked for, and where."""
    parts = shown.split("/")
    first = next((k for k, part in enumerate(parts) if not set("*?[").isdisjoint(part)), 0)
    wanted, folder = "/".join(parts[first:]), "/".join(parts[:first])
    where = f" in {folder}" if folder else ""
    return SourceError(f"no file matches {wanted}{where}: {tell_to_check(key)} {RELATIVE_PATHS}")


def make_nothing_found_error(
    shown: str, passed_over: Sequence[PassedOver], key: str
) -> SourceError:
    """The error of a folder or glob without a file of rows: what is there instead."""
    there = "nothing in it"
    if passed_over:
        named = [f"{one.name} ({one.reason})" for one in passed_over[:MAX_NAMED]]
        there = "passed over: " + "; ".join(named)
    if len(passed_over) > MAX_NAMED:
        there += f"; and {len(passed_over) - MAX_NAMED} more"
    return SourceError(
        f"{shown} holds no file of rows ({there}): names must end in one of {list_file_types()}; "
        f"texts may be compressed, as in .jsonl.gz ({tell_to_check(key)})"
    )
