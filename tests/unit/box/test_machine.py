"""What the box finds out about the machine and about who runs it."""

import os
import pwd
import subprocess
from pathlib import Path

import pytest

from sandbox import agent
from services.box import doctor
from services.box.doctor import Check, examine
from services.box.home import Home
from services.box.postgres import own_namespace
from services.box.settings import Settings

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


def found(tmp_path: Path, name: str) -> Check:
    """One check of this machine."""
    checks = examine(Home(tmp_path, tmp_path), Settings())  # type: ignore[call-arg]
    return next(check for check in checks if check.name == name)


def test_root_is_warned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "root" in found(tmp_path, "user").caution
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not found(tmp_path, "user").caution


def test_namespaces_are_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(argv: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(argv, int(argv[0] == "unshare"), "", "unshare failed: not permitted")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(doctor, "_run", run)
    isolation = found(tmp_path, "isolation")
    assert (isolation.fine, isolation.found) == (False, "unshare failed: not permitted")


def test_the_agent_is_the_one_that_sandboxes_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(agent, "BINARY", tmp_path / "elsewhere")
    assert found(tmp_path, "opencode").found == f"{tmp_path / 'elsewhere'} does not run"
