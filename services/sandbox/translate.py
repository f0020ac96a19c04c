"""Turns what opencode says of one session into the events of one turn. No I/O.

opencode tells the whole state of a part again and again, and sends text piece by piece besides. The translator keeps
how much of each part was told, so that the same state twice, or a state read by REST after a cut stream, tells only
what is new.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from services.sandbox import agent_events as said_by
from services.sandbox import event as events
from services.sandbox.agent_values import INT32, pieces, short, time_of, whole
from services.sandbox.ceiling import NO_TOOLS
from services.sandbox.event import Event, Reply
from services.sandbox.failures import retry_message
from services.sandbox.tool_calls import (
    EDITING_TOOLS,
    NO_OUTPUT,
    asked_for,
    edited_paths,
    finished,
    new_output,
    shortened,
    title_of,
)

_NOT_PERMITTED_IN_TIME = "Nobody answered in time whether this may be done, so it was not done."


@dataclass
class _Text:
    """A part of text or reasoning: how much of it was told."""

    delta: type[events.TextDelta | events.ReasoningDelta]
    told: int = 0
    # Pieces were missed, so nothing more is told until the whole text is known.
    gap: bool = False
    ended: bool = False


@dataclass
class _Tool:
    """A tool call: what of it was told."""

    name: str
    output: str = ""
    started: bool = False
    ended: bool = False


class Translator:
    """The events of one turn.

    Args:
        session_id: The session of the turn, in opencode's words.
        message_id: The user's message that began the turn.
    """

    def __init__(self, session_id: str, message_id: str) -> None:
        self._session_id = session_id
        self._message_id = message_id
        self._created = float("inf")
        # What was said into the turn and not answered yet: when opencode noted it, infinite until it has.
        self._unanswered: dict[str, float] = {}
        self._prompts = {message_id}
        self._messages: set[str] = set()
        self._summaries: set[str] = set()
        self._descendants: set[str] = set()
        self._texts: dict[str, _Text] = {}
        self._tools: dict[str, _Tool] = {}
        self._calls: dict[tuple[str, str], str] = {}
        self._steps: set[str] = set()
        self._permissions: dict[str, bool] = {}
        # The calls that wait for them, and those that waited for too long.
        self._permission_calls: dict[str, str] = {}
        self._permission_names: dict[str, str] = {}
        self._expired_calls: set[str] = set()
        # Permissions by the call that waits for them and is not told yet.
        self._held: dict[str, events.PermissionAsked] = {}
        self._catching_up = False
        # Whether opencode took up the turn, how often it said that it is done since, and the error that it named.
        self.begun = False
        self.idle = 0
        self.error: said_by.AgentError | None = None
        # Whether the last word on a model call was that it is tried again.
        self.retrying = False
        # The texts of the model call that is under way.
        self._fresh: list[str] = []

    @property
    def pending_permissions(self) -> list[str]:
        """The permissions that the agent waits for."""
        return [permission for permission, waits in self._permissions.items() if waits]

    def needed_for(self, permission_id: str) -> set[str]:
        """What has to be allowed for a permission to be given: what it is of, and the tool that asks for it."""
        tool = self._tools.get(self._permission_calls.get(permission_id, ""))
        names = {self._permission_names.get(permission_id, ""), tool.name if tool else ""}
        return names - {"", *NO_TOOLS}

    def owns(self, message_id: str) -> bool:
        """Whether a message is one that the agent wrote in this turn."""
        return message_id in self._messages

    @property
    def tool_runs(self) -> bool:
        """Whether a tool runs, which may take as long as it takes."""
        return any(tool.started and not tool.ended for tool in self._tools.values())

    @property
    def has_gap(self) -> bool:
        """Whether text was missed that only REST can tell."""
        return any(text.gap and not text.ended for text in self._texts.values())

    @property
    def unanswered(self) -> list[str]:
        """What was said into the turn, and the agent has not begun to answer."""
        return list(self._unanswered)

    def expect(self, message_id: str) -> None:
        """A message of the user is said into the turn: what answers it belongs to the turn."""
        self._prompts.add(message_id)
        self._unanswered[message_id] = float("inf")

    def unexpect(self, message_id: str) -> None:
        """Nobody will answer a message."""
        self._unanswered.pop(message_id, None)

    def expire(self, permission_id: str) -> Iterator[Event]:
        """Nobody has answered a permission in time. What opencode says of it from now on is no answer."""
        self._permissions[permission_id] = False
        self._expired_calls.add(self._permission_calls.get(permission_id, ""))
        yield events.PermissionExpired(permission_id)

    def stream_was_cut(self) -> None:
        """Pieces may have been missed: trust no piece of an unfinished text until its whole is known."""
        for text in self._texts.values():
            text.gap = not text.ended

    @contextmanager
    def catching_up(self) -> Iterator[None]:
        """What is fed in this block was read by REST: where an unfinished text stands in it is not known."""
        self._catching_up = True
        try:
            yield
        finally:
            self._catching_up = False

    def feed(self, said: said_by.AgentEvent) -> Iterator[Event]:
        """What the turn has to tell of something that opencode said."""
        match said:
            case said_by.PartGrew():
                yield from self._grown(said)
            case said_by.PartChanged(part=part):
                yield from self._part(part)
            case said_by.SessionChanged(info=info):
                self._session(info)
            case said_by.PermissionRequested() if self._is_ours(said.session_id):
                yield from self._asked(said)
            case said_by.PermissionAnswered() if self._is_ours(said.session_id):
                yield from self._answered(said)
            case _ if not isinstance(said, said_by.Connected) and said.session_id == self._session_id:
                yield from self._of_session(said)

    def _of_session(self, said: said_by.AgentEvent) -> Iterator[Event]:
        match said:
            case said_by.MessageChanged(info=info):
                self._message(info)
            case said_by.StatusChanged(status=status):
                yield from self._status(status)
            case said_by.SessionIdle():
                self.idle += int(self.begun)
            case said_by.SessionFailed(error=error) if self.begun:
                self.error = self.error or error
            case said_by.TodoChanged(todos=todos):
                yield events.TodoUpdated([events.TodoItem(t.content, t.status, t.priority) for t in todos])

    def _session(self, info: said_by.SessionInfo) -> None:
        if info.parent_id and self._is_ours(info.parent_id):
            self._descendants.add(info.id)

    def _is_ours(self, session_id: str) -> bool:
        return session_id == self._session_id or session_id in self._descendants

    def _message(self, info: said_by.MessageInfo) -> None:
        if info.id == self._message_id:
            self._created = info.time.created
        elif info.id in self._unanswered:
            self._unanswered[info.id] = info.time.created
        elif info.role == "assistant" and (info.parent_id in self._prompts or info.time.created >= self._created):
            # A compaction in the middle of a turn goes on under a message of its own, so the parent is not enough.
            self._messages.add(info.id)
            self.begun = True
            if info.summary is True:
                self._summaries.add(info.id)
            else:
                self._answer(info)

    def _answer(self, info: said_by.MessageInfo) -> None:
        """Note what a model call answers: the message that it names, and whatever was said before that one."""
        if info.parent_id in self._unanswered:
            # They stand in the order in which they were said.
            said = list(self._unanswered)
            answered = said[: said.index(info.parent_id) + 1]
        elif info.parent_id in self._prompts:
            answered = []
        else:
            answered = [message for message, created in self._unanswered.items() if created <= info.time.created]
        for message in answered:
            del self._unanswered[message]

    def _status(self, status: said_by.Status) -> Iterator[Event]:
        self.begun = self.begun or status.type == "busy"
        if status.type == "busy" and not self.idle:
            # It goes on, so the error before was none of the end: a full context is compacted, for example.
            self.error = None
        if status.type == "retry":
            self.retrying = True
            yield from self._void()
            yield events.Retrying(whole(status.attempt, INT32), retry_message(status.message), time_of(status.next))

    def _void(self) -> Iterator[Event]:
        """Take back what the failed model call had said: opencode keeps it, but the next try says it anew."""
        if void := [part_id for part_id in self._fresh if self._texts[part_id].told]:
            yield events.PartsVoided(void)
        for part_id in self._fresh:
            self._texts[part_id].ended = True
        self._fresh = []

    def _part(self, part: said_by.Part) -> Iterator[Event]:
        if part.type == "step-finish" and part.id not in self._steps:
            # What a sub-agent costs is part of what the turn costs.
            if part.message_id in self._messages or part.session_id in self._descendants:
                self._steps.add(part.id)
                self._fresh = []
                self.retrying = False
                yield _usage(part)
            return
        if part.message_id not in self._messages or part.message_id in self._summaries:
            return
        if part.type == "text":
            yield from self._text(part, events.TextDelta)
        elif part.type == "reasoning":
            yield from self._text(part, events.ReasoningDelta)
        elif part.type == "tool" and part.state:
            yield from self._tool(part, part.state)

    def _text(self, part: said_by.Part, delta: type[events.TextDelta | events.ReasoningDelta]) -> Iterator[Event]:
        text = self._texts.get(part.id)
        if text is None:
            text = self._texts[part.id] = _Text(delta, gap=self._catching_up)
            self._fresh.append(part.id)
        if text.ended:
            return
        text.ended = part.time.end is not None
        if len(part.text) > text.told:
            self.retrying = False
            yield from pieces(delta, part.id, part.text[text.told :])
            text.told = len(part.text)

    def _grown(self, said: said_by.PartGrew) -> Iterator[Event]:
        text = self._texts.get(said.part_id)
        if said.field == "text" and said.delta and text and not text.gap and not text.ended:
            self.retrying = False
            text.told += len(said.delta)
            yield from pieces(text.delta, said.part_id, said.delta)

    def _tool(self, part: said_by.Part, state: said_by.ToolState) -> Iterator[Event]:
        tool = self._tools.setdefault(part.id, _Tool(part.tool))
        self._calls[part.message_id, part.call_id] = part.id
        self.retrying = False
        if tool.ended or state.status == "pending":
            return
        if not tool.started:
            tool.started = True
            yield events.ToolStarted(part.id, part.tool, title_of(part, state.input), shortened(state.input))
            if asked := self._held.pop(part.id, None):
                yield asked
        output = state.metadata.get("output")
        if isinstance(output, str) and output != NO_OUTPUT and (new := new_output(tool.output, output)):
            tool.output = output
            yield events.ToolOutput(part.id, short(new))
        if state.status in {"completed", "error"}:
            tool.ended = True
            ended = finished(part, state)
            if ended.error is not None and part.id in self._expired_calls:
                # opencode knows no other word for it than that the user has refused.
                ended = replace(ended, error=_NOT_PERMITTED_IN_TIME)
            yield ended
            if state.status == "completed" and part.tool in EDITING_TOOLS:
                yield from (events.FileEdited(path) for path in edited_paths(state.metadata))

    def _asked(self, said: said_by.PermissionRequested) -> Iterator[Event]:
        if said.id in self._permissions:
            return
        self._permissions[said.id] = True
        call_id = self._calls.get((said.tool.message_id, said.tool.call_id), "") if said.tool else ""
        self._permission_calls[said.id] = call_id
        self._permission_names[said.id] = said.permission
        diff = said.metadata.get("diff")
        asked = events.PermissionAsked(
            permission_id=said.id,
            permission=said.permission,
            title=short(asked_for(said)),
            patterns=said.patterns,
            always_patterns=said.always,
            diff=short(diff) if isinstance(diff, str) else "",
            call_id=call_id,
        )
        if call_id and not self._tools[call_id].started:
            # opencode asks a moment before it tells the call. A reader wants to know first what it is about.
            self._held[call_id] = asked
        else:
            yield asked

    def release(self) -> Iterator[Event]:
        """What was held back for something that did not come."""
        yield from self._held.values()
        self._held.clear()

    def _answered(self, said: said_by.PermissionAnswered) -> Iterator[Event]:
        if not self._permissions.get(said.request_id):
            return
        self._permissions[said.request_id] = False
        reply = Reply(said.reply) if said.reply in set(Reply) else Reply.REJECT
        yield events.PermissionReplied(said.request_id, reply)


def _usage(part: said_by.Part) -> events.Usage:
    tokens = part.tokens
    return events.Usage(
        input_tokens=whole(tokens.input),
        output_tokens=whole(tokens.output),
        reasoning_tokens=whole(tokens.reasoning),
        cache_read_tokens=whole(tokens.cache.read),
        cache_write_tokens=whole(tokens.cache.write),
        cost_micro_usd=whole(part.cost * 1_000_000),
    )
