"""What the box finds out about the machine and about who runs it."""

import os
import pwd

import pytest

from services.box.postgres import own_namespace

ROOT_ONLY = [pwd.struct_passwd(("root", "x", 0, 0, "", "/root", "/bin/sh"))]


def be(monkeypatch: pytest.MonkeyPatch, uid: int, known: dict[int, pwd.struct_passwd]) -> None:
    """Be a user of a machine whose directory answers for each user and lists root alone."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(pwd, "getpwall", lambda: ROOT_ONLY)
    monkeypatch.setattr(pwd, "getpwuid", known.__getitem__)


def test_a_user_that_no_list_has_needs_no_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    be(monkeypatch, 70001, {70001: pwd.struct_passwd(("ada", "x", 70001, 70001, "", "/home/ada", "/bin/sh"))})
    assert own_namespace() == ()


@pytest.mark.parametrize("uid", [0, 70001])
def test_root_and_who_has_no_name_need_one(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    be(monkeypatch, uid, {0: ROOT_ONLY[0]})
    assert own_namespace()[:2] == ("unshare", "--user")
