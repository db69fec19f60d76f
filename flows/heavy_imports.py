"""Packages that take long to import: of an audit 7,500 modules, ten seconds."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import them without looking for garbage meanwhile, nor among what they leave afterwards: a
    million objects that stay were looked through again and again, for a sixth of the time.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
