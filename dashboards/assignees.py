"""Whom a group may be assigned to: where there are users, one who may decide."""

from pathlib import Path

from poisonwatch.config import AuditConfig
from poisonwatch.dashboards.roles import may_act_as
from poisonwatch.dashboards.users import locate_users, read_users
from poisonwatch.errors import InputError
from poisonwatch.text.display import excerpt
from poisonwatch.text.names import fold_name


def check_assignee(config: AuditConfig, audit_file: Path, assignee: str, author: str) -> str:
    """A name as the user's account spells it, where there are accounts. Raises InputError where
    none that may decide is called so.
    """
    users = read_users(locate_users(config, audit_file))
    if not users or not assignee or assignee == author:
        return assignee
    user = users.get(fold_name(assignee))
    if user is None or not may_act_as(user.role, "reviewer"):
        raise InputError(f"no user who may decide is called {excerpt(assignee, 60)}")
    return user.name
