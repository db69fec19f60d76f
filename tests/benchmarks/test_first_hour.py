"""What plays the first hour: commands that there are, in a terminal of 80 columns."""

import re
import shlex
from pathlib import Path

from first_hour import COLUMNS, COMMANDS, describe_command, fold, play, wrap
from paths import ROOT

from poisonwatch.flows.cli.app import app

PAGE = (ROOT / "docs" / "first-hour.md").read_text(encoding="utf-8")


def test_commands_that_are_played_can_be_given() -> None:
    """Each with its options, as the shell takes them from the page, too."""
    for _, command in COMMANDS:
        program, *words = shlex.split(command)
        assert program == "poisonwatch"
        app.parse_args(words, print_error=False, exit_on_error=False)
        joined = "\n".join(wrap(command)).replace("\\\n", "")  # as the shell does
        assert shlex.split(joined) == shlex.split(command)


def test_what_a_terminal_shows_is_written_down(tmp_path: Path) -> None:
    """As its last state has it, without its folder, with exit code; a real terminal."""
    command = "pwd; stty size <&1; printf 'over\\rwritten\\n'; exit 3"
    shown, code, seconds = play(command, tmp_path)
    assert shown == f".\n40 {COLUMNS}\nwritten"
    assert "Exit code 3, under a second." in describe_command("x", "true", shown, code, 0.1)
    assert seconds > 0


def test_lines_are_as_wide_as_a_terminal() -> None:
    """A longer one goes on below; an empty one stays."""
    assert fold("x" * 81 + "\n\ny") == "x" * 80 + "\nx\n\ny"


def test_the_page_has_every_command_and_nothing_wider_than_the_terminal() -> None:
    """In order; of the machine that played it no path is there."""
    places = [PAGE.index("\n".join(wrap(f"$ {command}"))) for _, command in COMMANDS]
    assert places == sorted(places)
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == len(COMMANDS)
    assert [line for block in blocks for line in block.splitlines() if len(line) > COLUMNS] == []
    assert not re.search(r"/(tmp|home|root|work)/", PAGE)
