"""Memory and process limits of a sandbox by control groups, version 1 or 2, where they can be written."""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.sandbox.driver import Limits

_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_PREFIX = "oiab-"
_LEFT_SECONDS = 60


@dataclass(frozen=True)
class ControlGroup:
    """The groups that hold one sandbox: one per controller in version 1, a single one in version 2."""

    folders: Sequence[Path]

    @property
    def member_files(self) -> list[Path]:
        """The files to which a process writes its id to join."""
        return [folder / "cgroup.procs" for folder in self.folders]

    @property
    def empty(self) -> bool:
        """Whether the last process is gone."""
        return not any(_read(file).strip() for file in self.member_files)

    def remove(self) -> None:
        """Remove the groups. A group with a process in it stays."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                folder.rmdir()


def create(name: str, limits: Limits, root: Path = _ROOT) -> ControlGroup | None:
    """The limited groups of a sandbox, or None where this process may not make any."""
    _remove_left(root)
    make = _create_unified if (root / "cgroup.controllers").exists() else _create_legacy
    try:
        return make(_PREFIX + name, limits, root)
    except OSError:
        return None


def _remove_left(root: Path) -> None:
    """Remove what a killed service left. What is new may be another's, and what has processes stays by itself."""
    for controller, membership in _memberships().items():
        own = root / controller / membership.lstrip("/")
        for folder in (*own.glob(f"{_PREFIX}*"), *own.parent.glob(f"{_PREFIX}*")):
            with contextlib.suppress(OSError):
                if time.time() - folder.stat().st_mtime > _LEFT_SECONDS:
                    folder.rmdir()


def _create_unified(name: str, limits: Limits, root: Path) -> ControlGroup:
    own = root / _memberships().get("", "/").lstrip("/")
    # A group with processes of its own cannot have limited children, so a sibling of ours comes first.
    for parent in (own.parent, own):
        if {"memory", "pids"} <= set(_read(parent / "cgroup.subtree_control").split()):
            folder = parent / name
            with _made(folder):
                (folder / "memory.max").write_text(str(limits.memory_bytes))
                (folder / "pids.max").write_text(str(limits.pids))
                with contextlib.suppress(OSError):
                    (folder / "memory.swap.max").write_text("0")
            return ControlGroup([folder])
    raise PermissionError


def _create_legacy(name: str, limits: Limits, root: Path) -> ControlGroup:
    memberships = _memberships()
    wanted = {
        "memory": ("memory.limit_in_bytes", limits.memory_bytes),
        "pids": ("pids.max", limits.pids),
    }
    folders: list[Path] = []
    try:
        for controller, (file, value) in wanted.items():
            own = root / controller / memberships.get(controller, "/").lstrip("/")
            parent = own if own.is_dir() else root / controller
            with _made(parent / name) as folder:
                (folder / file).write_text(str(value))
            folders.append(folder)
    except OSError:
        ControlGroup(folders).remove()
        raise
    return ControlGroup(folders)


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[Path]:
    """A group that is removed again when it cannot be limited: an unlimited one would be a false promise."""
    folder.mkdir(exist_ok=True)
    try:
        if not os.access(folder / "cgroup.procs", os.W_OK):
            raise PermissionError
        yield folder
    except OSError:
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise


def _memberships() -> dict[str, str]:
    """The group of this process by controller; the unified hierarchy has the empty name."""
    lines = (line.split(":", 2) for line in _read(_MEMBERSHIP).splitlines())
    return {name: path for _, names, path in lines for name in names.split(",")}


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
