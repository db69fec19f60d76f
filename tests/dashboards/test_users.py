"""The file of users: what it holds, who may read it, and what counts at once."""

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from doors import OWN, PASSWORD, ROW, log_in, open_browser, open_logged_in, with_users
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.dashboards import users as module
from poisonwatch.dashboards.door import Door
from poisonwatch.dashboards.roles import Role
from poisonwatch.dashboards.users import (
    change_users,
    check_name,
    fold_name,
    hash_password,
    make_user,
    read_users,
    verify_password,
    with_password,
)
from poisonwatch.errors import InputError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="modes of files are POSIX's")


def set_role(path: Path, name: str, role: Role) -> None:
    with change_users(path) as users:
        users[name] = replace(users[name], role=role)


def test_the_file_holds_hashes_for_its_owner_alone(tmp_path: Path) -> None:
    """Argon2id, each with its own salt; nobody else on the machine reads them."""
    path = with_users(tmp_path, ann="reviewer", bob="admin").users
    assert path is not None
    text = path.read_text()
    assert PASSWORD not in text
    assert text.count("$argon2id$") == 2
    first, second = (user.password for user in read_users(path).values())
    assert first != second
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".part"] == []


def test_names_are_found_in_any_letters() -> None:
    """Two people never have names that look like one."""
    assert fold_name("Ann") == fold_name("ANN") == fold_name("ａｎｎ")
    assert check_name("  Ann \n Lee ") == "Ann Lee"
    for name in ("", " ", "x" * 61, "Ann (unverified)", "ann (UNVERIFIED )"):
        with pytest.raises(InputError):
            check_name(name)


@pytest.mark.parametrize("password", ["", "short", "       x", "x" * 1001])
def test_a_password_has_a_length(password: str) -> None:
    """Long enough to take time to guess, short enough to be hashed at once."""
    with pytest.raises(InputError) as refused:
        hash_password(password)
    assert "\n" not in str(refused.value)


def test_nobody_s_password_is_right() -> None:
    """Neither of somebody unknown, nor of somebody who has none; nor a hash for a password."""
    ann = make_user("ann", "viewer", PASSWORD)
    assert verify_password(ann, PASSWORD)
    assert not verify_password(ann, PASSWORD + " ")
    assert not verify_password(ann, ann.password or "")
    assert not verify_password(None, PASSWORD)
    assert not verify_password(replace(ann, password=None), PASSWORD)
    assert not verify_password(replace(ann, password="no hash"), PASSWORD)
    assert not verify_password(ann, "\udcff")


@pytest.mark.parametrize("mode", [0o620, 0o604, 0o602, 0o601, 0o666, 0o777])
def test_a_file_that_others_can_change_lets_nobody_in(tmp_path: Path, mode: int) -> None:
    """They could let themselves in; it is said how to mend it."""
    path = with_users(tmp_path, ann="admin").users
    assert path is not None
    path.chmod(mode)
    with pytest.raises(InputError, match="chmod 600") as refused:
        read_users(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"format": 2, "users": []}',
        b'{"format": 1, "users": [{"name": "ann"}]}',
        b'{"format": 1, "users": [{"name": "a", "role": "root", "id": "1", "added": "x"}]}',
        b'{"format": 1, "users": [{"name": 1, "role": "admin", "id": "1", "added": "x"}]}',
        b'{"format": 1, "users": [{"name": "a", "role": "admin", "id": "1", "added": "x", "y": 1}]}',
        b'{"format": 1, "users": {"name": "a"}}',
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"format": 1' + b" " * (module.LARGEST_FILE + 1),
    ],
)
def test_another_file_is_no_file_of_users(tmp_path: Path, content: bytes) -> None:
    """One line, whatever stands there."""
    path = tmp_path / "users.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(InputError) as refused:
        read_users(path)
    assert "\n" not in str(refused.value)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_any_users_in_the_file_are_users_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, entries: object
) -> None:
    """Nothing else comes out of it."""
    path = tmp_path_factory.mktemp("users") / "users.json"
    path.write_text(json.dumps({"format": 1, "users": entries}))
    path.chmod(0o600)
    if entries in ([], ""):
        assert read_users(path) == {}
        return
    with pytest.raises(InputError) as refused:
        read_users(path)
    assert len(str(refused.value).splitlines()) == 1


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    """Which of them counts would be anybody's guess."""
    path = with_users(tmp_path, ann="viewer").users
    assert path is not None
    written = json.loads(path.read_text())
    written["users"] += [{**written["users"][0], "name": "ANN", "role": "admin"}]
    path.write_text(json.dumps(written))
    with pytest.raises(InputError, match="no file of users"):
        read_users(path)


def test_users_that_are_added_at_once_are_all_there(tmp_path: Path) -> None:
    """One after another, whoever else writes the file."""
    path = tmp_path / "users.json"

    def add(k: int) -> None:
        with change_users(path) as users:
            users[f"user {k}"] = make_user(f"user {k}", "viewer", None)

    threads = [threading.Thread(target=add, args=(k,)) for k in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_users(path)) == 16


def test_a_change_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """Whole or not at all."""
    path = with_users(tmp_path, ann="viewer").users
    assert path is not None
    before = path.read_bytes()

    def fail() -> None:
        with change_users(path) as users:
            users.clear()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == before


def test_decisions_are_signed_by_who_logged_in(tmp_path: Path) -> None:
    """By the name in the file, whatever letters were typed; nobody signs as somebody else."""
    door = Door(with_users(tmp_path, ann="reviewer", bob="reviewer"))
    ann = open_logged_in(door, name="ANN")
    assert ann.post("/triage/decide", headers=OWN, data={"name": "bob"}).text == "decided by ann"
    assert ann.get("/").json()["role"] == "reviewer"
    for name in ("bob ", "carl", "ann\x00", ""):
        wrong = log_in(open_browser(door), name=name, password="another password")
        assert (wrong.status_code, "Name or password is wrong." in wrong.text) == (401, True)


def test_a_role_that_is_changed_counts_at_once(tmp_path: Path) -> None:
    """In the login that there is."""
    access = with_users(tmp_path, ann="reviewer")
    assert access.users is not None
    ann = open_logged_in(access)
    set_role(access.users, "ann", "viewer")
    assert ann.post("/triage/decide", headers=OWN).status_code == 403
    assert ann.get("/").json()["role"] == "viewer"
    set_role(access.users, "ann", "admin")
    assert ann.post("/sentinels/edit/0", headers=OWN).status_code == 200


def test_who_is_removed_is_out_at_once(tmp_path: Path) -> None:
    """And stays out where somebody of the same name is added later; the login of others goes on."""
    access = with_users(tmp_path, ann="admin", bob="admin")
    assert access.users is not None
    door = Door(access)
    ann, bob = open_logged_in(door), open_logged_in(door, name="bob")
    with change_users(access.users) as users:
        del users["ann"]
    assert ann.get("/").status_code == 303
    assert ann.post("/triage/decide", headers=OWN).status_code == 401
    assert log_in(open_browser(door)).status_code == 401
    with change_users(access.users) as users:
        users["ann"] = make_user("ann", "viewer", PASSWORD)
    assert ann.get("/").status_code == 303
    assert bob.get("/").json()["rows"] == ROW


def test_another_password_ends_logins_with_the_old_one(tmp_path: Path) -> None:
    """Whoever else may have had it."""
    access = with_users(tmp_path, ann="admin")
    assert access.users is not None
    door = Door(access)
    ann = open_logged_in(door)
    with change_users(access.users) as users:
        users["ann"] = with_password(users["ann"], "another password")
    assert ann.get("/").status_code == 303
    assert log_in(open_browser(door)).status_code == 401
    assert log_in(open_browser(door), password="another password").status_code == 303


def test_a_file_that_is_gone_or_broken_lets_nobody_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither those who are in, nor by any other way; the log says why, the page does not."""
    access = with_users(tmp_path, ann="admin")
    assert access.users is not None
    ann = open_logged_in(access)
    access.users.chmod(0o666)
    for answer in (ann.get("/"), ann.post("/triage/decide", headers=OWN), ann.get("/login")):
        assert answer.status_code == 503
        assert ROW not in answer.text
        assert str(tmp_path) not in answer.text
    assert "chmod 600" in caplog.text
    access.users.unlink()
    assert ann.get("/").status_code == 303
    assert log_in(ann).status_code == 401


def test_names_that_nobody_has_take_as_long_as_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password is hashed each time, or else who asks would learn which names there are."""
    hashed = []
    hasher = module._get_hasher()

    class Counting:
        def verify(self, expected: str, password: bytes) -> bool:
            hashed.append(expected[:10])
            return hasher.verify(expected, password)

        def hash(self, password: bytes) -> str:
            return hasher.hash(password)

    access = with_users(tmp_path, ann="admin")
    monkeypatch.setattr(module, "_get_hasher", Counting)
    for name in ("ann", "nobody", ""):
        assert log_in(open_browser(access), name=name, password="wrong horse").status_code == 401
    assert hashed == ["$argon2id$"] * 3
