"""Which tests start something: a server, a browser, another process, a whole audit. `make quick`
leaves these out. Read off their code, so that no test has to say it.
"""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

TESTS = Path(__file__).parent.parent
# of what a test names: modules, by the package that they belong to, and functions
PACKAGES = {
    "aiosmtpd",
    "moto",
    "multiprocessing",
    "nbclient",
    "playwright",
    "ray",
    "subprocess",
    "uvicorn",
}
FUNCTIONS = {
    "audit_inline",
    "drill_inline",
    "fork",
    "http_receiver",
    "mlflow_server",
    "mlflow_store",
    "own_postgres_server",
    "postgres_server",
    "prefect_server",
    "smtp_receiver",
    "web_server",
    "write_audit",
}


# What was looked through to its end, and starts nothing: most of it by every test that is asked.
_harmless: set[CodeType] = set()


def starts_something(item: pytest.Item) -> bool:
    """Whether a test, one of its fixtures, or what these call of the tests' own code does."""
    fixtures = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
    functions = [item.function]  # type: ignore[attr-defined]
    for definitions in fixtures.values():
        functions += [definition.func for definition in definitions]
    return any(_starts(function) for function in functions)


@cache
def _starts(function: Callable[..., Any]) -> bool:
    seen: set[CodeType] = set()
    if names_a_starter(function, seen):
        return True
    _harmless.update(seen)
    return False


def names_a_starter(function: Callable[..., Any], seen: set[CodeType]) -> bool:
    """Whether a function does, or one of the tests' own that it names, but for those `seen`."""
    while not isinstance(function, FunctionType):
        function = getattr(function, "__wrapped__", None) or getattr(function, "__func__", None)
        if function is None:
            return False
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None and names_a_starter(wrapped, seen):
        return True
    if function.__code__ in seen or function.__code__ in _harmless:
        return False
    if TESTS not in Path(function.__code__.co_filename).parents:
        return False
    seen.add(function.__code__)
    for name in _list_names(function.__code__):
        if name in FUNCTIONS or name in PACKAGES:
            return True
        found = function.__globals__.get(name)
        if _is_starter(found):
            return True
        if isinstance(found, type):
            members = [each for each in vars(found).values() if isinstance(each, FunctionType)]
            if any(names_a_starter(member, seen) for member in members):
                return True
        elif callable(found) and names_a_starter(found, seen):
            return True
    return False


def _is_starter(found: object) -> bool:
    module = found.__name__ if isinstance(found, ModuleType) else getattr(found, "__module__", "")
    return str(module).partition(".")[0] in PACKAGES


def _list_names(code: CodeType) -> Iterator[str]:
    """What a function and those within it name, whether of their module or of an object."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _list_names(constant)
