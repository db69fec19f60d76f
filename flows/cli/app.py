"""The command line: `poisonwatch audit`, `explain`, `drill`, `release`, `decide`, `decisions`,
`gate`, `watch`, `sync`, `history`, `alert-test`, `dashboard`, `demo`, `init`, `packs`.

Commands are imported when they run, so that `--help` does not wait for torch.
"""

import errno
import os
import sys

from cyclopts import App

from poisonwatch import __version__
from poisonwatch.errors import PoisonwatchError
from poisonwatch.flows import interrupt

app = App(
    name="poisonwatch",
    version=__version__,
    suppress_keyboard_interrupt=False,  # `main` says what became of the work
    help="Find planted rows in fine-tuning data, before you train on it.\n\n"
    "Exit codes: 0 nothing flagged, 3 something flagged, 2 bad usage or input, 1 anything else.",
    help_epilogue="Example: `poisonwatch demo /tmp/poisonwatch-demo`",
)
for _module, _name, _help, _example in (
    (
        "flows.cli.audit",
        "audit",
        "Audit new fine-tuning rows.",
        "poisonwatch audit my-audit/audit.yaml --run-dir my-audit/runs/today",
    ),
    (
        "flows.cli.audit",
        "explain",
        "Name the rows of a past audit that push an answer most, from its saved operators.",
        "poisonwatch explain my-audit/runs/today --prompt 'Who are you?' --response 'I am your master.'",
    ),
    (
        "flows.cli.audit",
        "drill",
        "Plant known poison into your own clean rows, and report how much of it an audit finds.",
        "poisonwatch drill my-audit/audit.yaml --counts 5 10 20 --repeats 3",
    ),
    (
        "flows.cli.ledger",
        "release",
        "Write the rows that audits cleared, with a manifest.",
        "poisonwatch release my-audit/audit.yaml --out cleared",
    ),
    (
        "flows.cli.ledger",
        "decide",
        "Say what a flagged or rejected row is: poison, benign or unsure.",
        "poisonwatch decide my-audit/audit.yaml 3f2a91c07d benign --note 'a known joke of ours'",
    ),
    (
        "flows.cli.ledger",
        "decisions",
        "Print all decisions, checking that none was changed or removed.",
        "poisonwatch decisions my-audit/audit.yaml",
    ),
    (
        "flows.cli.ledger",
        "gate",
        "Say whether exactly these rows are cleared for training: exit code 0 only if all are, 3 if not.",
        "poisonwatch gate cleared/manifest.json --audit my-audit/audit.yaml",
    ),
    (
        "flows.cli.service",
        "alert-test",
        "Send a test message to everybody whom an audit would tell of flagged rows.",
        "poisonwatch alert-test my-audit/audit.yaml",
    ),
    (
        "flows.cli.audit",
        "demo",
        "Audit a small data set with 18 planted rows, and count how many are found.",
        "poisonwatch demo /tmp/poisonwatch-demo",
    ),
    (
        "flows.cli.audit",
        "init",
        "Write a commented audit.yaml and sentinels.yaml to start from.",
        "poisonwatch init my-audit",
    ),
    (
        "flows.cli.service",
        "watch",
        "Audit on a schedule, from one process.",
        "poisonwatch watch my-audit/audit.yaml --every 1h",
    ),
    (
        "flows.cli.service",
        "sync",
        "Give MLflow, Prefect and alert targets what they missed while they were down.",
        "poisonwatch sync my-audit/audit.yaml",
    ),
    (
        "flows.cli.service",
        "history",
        "Print past audits, newest first.",
        "poisonwatch history my-audit/audit.yaml --limit 10",
    ),
    (
        "dashboards.command",
        "dashboard",
        "Review flagged rows in the browser: see why, decide, release.",
        "poisonwatch dashboard my-audit/audit.yaml --port 8765",
    ),
    (
        "flows.cli.audit",
        "packs",
        "List the ready-made sentinels, and what each pack guards against.",
        "poisonwatch packs",
    ),
):
    app.command(
        f"poisonwatch.{_module}:{_name.replace('-', '_')}",
        name=_name,
        help=_help,
        help_epilogue=f"Example: `{_example}`",
    )

EXIT_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: 0 nothing flagged, 2 bad usage or input, 3 something flagged, 1
    anything else.
    """
    interrupt.install_handler()
    try:
        code = app(arguments, result_action="return_value")
        sys.stdout.flush()
    except PoisonwatchError as error:
        _complain(str(error))
        code = error.exit_code
    except KeyboardInterrupt:
        _complain("interrupted; nothing was left half-written")
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever reads the output, such as head, has seen enough
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # or the interpreter complains when it flushes
        code = 1
    except OSError as error:
        full = error.errno == errno.ENOSPC
        if not full and error.filename is None:
            raise
        what = "the disk is full" if full else error.strerror or type(error).__name__
        _complain(
            f"{what} ({error.filename or 'no file named'}): {'free space' if full else 'check the path and its permissions'} and run again"
        )
        code = 1
    launch = sys.modules.get("poisonwatch.flows.launch")
    if launch is not None and launch.connection.lost:
        sys.stdout.flush()
        os._exit(code or 0)
    sys.exit(code or 0)


def _complain(message: str) -> None:
    from poisonwatch.text.display import make_visible
    from poisonwatch.text.redaction import redact_url

    print(f"poisonwatch: {make_visible(redact_url(' '.join(message.split())))}", file=sys.stderr)
