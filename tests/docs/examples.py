"""The examples of the documentation: what is shown in a fence, and how it is tried.

A comment above each fence says how: `<!-- run -->` runs it against a running box, `<!-- run: prints /regex/ -->` looks
at what it prints too, `<!-- run by tests/file.py::test -->` names the test that does the same, and
`<!-- not run: why -->` gives the reason why none does.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "pages"
# What a reader could copy and run.
RUNNABLE = ("bash", "console", "python", "sh")
MARK = "\x1e"

_FENCE = re.compile(r"(?:^<!-- (?P<how>.*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """One fence of a page."""

    page: Path
    line: int
    language: str
    text: str
    how: str

    @property
    def place(self) -> str:
        """Where it stands."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def runs(self) -> bool:
        """Whether it is run against a box."""
        return self.how == "run" or self.how.startswith("run: ")

    @property
    def prints(self) -> str:
        """What it must print, as a regular expression. Empty means anything."""
        found = re.fullmatch(r"run: prints /(.+)/", self.how)
        return found[1] if found else ""

    @property
    def test(self) -> str:
        """The test that does the same. Empty when none is named."""
        return self.how.removeprefix("run by ") if self.how.startswith("run by ") else ""

    @property
    def reason(self) -> str:
        """Why it is not run. Empty when it is."""
        return self.how.removeprefix("not run: ") if self.how.startswith("not run: ") else ""


def pages() -> list[Path]:
    """Every page that is written by hand, and the documents at the top."""
    written = [page for page in sorted(PAGES.rglob("*.md")) if page.parent.name != "reference"]
    return [*written, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "proto/README.md"))]


def examples(page: Path) -> Iterator[Example]:
    """The examples of a page that a reader could run."""
    text = page.read_text()
    for found in _FENCE.finditer(text):
        if found["language"] in RUNNABLE:
            line = text.count("\n", 0, found.start("language")) + 1
            yield Example(page, line, found["language"], found["text"], found["how"] or "")


def as_script(shown: Sequence[Example]) -> str:
    """The shell examples of a page as one script, which says before each which one comes."""
    parts = [f"printf '\\036%s\\n' {number}\n{example.text}" for number, example in enumerate(shown)]
    return "set -euo pipefail\n" + "\n".join(parts)


def split_output(output: str) -> dict[int, str]:
    """What each example of a script printed."""
    parts = (part.partition("\n") for part in output.split(MARK)[1:])
    return {int(number): text for number, _, text in parts}
