"""A real terminal for tests: a program in tmux, keys that are pressed, and the screen as it is seen."""

import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.fake_box.process import ROOT


@dataclass(frozen=True)
class Terminal:
    """A tmux with one window."""

    name: str

    def keys(self, *keys: str) -> None:
        """Press keys, in tmux's words."""
        self._tmux("send-keys", *keys)

    def line(self, text: str) -> None:
        """Type a line and press Enter."""
        self._tmux("send-keys", "-l", text)
        self._tmux("send-keys", "Enter")

    def screen(self, *, scrollback: bool = False) -> str:
        """What is seen, without blanks at the ends of lines and of the screen."""
        more = ("-S", "-") if scrollback else ()
        shown = self._tmux("capture-pane", "-p", *more)
        return "\n".join(line.rstrip() for line in shown.splitlines()).rstrip("\n")

    def wait_for(self, *texts: str, seconds: float = 30) -> str:
        """Wait until all texts are on the screen; the screen."""
        limit = time.monotonic() + seconds
        while True:
            shown = self.screen()
            if all(text in shown for text in texts):
                return shown
            if time.monotonic() > limit:
                raise AssertionError(f"{texts} did not appear in:\n{shown}")
            time.sleep(0.05)

    def wait_until_gone(self, text: str, seconds: float = 30) -> str:
        """Wait until a text is off the screen; the screen."""
        limit = time.monotonic() + seconds
        while text in (shown := self.screen()):
            if time.monotonic() > limit:
                raise AssertionError(f"{text} is still in:\n{shown}")
            time.sleep(0.05)
        return shown

    def resize(self, columns: int, rows: int) -> None:
        """Make it larger or smaller."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def close(self) -> None:
        """End it with what runs in it."""
        subprocess.run(["tmux", "-L", self.name, "kill-server"], check=False, capture_output=True)

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-L", self.name, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout


@contextmanager
def terminal(
    command: Sequence[str], environ: Mapping[str, str], columns: int = 80, rows: int = 24
) -> Iterator[Terminal]:
    """Run a command in a terminal, which stays open after it has ended."""
    made = Terminal(f"oiab-{uuid.uuid4().hex[:8]}")
    pairs = [f"{name}={value}" for name, value in environ.items() if name != "TERM"]
    script = 'env "$@"; echo "ended with $?"; sleep 600'
    shell = ["env", "-i", *pairs, "TERM=screen-256color", "bash", "-c", script, "-", *command]
    size = ("-x", str(columns), "-y", str(rows))
    begin = ["tmux", "-L", made.name, "-f", "/dev/null", "new-session", "-d", *size, *shell]
    subprocess.run(begin, check=True, cwd=ROOT, capture_output=True, timeout=20)
    try:
        yield made
    finally:
        made.close()
