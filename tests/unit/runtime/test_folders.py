"""Bundles on disk: whole or not there."""

import json
from pathlib import Path
from uuid import uuid4

import pytest

from services.kit.ids import DEFAULT_TENANT
from services.runtime import folders as module
from services.runtime.bundle import Bundle
from services.runtime.folders import APPLIED, KEPT_REVISIONS, STAGED, Folders

FIRST = Bundle("a1", {"runtime.json": "1", "agent/main.md": "one"})
SECOND = Bundle("b2", {"runtime.json": "2"})


def test_the_links_say_which_is_which(tmp_path: Path) -> None:
    folders = Folders.of(tmp_path, DEFAULT_TENANT)
    folders.point(STAGED, FIRST)
    folders.point(APPLIED, FIRST)
    folders.point(STAGED, SECOND)

    assert (folders.revision(STAGED), folders.revision(APPLIED)) == ("b2", "a1")
    assert (tmp_path / "applied" / "agent" / "main.md").read_text() == "one"
    assert json.loads((tmp_path / "staged" / "manifest.json").read_text())["revision"] == "b2"
    assert sorted(path.name for path in (tmp_path / "staged").iterdir()) == ["manifest.json", "runtime.json"]


def test_another_tenant_has_folders_of_its_own(tmp_path: Path) -> None:
    tenant = uuid4()
    Folders.of(tmp_path, tenant).point(STAGED, FIRST)
    assert (tmp_path / "tenants" / str(tenant) / "staged" / "runtime.json").exists()
    assert not (tmp_path / "staged").exists()


def test_a_crash_while_writing_leaves_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = Folders.of(tmp_path, DEFAULT_TENANT)
    folders.point(APPLIED, FIRST)

    def half(folder: Path, files: object) -> None:
        folder.mkdir(parents=True)
        (folder / "runtime.json").write_text("hal")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_files", half)
        with pytest.raises(OSError, match="space"):
            folders.point(APPLIED, SECOND)
    assert folders.revision(APPLIED) == "a1"

    folders.point(APPLIED, SECOND)
    assert (tmp_path / "applied" / "runtime.json").read_text() == "2"
    assert sorted(path.name for path in (tmp_path / "revisions").iterdir()) == ["a1", "b2"]


def test_what_runs_keeps_its_bundle_and_old_ones_go(tmp_path: Path) -> None:
    folders = Folders.of(tmp_path, DEFAULT_TENANT)
    folders.point(APPLIED, FIRST)
    mounted = (tmp_path / "applied").resolve()
    for number in range(KEPT_REVISIONS + 3):
        folders.point(STAGED, Bundle(f"c{number}", {"runtime.json": "3"}))

    assert (mounted / "runtime.json").read_text() == "1"
    assert len(list((tmp_path / "revisions").iterdir())) == KEPT_REVISIONS + 1


def test_pointing_to_the_same_writes_nothing(tmp_path: Path) -> None:
    folders = Folders.of(tmp_path, DEFAULT_TENANT)
    folders.point(APPLIED, FIRST)
    before = (tmp_path / "applied").lstat().st_mtime_ns
    folders.point(APPLIED, FIRST)
    assert (tmp_path / "applied").lstat().st_mtime_ns == before
