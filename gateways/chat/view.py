"""What a turn looks like: its events, told one after the other, become items that are shown and at last settled.

An item is live while it may change, and settled when it cannot. Settled items go into the terminal's scrollback and are
never touched again; live ones are drawn anew as they change. Nothing here knows a terminal.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any

from betterproto2 import which_one_of
from orginabox_sdk.orginabox.turn.v1 import (
    PartsVoided,
    PermissionAsked,
    PermissionExpired,
    PermissionReplied,
    PermissionReply,
    ReasoningDelta,
    Retrying,
    TextDelta,
    TodoItem,
    TodoUpdated,
    ToolFinished,
    ToolOutcome,
    ToolOutput,
    ToolStarted,
    TurnAborted,
    TurnCompleted,
    TurnEvent,
    TurnFailed,
    TurnStarted,
    Usage,
    UserSteered,
    WrapUpAsked,
)

from gateways.chat import words
from gateways.chat.markdown import split_finished
from gateways.chat.tools import tool_title

# A tool may print without end; what is kept to be shown is not.
MOST_OUTPUT = 200_000


@dataclass(frozen=True)
class Item:
    """Something to show. `closed` when it cannot change any more."""

    closed: bool = False


@dataclass(frozen=True)
class Text(Item):
    """Some of the answer, in Markdown."""

    part_id: str = ""
    text: str = ""


@dataclass(frozen=True)
class Thought(Item):
    """Some of the model's reasoning."""

    part_id: str = ""
    text: str = ""
    since: datetime | None = None
    until: datetime | None = None


class ToolState(Enum):
    """Where a tool call stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Tool(Item):
    """A tool call."""

    call_id: str = ""
    tool: str = ""
    title: str = ""
    state: ToolState = ToolState.RUNNING
    output: str = ""
    error: str = ""
    since: datetime | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Asked(Item):
    """A permission that the turn waits for, or waited for."""

    asked: PermissionAsked | None = None
    reply: PermissionReply | None = None
    expired: bool = False


@dataclass(frozen=True)
class Said(Item):
    """What the user said into the turn."""

    text: str = ""


@dataclass(frozen=True)
class Todos(Item):
    """The agent's list of tasks."""

    items: Sequence[TodoItem] = ()


@dataclass(frozen=True)
class Note(Item):
    """Something worth a line."""

    text: str = ""


@dataclass(frozen=True)
class Spent:
    """What a turn cost."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_micro_usd: int = 0
    seconds: float = 0.0

    def plus(self, usage: Usage) -> "Spent":
        """With one more model call."""
        return replace(
            self,
            input_tokens=self.input_tokens + usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens,
            output_tokens=self.output_tokens + usage.output_tokens + usage.reasoning_tokens,
            cached_tokens=self.cached_tokens + usage.cache_read_tokens,
            cost_micro_usd=self.cost_micro_usd + usage.cost_micro_usd,
        )


class Outcome(Enum):
    """How a turn ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    ABORTED = "aborted"


@dataclass(frozen=True)
class Ended(Item):
    """The end of a turn."""

    outcome: Outcome = Outcome.COMPLETED
    spent: Spent = Spent()
    reason: str = ""
    message: str = ""


class TurnView:
    """The items of one turn, in order. `live` holds those that are not settled."""

    def __init__(self) -> None:
        self.live: list[Item] = []
        self.model = ""
        self.spent = Spent()
        self.ended = False
        self._since: datetime | None = None
        # The parts of which something was settled.
        self._shown: set[str] = set()
        self._takes: dict[type, Callable[[Any, datetime | None], None]] = {
            TurnStarted: self._started,
            TextDelta: self._text,
            ReasoningDelta: self._thought,
            ToolStarted: self._start_tool,
            ToolOutput: self._print_tool,
            ToolFinished: self._finish_tool,
            PermissionAsked: lambda asked, now: self._open(Asked(asked=asked), now),
            PermissionReplied: self._reply,
            PermissionExpired: self._expire,
            UserSteered: lambda said, now: self._open(Said(closed=True, text=words.clean(said.text)), now),
            WrapUpAsked: lambda asked, now: self._open(Note(closed=True, text=wrap_up_line(asked)), now),
            TodoUpdated: lambda todo, now: self._open(Todos(closed=True, items=tuple(todo.items)), now),
            PartsVoided: self._void,
            Retrying: lambda found, now: self._open(
                Note(closed=True, text=f"trying again: {words.one_line(found.message, 200)}"), now
            ),
            Usage: self._spend,
            TurnCompleted: self._end,
            TurnFailed: self._end,
            TurnAborted: self._end,
        }

    @property
    def asked(self) -> Asked | None:
        """The permission that waits for an answer, the oldest if there are several."""
        return next((item for item in self.live if isinstance(item, Asked) and not item.closed), None)

    def apply(self, event: TurnEvent) -> list[Item]:
        """Take an event in; the items that it settles, in order."""
        what = which_one_of(event, "event")[1]
        # An event of a kind that this version does not know has nothing to show.
        if take := self._takes.get(type(what)):
            take(what, event.create_time)
        return self._settle()

    def _started(self, started: TurnStarted, now: datetime | None) -> None:
        self.model = f"{started.provider_id}/{started.model_id}"
        self._since = now

    def _text(self, delta: TextDelta, now: datetime | None) -> None:
        said = words.clean(delta.text)
        last = self.live[-1] if self.live else None
        if isinstance(last, Text) and last.part_id == delta.part_id and not last.closed:
            self.live[-1] = replace(last, text=last.text + said)
        else:
            self._open(Text(part_id=delta.part_id, text=said), now)
        if "\n" in said:
            self._split_last()

    def _split_last(self) -> None:
        """Close the blocks of the last text that are finished."""
        last = self.live[-1]
        if isinstance(last, Text):
            finished, rest = split_finished(last.text)
            closed = [replace(last, text=block, closed=True) for block in finished]
            self.live[-1:] = [*closed, replace(last, text=rest)]

    def _thought(self, delta: ReasoningDelta, now: datetime | None) -> None:
        said = words.clean(delta.text)
        last = self.live[-1] if self.live else None
        if isinstance(last, Thought) and last.part_id == delta.part_id and not last.closed:
            self.live[-1] = replace(last, text=last.text + said, until=now)
        else:
            self._open(Thought(part_id=delta.part_id, text=said, since=now, until=now), now)

    def _void(self, voided: PartsVoided, now: datetime | None) -> None:
        """Take back what does not count. What went into the scrollback stays there, so it is said to be void."""
        void = [item for item in self.live if getattr(item, "part_id", None) in voided.part_ids]
        self.live = [item for item in self.live if item not in void]
        if self._shown & set(voided.part_ids):
            self._open(Note(closed=True, text="the last words above are void; the answer begins again"), now)

    def _open(self, item: Item, now: datetime | None) -> None:
        """Put an item at the end; what was said or thought before it is complete."""
        if self.live and isinstance(self.live[-1], Text | Thought):
            self._close_last(now)
        self.live.append(item)

    def _close_last(self, now: datetime | None) -> None:
        last = self.live[-1]
        self.live[-1] = (
            replace(last, until=now, closed=True) if isinstance(last, Thought) else replace(last, closed=True)
        )

    def _start_tool(self, started: ToolStarted, now: datetime | None) -> None:
        self._open(Tool(call_id=started.call_id, tool=started.tool, title=tool_title(started), since=now), now)

    def _print_tool(self, printed: ToolOutput, _: datetime | None) -> None:
        self._change_tool(printed.call_id, lambda tool: _with_output(tool, printed.text))

    def _change_tool(self, call_id: str, change: Callable[[Tool], Tool]) -> None:
        for index, item in enumerate(self.live):
            if isinstance(item, Tool) and item.call_id == call_id:
                self.live[index] = change(item)

    def _finish_tool(self, finished: ToolFinished, now: datetime | None) -> None:
        if not any(isinstance(item, Tool) and item.call_id == finished.call_id for item in self.live):
            self._open(Tool(call_id=finished.call_id, tool=finished.tool, since=now), now)
        self._change_tool(finished.call_id, lambda tool: _finished(tool, finished))

    def _reply(self, replied: PermissionReplied, _: datetime | None) -> None:
        for index, item in enumerate(self.live):
            if isinstance(item, Asked) and item.asked and item.asked.permission_id == replied.permission_id:
                self.live[index] = replace(item, reply=replied.reply, closed=True)

    def _expire(self, expired: PermissionExpired, _: datetime | None) -> None:
        for index, item in enumerate(self.live):
            if isinstance(item, Asked) and item.asked and item.asked.permission_id == expired.permission_id:
                self.live[index] = replace(item, expired=True, closed=True)

    def _spend(self, usage: Usage, _: datetime | None) -> None:
        self.spent = self.spent.plus(usage)

    def _end(self, end: TurnCompleted | TurnAborted | TurnFailed, now: datetime | None) -> None:
        self.ended = True
        seconds = (now - self._since).total_seconds() if now and self._since else 0.0
        self.spent = spent = replace(self.spent, seconds=seconds)
        self.live = [_stopped(item) for item in self.live if not isinstance(item, Asked) or item.closed]
        match end:
            case TurnFailed():
                ended = Ended(True, Outcome.FAILED, spent, str(end.reason), end.message)
            case TurnAborted():
                ended = Ended(True, Outcome.ABORTED, spent)
            case _:
                ended = Ended(True, Outcome.COMPLETED, spent)
        self.live.append(ended)

    def _settle(self) -> list[Item]:
        """Take the closed items off the front. One that runs holds back those after it, so that all keeps its order."""
        count = next((index for index, item in enumerate(self.live) if not item.closed), len(self.live))
        settled, self.live = self.live[:count], self.live[count:]
        self._shown |= {item.part_id for item in settled if isinstance(item, Text)}
        return [item for item in settled if not isinstance(item, Text) or item.text.strip()]


def _with_output(tool: Tool, text: str) -> Tool:
    return replace(tool, output=(tool.output + words.clean(text))[-MOST_OUTPUT:])


def _finished(tool: Tool, finished: ToolFinished) -> Tool:
    failed = finished.outcome == ToolOutcome.ERROR
    return replace(
        tool,
        title=words.clean(finished.title) or tool.title,
        state=ToolState.FAILED if failed else ToolState.DONE,
        output=words.clean(finished.output[:MOST_OUTPUT]) or tool.output,
        error=words.clean(finished.error),
        seconds=finished.duration.total_seconds() if finished.duration is not None else None,
        closed=True,
    )


def _stopped(item: Item) -> Item:
    """The item as the end of the turn leaves it."""
    if isinstance(item, Tool) and not item.closed:
        return replace(item, state=ToolState.STOPPED, closed=True)
    return replace(item, closed=True)


def wrap_up_line(asked: WrapUpAsked) -> str:
    """That the turn nears its limit in time."""
    if asked.hard_limit_time is None:
        return "it nears its limit in time, and was told to wrap up"
    return f"it nears its limit in time, and was told to wrap up; it ends by {asked.hard_limit_time.astimezone():%H:%M}"


def spent_line(spent: Spent) -> str:
    """What a turn cost: tokens, price where it is known, time."""
    parts = [f"{spent.input_tokens:,} in", f"{spent.output_tokens:,} out"]
    if spent.cached_tokens:
        parts[0] += f" ({spent.cached_tokens:,} cached)"
    if spent.cost_micro_usd:
        parts.append(words.cost(spent.cost_micro_usd))
    if not (spent.input_tokens or spent.output_tokens):
        parts = []
    return " · ".join([*parts, words.duration(spent.seconds)])
