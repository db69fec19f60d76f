"""Everything Poisonwatch raises on purpose.

PoisonwatchError
├── InputError               what the user gave cannot be used; exit code 2
│   ├── ConfigError          the audit file
│   ├── SourceError          the rows, or the place they come from
│   ├── SentinelError        the sentinel file
│   ├── ModelError           the language model
│   └── RunError             the run directory of a past audit
├── NotClearedError          rows that are to be trained on are not cleared; exit code 3
└── OperationError           the world got in the way (disk full, server gone); exit code 1
    └── SigningError         a signature could not be made

A message says what was got, what is allowed and what to do, in one line.
"""


class PoisonwatchError(Exception):
    """Base of every error raised on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(PoisonwatchError):
    """What the user gave cannot be used."""

    exit_code = 2


class ConfigError(InputError):
    """The audit file is missing, unreadable, or asks for something that does not exist."""


class SourceError(InputError):
    """The rows cannot be found or read, or too many of them are unusable."""


class SentinelError(InputError):
    """A sentinel file is missing, unreadable, or holds a sentinel that cannot be measured."""


class ModelError(InputError):
    """The model cannot be found, loaded, or split."""


class RunError(InputError):
    """A run directory is missing, incomplete, or of another model."""


class NotClearedError(PoisonwatchError):
    """A training job asked for rows that no audit cleared, or that are in quarantine."""

    # The code of an audit that flagged something, too: rows are held back, nothing is broken.
    exit_code = 3


class OperationError(PoisonwatchError):
    """A disk, a server or the network failed while the audit ran."""


class SigningError(OperationError):
    """A statement could not be signed: the command that asks a key service failed."""
