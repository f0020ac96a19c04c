"""A clock on the wall that is wrong, for one process: what it asks of its clock is answered by libfaketime."""

from pathlib import Path


def wrong_clock(minutes: int) -> dict[str, str]:
    """The environment of a process whose clock is so many minutes off. Its stopwatch is right."""
    return {
        "LD_PRELOAD": str(_library()),
        "FAKETIME": f"{minutes:+d}m",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DISABLE_SHM": "1",
    }


def _library() -> Path:
    found = sorted(Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1"))
    if not found:
        raise FileNotFoundError(
            "libfaketime is missing, by which a worker gets a wrong clock: apt-get install faketime"
        )
    return found[0]
