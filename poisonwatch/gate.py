"""The gate for training code: `from poisonwatch.gate import require_cleared`; and in a notebook,
where the module can be called: `pw.gate("release/manifest.json")`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from poisonwatch.release.answer import GateAnswer
from poisonwatch.release.gate import check_cleared, require_cleared

__all__ = ["gate", "require_cleared"]


def gate(
    paths: str | Path | Sequence[str | Path],
    *,
    audit: str | Path | None = None,
    keys: Sequence[str | Path] | None = None,
    head: str | None = None,
) -> GateAnswer:
    """Whether every row of manifests, files, folders, globs and URLs is cleared:

        pw.gate("release/manifest.json", audit="audit.yaml").cleared

    Data are asked for in the ledger of the `audit` file; a manifest can be asked alone. What clears
    a row must be signed by one of `keys` (files of public ones), by default those that the audit
    file names, if any; `head` is the NUMBER:HASH that the ledger's chain must go through.

    Raises InputError where there are no rows, data come without an audit file, no audit has run,
    or the ledger was tampered with.
    """
    given = [paths] if isinstance(paths, (str, Path)) else paths
    return check_cleared(given, audit, keys=keys, head=head)


class _Gate(ModuleType):
    """`pw.gate` is this module, once anything has imported it: it answers as the function."""

    __call__ = staticmethod(gate)


sys.modules[__name__].__class__ = _Gate
