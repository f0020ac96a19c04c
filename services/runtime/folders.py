"""The bundles of one tenant on disk: every revision in a folder of its own, and two links that say which is which.

A revision's folder is never changed. `staged` and `applied` are links that are replaced in one step, so that a crash
leaves the old bundle or the new one, never half of each. A sandbox that has a revision mounted keeps it when the link
moves on.
"""

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from uuid import UUID

from services.kit.ids import DEFAULT_TENANT
from services.runtime.bundle import Bundle

STAGED = "staged"
APPLIED = "applied"
# Sandboxes that run have an older revision mounted until their next turn.
KEPT_REVISIONS = 16


@dataclass(frozen=True)
class Folders:
    """Where the bundles of a tenant are."""

    root: Path

    @classmethod
    def of(cls, runtime: Path, tenant_id: UUID) -> Self:
        """The folders of a tenant. The default tenant's are the runtime folder itself."""
        return cls(runtime if tenant_id == DEFAULT_TENANT else runtime / "tenants" / str(tenant_id))

    def point(self, name: str, bundle: Bundle) -> None:
        """Make `staged` or `applied` the bundle."""
        folder = self._write(bundle)
        link = self.root / name
        target = Path("revisions", folder.name)
        if link.is_symlink() and link.readlink() == target:
            return
        draft = self.root / f".{name}.new"
        draft.unlink(missing_ok=True)
        draft.symlink_to(target, target_is_directory=True)
        draft.replace(link)
        _sync(self.root)
        self._forget_old()

    def revision(self, name: str) -> str:
        """The revision that `staged` or `applied` is. Empty when it is none."""
        link = self.root / name
        return link.readlink().name if link.is_symlink() and link.exists() else ""

    def _write(self, bundle: Bundle) -> Path:
        """The folder of a bundle, written beside its place and moved there whole."""
        folder = self.root / "revisions" / bundle.revision
        if folder.is_dir():
            os.utime(folder)
            return folder
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = folder.with_name(f".{bundle.revision}.new")
        shutil.rmtree(draft, ignore_errors=True)
        _write_files(draft, {**bundle.files, "manifest.json": _manifest(bundle)})
        with suppress(FileExistsError):
            draft.rename(folder)
        _sync(folder.parent)
        return folder

    def _forget_old(self) -> None:
        """Remove the drafts of crashes and all but the newest revisions; what a link names always stays."""
        kept = {self.revision(STAGED), self.revision(APPLIED)}
        found = sorted((self.root / "revisions").iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)
        for place, folder in enumerate(found):
            if folder.name.startswith(".") or (place >= KEPT_REVISIONS and folder.name not in kept):
                shutil.rmtree(folder, ignore_errors=True)


def _manifest(bundle: Bundle) -> str:
    """Which bundle it is, and when it was first made. The time is no part of the revision."""
    made = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({"revision": bundle.revision, "create_time": made}, indent=2) + "\n"


def _write_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Put the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
