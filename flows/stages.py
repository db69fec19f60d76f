"""The stages of an audit by number, in words that a newcomer knows."""

# What a person is told, and the tasks of `flows/audit.py` that it stands for.
STAGES = (
    ("reading rows", ("pull",)),
    ("checking rows", ("validate", "pull_reference")),
    ("loading the model", ("load_model",)),
    ("looking for telling texts", ("check_sentinels", "screen", "add_probes")),
    ("measuring what each row does", ("fit_operators",)),
    ("judging rows", ("recover", "judge")),
    ("looking at flagged rows again", ("gather_evidence", "find_near_copies")),
    ("writing results", ("record", "explain_verdicts")),
)


def describe_stage(task: str) -> str | None:
    """The stage that a task belongs to, as in "5 of 8: measuring what each row does"; None of a
    task that takes no time.
    """
    for number, (words, tasks) in enumerate(STAGES, start=1):
        if task in tasks:
            return f"{number} of {len(STAGES)}: {words}"
    return None
