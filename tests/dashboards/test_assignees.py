"""Whom a group may be assigned to."""

from pathlib import Path

import pytest

from poisonwatch.config import AuditConfig
from poisonwatch.dashboards.assignees import check_assignee
from poisonwatch.dashboards.users import change_users, make_user
from poisonwatch.errors import InputError


def test_users_who_may_decide_are_assignees_and_anybody_where_there_are_none(
    tmp_path: Path,
) -> None:
    """Whoever asks may name themselves."""
    config = AuditConfig(source="rows.jsonl", sentinels=["pack:identity"])  # type: ignore[arg-type]
    file = tmp_path / "audit.yaml"
    assert check_assignee(config, file, "anybody", "bob") == "anybody"
    with change_users(tmp_path / ".poisonwatch-users.json") as users:
        users["ann"] = make_user("Ann", "reviewer", None)
    assert check_assignee(config, file, "ANN", "bob") == "Ann"
    assert check_assignee(config, file, "bob", "bob") == "bob"
    assert check_assignee(config, file, "", "bob") == ""
    with pytest.raises(InputError, match="no user who may decide"):
        check_assignee(config, file, "eve", "bob")
