"""Items as the terminal shows them: text with colours, ready to be printed at a given width."""

import io
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from orginabox_sdk.orginabox.turn.v1 import PermissionReply
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markdown import Heading, Markdown
from rich.segment import Segment
from rich.syntax import Syntax
from rich.text import Text as Styled

from gateways.chat import permission, words
from gateways.chat.history import YOU
from gateways.chat.markdown import blocks
from gateways.chat.refusals import with_remedy
from gateways.chat.view import (
    Asked,
    Ended,
    Item,
    Note,
    Outcome,
    Said,
    Text,
    Thought,
    Todos,
    Tool,
    ToolState,
    spent_line,
)

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
WIDEST = 110
LIVE_OUTPUT_LINES = 3
MOST_DIFF_LINES = 60
_TRAILING = re.compile(r"[ \t]+((?:\x1b\[0?m)*)$", re.MULTILINE)

_MARKS = {
    ToolState.DONE: ("✓", "green"),
    ToolState.FAILED: ("✗", "red"),
    ToolState.STOPPED: ("■", "yellow"),
}
_TASKS = {"completed": ("✓", "green"), "in_progress": ("▸", "bold"), "cancelled": ("✗", "dim")}
_REPLIES = {
    PermissionReply.ONCE: ("✓ permitted once", "green"),
    PermissionReply.ALWAYS: ("✓ permitted for the session", "green"),
    PermissionReply.REJECT: ("✗ refused", "red"),
}


class _LeftHeading(Heading):
    """A heading that stays where text begins."""

    LEVEL_ALIGN = dict.fromkeys(Heading.LEVEL_ALIGN, "left")


class _Markdown(Markdown):
    elements = Markdown.elements | {"heading_open": _LeftHeading}


class _Block:
    """A block of Markdown without blank lines around it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        made = _Markdown(self._text, code_theme="ansi_dark", hyperlinks=False)
        lines = console.render_lines(made, options, pad=False)
        blank = [not "".join(segment.text for segment in line).strip() for line in lines]
        first = next((index for index, empty in enumerate(blank) if not empty), 0)
        last = next((index for index in reversed(range(len(blank))) if not blank[index]), -1)
        for line in lines[first : last + 1]:
            yield from line
            yield Segment.line()


class Renderer:
    """Renders items one after the other, with the right distance between them.

    Args:
        color_system: What the terminal can show, in rich's words. None means no colour.
    """

    def __init__(self, color_system: str | None = "standard") -> None:
        self._color_system = color_system
        self._last: type[Item] | None = None

    def settled(self, items: Sequence[Item], numbers: Sequence[int], width: int) -> str:
        """Items that stay. `numbers` are those of the tool calls among them, by which they can be unfolded."""
        left = list(numbers)
        rendered = []
        for item in items:
            number = left.pop(0) if isinstance(item, Tool) else 0
            rendered.append(self._spaced(item, render(item, number=number)))
            self._last = type(item)
        return self.ansi(Group(*rendered), width)

    def live(self, items: Sequence[Item], tick: int, width: int) -> str:
        """Items that may change yet."""
        kept = self._last
        rendered = []
        for item in items:
            rendered.append(self._spaced(item, render(item, tick=tick)))
            self._last = type(item)
        self._last = kept
        return self.ansi(Group(*rendered), width) if rendered else ""

    def apart(self, thing: RenderableType, width: int) -> str:
        """Something that is no item, with a blank line before it."""
        self._last = Note
        return self.ansi(Group("", thing), width)

    def ansi(self, thing: RenderableType, width: int) -> str:
        """A thing as text with escapes, without blanks at the ends of its lines."""
        file = io.StringIO()
        console = Console(
            file=file,
            force_terminal=True,
            color_system=self._color_system,  # type: ignore[arg-type]
            width=max(20, min(width, WIDEST)),
            highlight=False,
            legacy_windows=False,
        )
        console.print(thing)
        return _TRAILING.sub(r"\1", file.getvalue())

    def _spaced(self, item: Item, thing: RenderableType) -> RenderableType:
        """With a blank line before it, but for a tool call after another."""
        together = isinstance(item, Tool | Asked | Todos | Thought) and self._last in {Tool, Asked, Todos, Thought}
        return thing if together else Group("", thing)


def render(item: Item, *, number: int = 0, tick: int = 0) -> RenderableType:
    """One item."""
    made: RenderableType = ""
    match item:
        case Text():
            made = _text(item.text)
        case Thought():
            made = _thought(item)
        case Tool():
            made = _tool(item, number, tick)
        case Asked():
            made = _asked(item)
        case Todos():
            made = _todos(item)
        case Ended():
            made = _ended(item)
        case Said():
            made = you(item.text)
        case Note():
            made = Styled(item.text, style="dim")
    return made


def you(text: str) -> RenderableType:
    """What the user said."""
    first, *rest = text.split("\n")
    return Styled("\n".join([f"{YOU} {first}", *(f"  {line}" for line in rest)]), style="bold cyan")


def unfolded(tool: Tool) -> RenderableType:
    """A tool call with all of its output."""
    body = Styled(tool.error, style="red") if tool.error else Styled(tool.output.rstrip("\n"))
    if not body.plain.strip():
        body = Styled("It printed nothing.", style="dim")
    return Group(_tool_line(tool), body)


def _text(text: str) -> RenderableType:
    apart: list[RenderableType] = []
    for block in blocks(text):
        apart += ["", _Block(block)]
    return Group(*apart[1:])


def _thought(thought: Thought) -> RenderableType:
    if not thought.closed:
        return Styled("\n".join(thought.text.strip().splitlines()[-LIVE_OUTPUT_LINES:]), style="dim italic")
    took = (thought.until - thought.since).total_seconds() if thought.until and thought.since else 0.0
    return Styled(f"∴ thought for {words.duration(took)}", style="dim")


def _tool(tool: Tool, number: int, tick: int) -> RenderableType:
    line = _tool_line(tool, tick)
    if number and (tool.output or tool.error):
        line.append(f"  /expand {number}", style="dim")
    if tool.error:
        return Group(line, Styled(f"  {words.one_line(tool.error, 200)}", style="red"))
    if tool.state is ToolState.RUNNING and tool.output.strip():
        return Group(line, *(_dim_lines(tool.output)))
    return line


def _tool_line(tool: Tool, tick: int = 0) -> Styled:
    line = Styled(no_wrap=True, overflow="ellipsis")
    mark, style = _MARKS.get(tool.state, (SPINNER[tick % len(SPINNER)], "cyan"))
    line.append(f"{mark} ", style=style)
    line.append(tool.tool, style="bold")
    line.append(f" {words.one_line(tool.title, 80)}".rstrip())
    if seconds := _seconds(tool):
        line.append(f" ({words.duration(seconds)})", style="dim")
    return line


def _seconds(tool: Tool) -> float | None:
    if tool.state is ToolState.RUNNING and tool.since:
        return max(0.0, (datetime.now(UTC) - tool.since).total_seconds())
    return tool.seconds


def _dim_lines(output: str) -> Iterator[RenderableType]:
    for line in output.rstrip("\n").splitlines()[-LIVE_OUTPUT_LINES:]:
        yield Styled(f"  {line}", style="dim", no_wrap=True, overflow="ellipsis")


def _asked(item: Asked) -> RenderableType:
    asked = item.asked
    if asked is None:
        return ""
    if item.expired:
        told = f"✗ nobody answered in time: {asked.permission} {words.one_line(asked.title, 80)}".rstrip()
        return Styled(told, style="yellow")
    if item.reply is not None:
        said, style = _REPLIES.get(item.reply, (str(item.reply), "dim"))
        return Styled(f"{said}: {asked.permission} {words.one_line(asked.title, 80)}".rstrip(), style=style)
    lines: list[RenderableType] = [Styled(f"? {permission.question(asked)}", style="bold yellow")]
    if asked.diff:
        shown = [line for line in words.clean(asked.diff).splitlines() if not line.startswith(("Index: ", "====="))]
        lines.append(Syntax("\n".join(shown[:MOST_DIFF_LINES]), "diff", theme="ansi_dark", background_color="default"))
        if len(shown) > MOST_DIFF_LINES:
            lines.append(Styled(f"  … {len(shown) - MOST_DIFF_LINES} more lines", style="dim"))
    if told := permission.always(asked):
        lines.append(Styled(f"  {told}", style="dim"))
    return Group(*lines, Styled(f"  {permission.HINT}", style="yellow"))


def _todos(todos: Todos) -> RenderableType:
    lines = []
    for todo in todos.items:
        mark, style = _TASKS.get(todo.status, ("·", ""))
        lines.append(Styled(f"  {mark} {todo.content}", style=style))
    return Group(*lines)


def _ended(ended: Ended) -> RenderableType:
    spent = Styled(spent_line(ended.spent), style="dim")
    match ended.outcome:
        case Outcome.FAILED:
            return Group(Styled(with_remedy(ended.message, ended.reason), style="red"), spent)
        case Outcome.ABORTED:
            return Group(Styled("Aborted.", style="yellow"), spent)
        case _:
            return spent
