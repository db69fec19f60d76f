"""The stages of an audit, and of a drill, by number, in words that a newcomer knows."""

# What a person is told, and the tasks that it stands for.
Stages = tuple[tuple[str, tuple[str, ...]], ...]

# Tasks of `flows/audit.py`.
STAGES: Stages = (
    ("reading rows", ("pull",)),
    ("checking rows", ("validate", "pull_reference")),
    ("loading the model", ("load_model",)),
    ("looking for telling texts", ("check_sentinels", "screen", "add_copies")),
    ("measuring what each row does", ("fit_operators",)),
    ("judging rows", ("recover", "judge")),
    ("looking at flagged rows again", ("gather_evidence", "find_near_copies")),
    ("writing results", ("record", "explain_verdicts")),
)

# Tasks of `flows/drill.py`.
DRILL_STAGES: Stages = (
    ("reading rows", ("pull_all",)),
    ("checking rows", ("validate", "pull_reference")),
    ("loading the model", ("load_model",)),
    ("planting attacks", ("look_up_verdicts", "plant")),
    ("measuring what each row does", ("fit_planted",)),
    ("auditing again and again", ("rehearse",)),
    ("writing results", ("record_drill", "track_drill")),
)


def find_stage(task: str, stages: Stages = STAGES) -> tuple[int, str] | None:
    """The stage that a task belongs to, by number and words; None of a task that takes no time."""
    for number, (words, tasks) in enumerate(stages, start=1):
        if task in tasks:
            return number, words
    return None


def describe_stage(task: str, stages: Stages = STAGES) -> str | None:
    """The same in one line, as in "5 of 8: measuring what each row does"."""
    found = find_stage(task, stages)
    return f"{found[0]} of {len(stages)}: {found[1]}" if found else None
