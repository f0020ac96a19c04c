"""What a benchmark found, as tables for the terminal and for the page."""

import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil


@dataclass
class Table:
    """One table: what was measured, how, and the rows."""

    title: str
    method: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    bounds: str = ""

    def markdown(self) -> str:
        """The table for the page."""
        lines = [f"## {self.title}", "", self.method, "", _line(self.columns), _line(["---"] * len(self.columns))]
        lines += [_line(row) for row in self.rows]
        return "\n".join([*lines, "", *([self.bounds, ""] if self.bounds else [])])


def machine() -> str:
    """The machine that the figures come from."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    memory = psutil.virtual_memory().total / 2**30
    load = psutil.getloadavg()[0]
    return (
        f"{psutil.cpu_count()} cores of {model}, {memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}; load average at the start {load:.1f}"
    )


def median(values: Sequence[float]) -> float:
    """The median, or not-a-number when there is none."""
    return statistics.median(values) if values else float("nan")


def percentile(values: Sequence[float], share: int) -> float:
    """A percentile by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * share // 100)] if ordered else float("nan")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
