"""The command line: which commands there are, and what becomes of their errors and exit codes.

What a command's help says stands in the docstring of its function, and ends in an example. It is
read from the source: a module of commands is imported when one of them runs, and what is heavy when
that command needs it, so that neither `--help` nor whoever only asks the ledger waits for torch.
"""

import ast
import errno
import functools
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from cyclopts import App

import poisonwatch
from poisonwatch import interrupt
from poisonwatch.errors import PoisonwatchError
from poisonwatch.flows.homes import find_homes, name_user
from poisonwatch.flows.proxies import spare_loopback
from poisonwatch.permissions import restrict_process

# as shells call what a signal ended: 128 and its number
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

# What a full disk says, and a quota that is used up.
FULL = (errno.ENOSPC, errno.EDQUOT)

# The modules of commands, below `poisonwatch`: each public function with an example is a command.
# By their names, since flows and dashboards do not import each other.
MODULES = (
    "flows.cli.init",
    "flows.cli.check",
    "flows.cli.audit",
    "flows.cli.discover",
    "flows.cli.probe",
    "flows.cli.decide",
    "flows.cli.ledger",
    "flows.cli.lineage",
    "flows.cli.push",
    "flows.cli.provenance",
    "flows.cli.export",
    "flows.cli.mutes",
    "flows.cli.verify",
    "flows.cli.service",
    "flows.cli.status",
    "flows.cli.upgrade",
    "flows.cli.prune",
    "dashboards.command",
    "dashboards.team_command",
)
# Modules whose commands are of two words, the first of which they share: `keys init`.
GROUPS = {"keys": "flows.cli.keys", "users": "dashboards.users_command"}
GROUP_HELP = {
    "keys": "Make keys that sign what audits and people say, and see what is signed.",
    "users": "Say who may come into the dashboard, and what they may do there.",
}

app = App(
    name="poisonwatch",
    version=poisonwatch.__version__,
    # `main` says what became of the work
    suppress_keyboard_interrupt=False,
    help="Find planted rows in fine-tuning data, before you train on it.\n\n"
    "Exit codes: 0 nothing flagged, 3 something flagged, 2 bad usage or input, 130 interrupted, "
    "143 told to end (SIGTERM), 1 anything else.",
    help_epilogue="Example: `poisonwatch demo /tmp/poisonwatch-demo`",
)


def read_commands(module: str) -> Iterator[tuple[str, str, str]]:
    """Name, help and example of the commands in a module below `poisonwatch`, without importing it:
    of functions whose docstring ends in a paragraph `Example: ...`.
    """
    for node in _parse(module).body:
        if isinstance(node, ast.FunctionDef):
            about, _, last = (ast.get_docstring(node) or "").rpartition("\n\n")
            if last.startswith("Example: "):
                yield node.name, about, last


def _parse(module: str) -> ast.Module:
    path = Path(poisonwatch.__file__).parent / f"{module.replace('.', '/')}.py"
    return ast.parse(path.read_text(encoding="utf-8"))


def add_commands(app: App, module: str) -> None:
    """Make the commands of a module known, by `read_commands`."""
    for name, about, example in read_commands(module):
        app.command(
            f"poisonwatch.{module}:{name}",
            name=name.replace("_", "-"),
            help=about,
            # an epilogue is shown last, while cyclopts puts the docstring itself before the options
            help_epilogue=example,
        )


for _module in MODULES:
    add_commands(app, _module)
for _word, _module in GROUPS.items():
    _group = App(name=_word, help=GROUP_HELP[_word])
    add_commands(_group, _module)
    app.command(_group)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: 0 nothing flagged, 2 bad usage or input, 3 something flagged, 1
    anything else.
    """
    interrupt.install_handler()
    sys.excepthook = functools.partial(_tell_of_crash, arguments)
    try:
        restrict_process()
        name_user()
        find_homes()
        spare_loopback()
        with interrupt.unwrapped():
            code = app(arguments, result_action="return_value")
        sys.stdout.flush()
    except PoisonwatchError as error:
        complain(str(error))
        code = error.exit_code
    except interrupt.Terminated:
        complain("told to end (SIGTERM); nothing was left half-written")
        code = EXIT_TERMINATED
    except KeyboardInterrupt:
        complain("interrupted; nothing was left half-written")
        code = EXIT_INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _has_reader_gone():
            # Whoever reads the output, such as head, has seen enough. Without this the interpreter
            # complains when it flushes at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        complain(_describe_unexpected(error, arguments))
        code = 1
    # Asked of sys.modules, since a command that never started a flow must not import Prefect here.
    launch = sys.modules.get("poisonwatch.flows.launch")
    if launch is not None and launch.connection.lost:
        sys.stdout.flush()
        os._exit(code or 0)
    sys.exit(code or 0)


def _has_reader_gone() -> bool:
    """Whether nobody reads the output any more: a server that went away breaks a pipe, too."""
    watched = select.poll()
    watched.register(sys.stdout, 0)
    return bool(watched.poll(0))


def _describe_unexpected(error: BaseException, arguments: list[str] | None) -> str:
    """The line of an error that nothing of ours raised: what the system says of a file, or where
    the traceback is.
    """
    if isinstance(error, OSError):
        if error.errno in FULL:
            place = error.filename or "no file named"
            return f"the disk is full ({place}): free space and run again"
        # A folder where a file should be, and the like: the user's to mend, and no fault of ours.
        if error.filename is not None:
            what = error.strerror or type(error).__name__
            return f"{what} ({error.filename}): check the path and its permissions and run again"
        if "temporary directory" in str(error):
            return "no folder for temporary files can be written: name one that can in TMPDIR"
    if isinstance(error, MemoryError):
        return "there is not enough memory: end other programs, or take a machine with more"
    from poisonwatch.flows.cli.crash import write_crash

    return write_crash(error, sys.argv[1:] if arguments is None else arguments)


def _tell_of_crash(
    arguments: list[str] | None,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
) -> None:
    """What `main` lets through, as where a signal comes while it already says what happened."""
    if not issubclass(kind, Exception):
        return sys.__excepthook__(kind, error, trace)
    return complain(_describe_unexpected(error, arguments))


def complain(message: str) -> None:
    """One line on stderr; row text and addresses in it can harm neither the terminal nor a log."""
    from poisonwatch.text.display import make_visible
    from poisonwatch.text.redaction import redact_url

    print(f"poisonwatch: {make_visible(redact_url(' '.join(message.split())))}", file=sys.stderr)
