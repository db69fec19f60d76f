"""The people who may come into the dashboard: a file of names, roles and hashes of passwords.

It lies beside the audit file and not in the ledger, so that whoever may write rows and decisions
there cannot let themselves in. It is written whole or not at all, for its owner's eyes alone, by
`poisonwatch users`; the dashboard reads it at every request, so that what it says counts at once.
"""

import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from poisonwatch.atomic import replace_file
from poisonwatch.config import AuditConfig
from poisonwatch.dashboards.access import LONGEST_USER_NAME, SHORTEST_PASSWORD, clean_user_name
from poisonwatch.dashboards.roles import ROLES, Role
from poisonwatch.errors import InputError
from poisonwatch.text.display import excerpt
from poisonwatch.text.environment import expand_home
from poisonwatch.text.names import fold_name as fold_name

if TYPE_CHECKING:
    from argon2 import PasswordHasher

FORMAT = 1
LARGEST_FILE = 4 * 1024 * 1024  # bytes
LONGEST_PASSWORD = 1000  # characters
# Who may do what to the file beside its owner: a group may read it, nobody else anything.
FORBIDDEN_MODE = stat.S_IWGRP | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may come in; without a `password` (its hash), by an identity provider or a
    reverse proxy alone. `id` is new with every password: a login with an older one has ended.
    """

    name: str
    role: Role
    id: str
    added: str
    password: str | None = None


def locate_users(config: AuditConfig, audit_file: Path) -> Path:
    """The file of users that an audit file names; relative to it."""
    return audit_file.resolve().parent / expand_home(config.dashboard_users)


def read_users(path: Path) -> dict[str, User]:
    """Users by what their names are found under (`fold_name`), in the order in which they were
    added; none where there is no file.

    Raises InputError where it is no such file, or others may change it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if mode & FORBIDDEN_MODE:
        raise InputError(
            f"{path} can be read or changed by others on this machine, who could let themselves "
            f"in: run `chmod 600 {path}` once its users are those that you added"
        )
    if len(content) > LARGEST_FILE:
        raise InputError(f"{path} is larger than {LARGEST_FILE:,} bytes: it is no file of users")
    try:
        return _parse_users(content)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InputError(
            f"{path} is no file of users: write it with `poisonwatch users add`"
        ) from None


@lru_cache(maxsize=4)
def _parse_users(content: bytes) -> dict[str, User]:
    """Raises ValueError, TypeError or KeyError where the content is no file of users."""
    written = json.loads(content)
    if written["format"] != FORMAT:
        raise ValueError("another format")
    users = {}
    for entry in written["users"]:
        user = User(**entry)
        if user.role not in ROLES or not all(
            isinstance(value, str) for value in (user.name, user.id, user.added)
        ):
            raise ValueError("no user")
        users[fold_name(user.name)] = user
    if len(users) != len(written["users"]):
        raise ValueError("a name stands twice")
    return users


@contextmanager
def change_users(path: Path) -> Iterator[dict[str, User]]:
    """Yield the users to be changed; what they are when the block ends well is in the file then.
    One after another, whoever else changes it.

    Raises what `read_users` does, and InputError where the file cannot be written.
    """
    try:
        with FileLock(f"{path}.lock", mode=0o600):
            users = dict(read_users(path))
            yield users
            _write_users(path, list(users.values()))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


def _write_users(path: Path, users: list[User]) -> None:
    written: dict[str, Any] = {"format": FORMAT, "users": [asdict(user) for user in users]}
    with replace_file(path, unique=True) as part:
        part.unlink(missing_ok=True)
        # made for its owner alone, and not restricted later: there is no moment in between
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(written, file, indent=1)
            file.flush()
            os.fsync(file.fileno())


def make_user(name: str, role: Role, password: str | None) -> User:
    """A new user. Raises InputError where name or password cannot be one."""
    return User(
        name=check_name(name),
        role=role,
        id=secrets.token_hex(8),
        added=datetime.now(UTC).isoformat(timespec="seconds"),
        password=None if password is None else hash_password(password),
    )


def with_password(user: User, password: str) -> User:
    """The user with another password; their logins end. Raises InputError."""
    return replace(user, password=hash_password(password), id=secrets.token_hex(8))


def check_name(name: str) -> str:
    """A user's name as it is written beside decisions. Raises InputError where it is none."""
    cleaned = clean_user_name(name, LONGEST_USER_NAME)
    if cleaned is None:
        raise InputError(f"a name has 1 to {LONGEST_USER_NAME} characters")
    # beside decisions of a shared password: nobody proved to be who they said
    if "(unverified" in fold_name(cleaned):
        raise InputError("a name that holds (unverified) would say that nobody checked who it is")
    return cleaned


def hash_password(password: str) -> str:
    """The password's hash by Argon2id, with its salt. Raises InputError where it is too short, or
    too long.
    """
    if len(password.strip()) < SHORTEST_PASSWORD:
        raise InputError(f"the password is too short: take at least {SHORTEST_PASSWORD} characters")
    if len(password) > LONGEST_PASSWORD:
        raise InputError(f"the password is too long: {LONGEST_PASSWORD:,} characters at most")
    return _get_hasher().hash(encode_password(password))


def verify_password(user: User | None, password: str) -> bool:
    """Whether this is the user's password. Takes as long where there is no such user, or none with
    a password: how long it takes tells nothing of names.
    """
    from argon2.exceptions import InvalidHashError, VerificationError

    known = user is not None and user.password is not None
    hashed = _make_nobody_s_hash()
    if user is not None and user.password is not None:
        hashed = user.password
    try:
        return _get_hasher().verify(hashed, encode_password(password)) and known
    except (VerificationError, InvalidHashError):
        return False


def encode_password(password: str) -> bytes:
    """The password's bytes: the environment may hold some that are no UTF-8."""
    return password.encode("utf-8", "surrogateescape")


@cache
def _get_hasher() -> "PasswordHasher":
    from argon2 import PasswordHasher

    # the library's own measures (RFC 9106): 64 MiB and three passes, a fifth of a second
    return PasswordHasher()


@cache
def _make_nobody_s_hash() -> str:
    return _get_hasher().hash(secrets.token_bytes(16))


def describe_user(user: User) -> str:
    """A line of `poisonwatch users list`."""
    way = "password" if user.password is not None else "no password"
    return f"{excerpt(user.name)}  {user.role}  {way}  added {user.added[:10]}"
