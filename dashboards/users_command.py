"""What `poisonwatch users` does: who may come into the dashboard, and what they may do there.

The docstring of a command is its help: what it does, and an example that runs.
"""

import getpass
import sys
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from poisonwatch.dashboards.roles import Role
from poisonwatch.errors import ConfigError, InputError

if TYPE_CHECKING:
    from poisonwatch.dashboards.users import User

ConfigArgument = Annotated[Path, Parameter(help="The audit file (YAML).")]
NameArgument = Annotated[str, Parameter(help="The name, as it stands beside decisions.")]
RoleOption = Annotated[
    Role,
    Parameter(help="viewer: sees; reviewer: decides, too; admin: releases and edits, too."),
]
StdinOption = Annotated[
    bool,
    Parameter(
        negative="", show_default=False, help="Read the password from standard input, one line."
    ),
]
JsonOption = Annotated[
    bool, Parameter(negative="", show_default=False, help="Print it as one JSON object.")
]


def add(
    config: ConfigArgument,
    name: NameArgument,
    /,
    *,
    role: RoleOption = "reviewer",
    password_stdin: StdinOption = False,
    no_password: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="For people whom an identity provider or a reverse proxy logs in.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Let somebody into the dashboard, with a password of their own.

    Names and hashes (Argon2) are in a file beside the audit file, which its owner alone can read.

    Example: `poisonwatch users add my-audit/audit.yaml ann --role reviewer`
    """
    from poisonwatch.dashboards.users import change_users, check_name, fold_name, make_user

    path = _locate(config)
    name = check_name(name)
    # asked for before the file is locked: others need not wait while somebody types
    password = None if no_password else _ask_password(password_stdin)
    user = make_user(name, role, password)
    with change_users(path) as users:
        known = users.get(fold_name(name))
        if known is not None:
            raise InputError(
                f"{known.name} is a user already: give another password with "
                "`poisonwatch users password`, another role with `poisonwatch users role`"
            )
        users[fold_name(name)] = user
    _tell(user, f"{user.name} may come in as {user.role} ({path})", json)


def list(
    config: ConfigArgument,
    /,
    *,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print a JSON object a line.")
    ] = False,
) -> None:
    """Print who may come into the dashboard.

    Example: `poisonwatch users list my-audit/audit.yaml`
    """
    from poisonwatch.dashboards.users import describe_user, read_users

    path = _locate(config)
    users = read_users(path)
    for user in users.values():
        _tell(user, describe_user(user), json)
    if not users and not json:
        print(f"no users yet in {path}: add one with `poisonwatch users add`")


def remove(config: ConfigArgument, name: NameArgument, /, *, json: JsonOption = False) -> None:
    """Let somebody in no more; their logins end at once.

    Example: `poisonwatch users remove my-audit/audit.yaml ann`
    """
    from poisonwatch.dashboards.users import change_users, fold_name

    path = _locate(config)
    with change_users(path) as users:
        user = users.pop(fold_name(name), None)
        if user is None:
            raise InputError(_describe_unknown(path))
    _tell(user, f"{user.name} may not come in any more", json)


def password(
    config: ConfigArgument,
    name: NameArgument,
    /,
    *,
    password_stdin: StdinOption = False,
    json: JsonOption = False,
) -> None:
    """Give somebody another password; their logins end at once.

    Example: `poisonwatch users password my-audit/audit.yaml ann`
    """
    from poisonwatch.dashboards.users import change_users, fold_name, read_users, with_password

    path = _locate(config)
    if fold_name(name) not in read_users(path):
        raise InputError(_describe_unknown(path))
    password = _ask_password(password_stdin)
    with change_users(path) as users:
        user = users.get(fold_name(name))
        if user is None:
            raise InputError(_describe_unknown(path))
        user = users[fold_name(name)] = with_password(user, password)
    _tell(user, f"{user.name} has another password", json)


def role(
    config: ConfigArgument,
    name: NameArgument,
    role: Annotated[Role, Parameter(help="viewer, reviewer or admin.")],
    /,
    *,
    json: JsonOption = False,
) -> None:
    """Give somebody another role; it counts at once.

    Example: `poisonwatch users role my-audit/audit.yaml ann viewer`
    """
    from poisonwatch.dashboards.users import change_users, fold_name

    path = _locate(config)
    with change_users(path) as users:
        user = users.get(fold_name(name))
        if user is None:
            raise InputError(_describe_unknown(path))
        user = users[fold_name(name)] = replace(user, role=role)
    _tell(user, f"{user.name} is {role} now", json)


def _tell(user: "User", sentence: str, as_json: bool) -> None:
    """A user as JSON, or a sentence about them."""
    if not as_json:
        print(sentence)
        return
    # never the hash of a password
    told = {"role": user.role, "password": user.password is not None}
    print(dumps({"name": user.name, **told, "added": user.added}))


def _locate(config: Path) -> Path:
    """The file of users of an audit file. Raises ConfigError where the extra `dashboard` is not
    installed.
    """
    try:
        import argon2  # noqa: F401
    except ImportError:
        raise ConfigError(
            "the dashboard's users need one more package: pip install 'poisonwatch[dashboard]'"
        ) from None
    from poisonwatch.config_file import load_config
    from poisonwatch.dashboards.users import locate_users

    return locate_users(load_config(config), config)


def _ask_password(stdin: bool) -> str:
    """A password from the terminal, typed twice, or from standard input. Raises InputError."""
    from poisonwatch.dashboards.users import LONGEST_PASSWORD

    if stdin:
        line = sys.stdin.readline(LONGEST_PASSWORD + 2)
        return line.removesuffix("\n").removesuffix("\r")
    if not sys.stdin.isatty():
        raise InputError("there is no terminal to ask at: give the password with --password-stdin")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != password:
        raise InputError("the two passwords differ: nothing was changed")
    return password


def _describe_unknown(path: Path) -> str:
    return f"there is no such user in {path}: `poisonwatch users list` names them"
