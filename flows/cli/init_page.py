"""What `poisonwatch init` prints: what was found and proposed, and what was written. It fits 80
columns; row text is hostile, and all of it is made visible.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from poisonwatch.detection.trusted import LEAST_TRUSTED
from poisonwatch.flows.cli.check_page import CheckPage
from poisonwatch.flows.first_audit import ROWS_FOLDER, TRUSTED_FOLDER
from poisonwatch.flows.trusted_split import WORTH, Split, describe_small_batch
from poisonwatch.sentinels.proposals import Proposal
from poisonwatch.text.words import plural


class InitPage(CheckPage):
    """Prints what was found and proposed, and what was written."""

    def show_proposals(
        self, proposals: Sequence[Proposal], chosen: Sequence[str] | None = None
    ) -> None:
        """Packs that go with the rows, and why, those whose values only the user knows last; beside
        them those that were `chosen` instead.
        """
        self._print(Text(""))
        title = "sentinels"
        if chosen is not None:
            self._entry(title, ", ".join(chosen))
            title = "proposed"
        for number, proposal in enumerate(proposals):
            label = title if number == 0 else ""
            if proposal.needs_values and not proposals[number - 1].needs_values:
                label = "or, filled in"
            self._entry(label, f"{proposal.place}  ({proposal.why})")

    def show_reference(self, rows: int) -> None:
        """How many rows were given as trusted, and what fewer than are needed mean."""
        self._print(Text(""))
        self._entry("trusted", f"{plural(rows, 'row')} of yours")
        if rows < LEAST_TRUSTED:
            few = f"it takes {LEAST_TRUSTED}: with fewer, rows are judged against the bulk of all"
            self._entry("warning", few, style="yellow")

    def show_no_split(self, contents: int, wished: int | None) -> None:
        """That no row is trusted, and what that means."""
        self._print(Text(""))
        if wished == 0:
            text = "none: rows are judged against the bulk of all, and flags are a ranking"
        else:
            text = describe_small_batch(contents)
        self._entry("trusted", text, style="yellow")

    def show_split(self, folder: Path, split: Split) -> None:
        """What was set apart, and what that is worth."""
        self._print(Text(""))
        self._entry("audited", f"{plural(split.audited, 'row')} in {folder / ROWS_FOLDER}")
        self._entry("trusted", f"{plural(split.trusted, 'row')} in {folder / TRUSTED_FOLDER}")
        self._entry("warning", WORTH, style="yellow")
        if split.unread:
            unread = f"{plural(split.unread, 'row')} cannot be read, and are in neither"
            self._entry("", unread, style="yellow")

    def show_next(self, config: Path) -> None:
        """What comes next."""
        self._print(Text(""))
        self._entry("wrote", str(config))
        self._print(Text(f"  poisonwatch audit {config} --dry-run    # what it takes here"))
        self._print(Text(f"  poisonwatch audit {config}"))
