"""Takes the picture of a terminal that the README shows: `python -m docs.generator.capture`.

It is what a real terminal shows. tmux runs the commands in a home of their own, and rich draws what is on its screen.
"""

import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "pages" / "assets" / "terminal.svg"
COMMANDS = ("oiab up --detach", 'oiab ask "Say hello"', "oiab status")
WIDTH, HEIGHT = 96, 40
SECONDS = 120.0
PROMPT = "$ "
MONOSPACE = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def main() -> None:
    """Take the picture."""
    with tempfile.TemporaryDirectory(prefix="oiab-") as folder, terminal(Path(folder)) as tmux:
        for number, command in enumerate(COMMANDS, 1):
            tmux("send-keys", command, "Enter")
            wait_for_prompts(tmux, number + 1)
        PICTURE.write_text(draw(screen(tmux)))


class Tmux:
    """A tmux server of its own."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def __call__(self, *words: str) -> str:
        """Run a command of tmux and return what it prints."""
        done = subprocess.run(("tmux", "-S", self._socket, *words), capture_output=True, text=True, check=True)
        return done.stdout


@contextmanager
def terminal(folder: Path) -> Iterator[Tmux]:
    """A terminal in which `oiab` finds an empty home."""
    tmux = Tmux(folder / "tmux.sock")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    told = {"PS1": PROMPT, "OIAB_HOME": str(folder / "acme"), "PATH": path, "COLORTERM": "truecolor"}
    shell = shlex.join(("env", *(f"{name}={value}" for name, value in told.items()), "bash", "--noprofile", "--norc"))
    tmux("new-session", "-d", "-x", str(WIDTH), "-y", str(HEIGHT), shell)
    try:
        wait_for_prompts(tmux, 1)
        yield tmux
    finally:
        subprocess.run((sys.executable, "-m", "gateways.chat", "down"), env=os.environ | told, check=True)
        tmux("kill-server")


def screen(tmux: Tmux) -> str:
    """What the terminal shows, with its colours, without the prompt that waits."""
    return tmux("capture-pane", "-e", "-p").rstrip().removesuffix(PROMPT.strip()).rstrip()


def wait_for_prompts(tmux: Tmux, count: int) -> None:
    """Wait until the shell has asked that often."""
    wait_until(tmux, lambda lines: sum(line.startswith("$") for line in lines) >= count and lines[-1] == "$")


def wait_until(tmux: Tmux, holds: Callable[[Sequence[str]], bool]) -> None:
    """Wait until something holds for the lines on the screen.

    Raises:
        TimeoutError: It does not.
    """
    end = time.monotonic() + SECONDS
    while not holds(lines := tmux("capture-pane", "-p").rstrip().split("\n")):
        if time.monotonic() > end:
            raise TimeoutError("\n".join(("the terminal still shows", *lines)))
        time.sleep(0.1)


def draw(shown: str) -> str:
    """A picture of a terminal, which loads nothing from elsewhere."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(shown))
    picture = console.export_svg(title="oiab", theme=MONOKAI, unique_id="oiab")
    picture = re.sub(r"@font-face \{.*?\}\n", "", picture, flags=re.DOTALL)
    return re.sub(r"font-family: (?:Fira Code, monospace|arial)", f"font-family: {MONOSPACE}", picture)


if __name__ == "__main__":
    main()
