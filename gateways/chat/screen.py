"""The terminal of the chat: what is final goes into the scrollback, what may change is drawn above the input line.

The input line stays while the agent works, so that what comes next can be typed, and the terminal's own scrollback,
selection and search work as everywhere.
"""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import Application, run_in_terminal
from prompt_toolkit.completion import Completer
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import ANSI, AnyFormattedText
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.styles import Style

from gateways.chat.history import YOU

# Rows that the input line and what stands above it may take, which the live region leaves free.
ROWS_KEPT = 6
LEAST_LIVE_ROWS = 4
TICKS_PER_SECOND = 10
LEAST_REDRAW_SECONDS = 0.02
# Drawing may take this part of the time and no more, however long the text is.
DRAWING_SHARE = 0.2
LEAVE_SECONDS = 2.0
_STYLE = Style.from_dict({"placeholder": "ansibrightblack"})


class Screen:
    """A prompt that stays, with a live region above it.

    Args:
        history: The file that remembers what was typed.
        completer: Completes slash commands.
        live: What is live, as text with escapes, for a tick and a width.
        status: What stands between that and the input, for a tick.
    """

    def __init__(
        self,
        history: Path,
        completer: Completer,
        live: Callable[[int, int], str],
        status: Callable[[int], str],
    ) -> None:
        history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        history.touch(mode=0o600)
        self._live = live
        self._status = status
        self._stashed = ""
        self._interrupted_at = 0.0
        self._hint = ""
        self._version = 0
        self._drawn: tuple[object, ANSI] = (None, ANSI(""))
        self.asking = False
        self.busy = False
        self.on_text: Callable[[str], None] = lambda _: None
        self.on_interrupt: Callable[[], bool] = lambda: False
        self.on_expand: Callable[[], None] = lambda: None
        self._session: PromptSession[str] = PromptSession(
            message=self._message,
            multiline=True,
            prompt_continuation="  ",
            history=FileHistory(str(history)),
            completer=completer,
            complete_while_typing=Condition(lambda: self._session.default_buffer.text.startswith("/")),
            key_bindings=self._keys(),
            style=_STYLE,
            placeholder=self._placeholder,
            erase_when_done=True,
            enable_history_search=False,
        )
        self._session.app.min_redraw_interval = LEAST_REDRAW_SECONDS
        # Asking a terminal where the cursor is takes a round trip for each print, and a late answer moves the screen.
        if isinstance(self.app.output, Vt100_Output):
            self.app.output.enable_cpr = False

    @property
    def app(self) -> Application[str]:
        """The application that draws."""
        return self._session.app

    @property
    def width(self) -> int:
        """The columns of the terminal."""
        return self.app.output.get_size().columns

    @property
    def colors(self) -> str | None:
        """What the terminal can show, in rich's words."""
        depths = {ColorDepth.DEPTH_1_BIT: None, ColorDepth.DEPTH_4_BIT: "standard", ColorDepth.DEPTH_8_BIT: "256"}
        return None if os.environ.get("NO_COLOR") else depths.get(self.app.color_depth, "truecolor")

    async def run(self) -> None:
        """Show the prompt until the user leaves."""
        ticking = asyncio.create_task(self._tick())
        try:
            await self._session.prompt_async(handle_sigint=False)
        except EOFError:
            return
        finally:
            ticking.cancel()

    async def print(self, make: Callable[[], str]) -> None:
        """Put text into the scrollback, above the prompt. It is asked for when nothing is drawn."""

        def write() -> None:
            self.app.output.write_raw(make().replace("\n", "\r\n"))
            self.app.output.flush()

        await run_in_terminal(write)

    def changed(self) -> None:
        """Draw again, soon."""
        self._version += 1
        self.app.invalidate()

    def ask(self, asking: bool) -> None:
        """Take the input line for a question, and give it back after."""
        buffer = self._session.default_buffer
        if asking and not self.asking:
            self._stashed = buffer.text
            buffer.reset()
        elif self.asking and not asking and not buffer.text:
            self.give_back(self._stashed)
        self.asking = asking

    def give_back(self, text: str) -> None:
        """Put text into the input line, if nothing was typed there."""
        buffer = self._session.default_buffer
        if not buffer.text and text:
            buffer.insert_text(text)

    def hint(self, text: str) -> None:
        """Show a hint in place of the status until the next key."""
        self._hint = text
        self.changed()

    def leave(self) -> None:
        """End the chat."""
        if self.app.is_running and not self.app.is_done:
            self.app.exit(exception=EOFError)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1 / TICKS_PER_SECOND)
            if self.busy:
                self.changed()

    def _message(self) -> AnyFormattedText:
        """All that stands above and before the input. It is asked for several times in each drawing, so it is kept."""
        tick = int(time.monotonic() * TICKS_PER_SECOND) if self.busy else 0
        size = self.app.output.get_size()
        state = (self._version, tick, size, self._hint, self.asking)
        if self._drawn[0] != state:
            begun = time.perf_counter()
            self._drawn = (state, ANSI(self._above(tick, size.rows, size.columns) + self._mark()))
            took = time.perf_counter() - begun
            self.app.min_redraw_interval = max(LEAST_REDRAW_SECONDS, took / DRAWING_SHARE)
        return self._drawn[1]

    def _above(self, tick: int, rows: int, columns: int) -> str:
        lines = self._live(tick, columns).splitlines()[-max(LEAST_LIVE_ROWS, rows - ROWS_KEPT) :]
        return "\n".join([*lines, "", self._hint or self._status(tick), ""])

    def _mark(self) -> str:
        return f"\x1b[1;33mpermit? {YOU}\x1b[0m " if self.asking else f"\x1b[1;36m{YOU}\x1b[0m "

    def _placeholder(self) -> AnyFormattedText:
        if self.asking or self._session.default_buffer.text:
            return ""
        return [("class:placeholder", "goes on after this turn" if self.busy else "say something, or /help")]

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("enter")
        def _(event: KeyPressEvent) -> None:
            self._hint = ""
            buffer = event.current_buffer
            text = buffer.text.strip()
            if text and not self.asking:
                buffer.append_to_history()
            buffer.reset()
            if text:
                self.on_text(text)

        @keys.add("escape", "enter")
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @keys.add("c-c")
        def _(event: KeyPressEvent) -> None:
            self._interrupt(event)

        @keys.add("c-d", filter=Condition(lambda: not self._session.default_buffer.text))
        def _(_: KeyPressEvent) -> None:
            self.leave()

        @keys.add("c-o")
        def _(_: KeyPressEvent) -> None:
            self.on_expand()

        return keys

    def _interrupt(self, event: KeyPressEvent) -> None:
        """Ctrl-C: abort the turn, else clear the line, else say how to leave, else leave."""
        if self.on_interrupt():
            return
        if event.current_buffer.text:
            event.current_buffer.reset()
            return
        if time.monotonic() - self._interrupted_at < LEAVE_SECONDS:
            self.leave()
            return
        self._interrupted_at = time.monotonic()
        self.hint("\x1b[2mCtrl-C again leaves, and so does Ctrl-D.\x1b[0m")
