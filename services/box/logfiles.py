"""The log files: one for each process, kept small, readable by its owner only."""

import os
import shutil
from pathlib import Path

LOG_BYTES = 10_000_000
LOGS_KEPT = 3


def open_log(path: Path) -> int:
    """A descriptor that appends to the log."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def rotate_logs(folder: Path, limit: int = LOG_BYTES) -> None:
    """Set aside the logs that have grown too long."""
    for path in folder.glob("*.log"):
        if path.stat().st_size > limit:
            rotate_log(path)


def rotate_log(path: Path) -> None:
    """Set a log aside as `.1`, what was `.1` as `.2`, and so on.

    The content is copied and the file cut in place, since the process holds it open. It appends, so it goes on at the
    new end. A line written between copy and cut is lost.
    """
    for number in range(LOGS_KEPT - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number + 1}"))
    shutil.copyfile(path, path.with_name(f"{path.name}.1"))
    path.with_name(f"{path.name}.1").chmod(0o600)
    os.truncate(path, 0)


def last_lines(path: Path, count: int, window: int = 262_144) -> list[str]:
    """The last lines of a log."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - window))
        return file.read().decode(errors="replace").splitlines()[-count:] if count else []
