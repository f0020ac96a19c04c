"""Every command that the documentation shows is run as it is shown, against a running box."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.examples import Example, as_script, examples, pages, split_output
from tests.e2e.mesh import ROOT, Box

RUN = {
    str(page.relative_to(ROOT)): [example for example in examples(page) if example.runs]
    for page in pages()
    if any(example.runs for example in examples(page))
}


@pytest.mark.parametrize("page", [page for page, run in RUN.items() if any(each.language == "bash" for each in run)])
def test_the_commands_of_a_page_work(fresh_box: Box, page: str, tmp_path: Path) -> None:
    shown = [example for example in RUN[page] if example.language == "bash"]
    done = run(fresh_box, ("bash", "-c", here(fresh_box, as_script(shown))), tmp_path)
    printed = split_output(done.stdout)
    assert done.returncode == 0, f"{shown[max(printed, default=0)].place} failed:\n{done.stdout}\n{done.stderr}"
    for number, example in enumerate(shown):
        assert_prints(example, printed[number])


@pytest.mark.parametrize(
    "example", [each for run in RUN.values() for each in run if each.language == "python"], ids=lambda each: each.place
)
def test_a_program_works(fresh_box: Box, example: Example, tmp_path: Path) -> None:
    done = run(fresh_box, (sys.executable, "-c", here(fresh_box, example.text)), tmp_path)
    assert done.returncode == 0, done.stderr
    assert_prints(example, done.stdout)


def here(box: Box, text: str) -> str:
    """A text with the address and the home of the box under test."""
    return text.replace("http://127.0.0.1:8787", box.url).replace("~/.orginabox", str(box.home))


def run(box: Box, command: tuple[str, ...], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a reader would."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        command, env=box.env | {"PATH": path}, cwd=folder, capture_output=True, text=True, check=False, timeout=170
    )


def assert_prints(example: Example, output: str) -> None:
    """The example printed what its page says."""
    assert re.search(example.prints, output), f"{example.place} printed:\n{output}"
