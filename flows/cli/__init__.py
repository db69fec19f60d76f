"""The command line, a module a group of commands. `main` is here for the console script, and
imports nothing until it runs.
"""


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit; see `poisonwatch.flows.cli.app.main`."""
    from poisonwatch.flows.cli.app import main as run

    run(arguments)
