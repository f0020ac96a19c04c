"""What a turn looks like, event by event."""

from datetime import UTC, datetime, timedelta
from typing import Any

from orginabox_sdk.google.protobuf import Struct
from orginabox_sdk.orginabox.errors.v1 import ErrorReason
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

from gateways.chat.view import (
    Asked,
    Ended,
    Item,
    Note,
    Outcome,
    Said,
    Spent,
    Text,
    Thought,
    Todos,
    Tool,
    ToolState,
    TurnView,
    spent_line,
)

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Played:
    """A view, and all that it has settled."""

    def __init__(self) -> None:
        self.view = TurnView()
        self.settled: list[Item] = []
        self._now = BEGIN

    def play(self, *whats: Any) -> "Played":
        """Apply events, a second apart."""
        names = {
            "TurnCompleted": "completed",
            "TurnFailed": "failed",
            "TurnAborted": "aborted",
            "TurnStarted": "started",
        }
        for what in whats:
            kind = type(what).__name__
            name = names.get(kind) or "".join(f"_{c.lower()}" if c.isupper() else c for c in kind).lstrip("_")
            event: TurnEvent = TurnEvent(create_time=self._now, **{name: what})
            self.settled += self.view.apply(event)
            self._now += timedelta(seconds=1)
        return self


def text(said: str, part: str = "p") -> TextDelta:
    return TextDelta(part_id=part, text=said)


def test_text_grows_and_settles_block_by_block() -> None:
    played = Played().play(text("# Ti"), text("tle\n\nSome "))
    assert played.settled == []
    assert [item.text for item in played.view.live if isinstance(item, Text)] == ["# Title\n\nSome "]
    played.play(text("words.\n"))
    assert [item.text for item in played.settled if isinstance(item, Text)] == ["# Title\n\n"]
    played.play(TurnCompleted())
    assert [item.text for item in played.settled if isinstance(item, Text)] == ["# Title\n\n", "Some words.\n"]
    assert played.view.live == []
    assert played.view.ended


def test_no_word_is_lost_or_doubled() -> None:
    said = "one\n\n- two\n- three\n\nfour\n\n```\nfive\n\nsix\n```\nseven"
    played = Played().play(*(text(letter) for letter in said), TurnCompleted())
    assert "".join(item.text for item in played.settled if isinstance(item, Text)) == said


def test_a_tool_runs_prints_and_ends() -> None:
    played = Played().play(
        text("Look:"),
        ToolStarted(call_id="c", tool="bash", input=Struct.from_dict({"command": "ls -la"})),
        ToolOutput(call_id="c", text="a\n"),
        ToolOutput(call_id="c", text="b\n"),
    )
    assert [type(item) for item in played.settled] == [Text]
    running = played.view.live[0]
    assert isinstance(running, Tool)
    assert (running.title, running.output, running.state) == ("ls -la", "a\nb\n", ToolState.RUNNING)
    finished = ToolFinished(call_id="c", tool="bash", outcome=ToolOutcome.COMPLETED, duration=timedelta(seconds=0.4))
    played.play(finished)
    done = played.settled[-1]
    assert isinstance(done, Tool)
    assert (done.state, done.seconds, done.output) == (ToolState.DONE, 0.4, "a\nb\n")


def test_tools_at_once_keep_their_order() -> None:
    played = Played().play(
        ToolStarted(call_id="a", tool="read"),
        ToolStarted(call_id="b", tool="grep"),
        ToolFinished(call_id="b", tool="grep", outcome=ToolOutcome.COMPLETED),
    )
    assert played.settled == []
    played.play(ToolFinished(call_id="a", tool="read", outcome=ToolOutcome.ERROR, error="no such file"))
    assert [(item.tool, item.state) for item in played.settled if isinstance(item, Tool)] == [
        ("read", ToolState.FAILED),
        ("grep", ToolState.DONE),
    ]


def test_a_tool_whose_start_was_missed_is_shown() -> None:
    played = Played().play(ToolFinished(call_id="x", tool="bash", outcome=ToolOutcome.COMPLETED, output="o"))
    assert [item.output for item in played.settled if isinstance(item, Tool)] == ["o"]


def test_a_permission_waits_and_is_answered() -> None:
    played = Played().play(
        ToolStarted(call_id="c", tool="bash"),
        PermissionAsked(permission_id="1", permission="bash", title="rm x"),
        PermissionAsked(permission_id="2", permission="edit"),
    )
    asked = played.view.asked
    assert asked is not None
    assert asked.asked is not None
    assert asked.asked.permission_id == "1"
    played.play(PermissionReplied(permission_id="1", reply=PermissionReply.ONCE))
    assert any(isinstance(item, Asked) and not item.closed for item in played.view.live)
    played.play(PermissionReplied(permission_id="2", reply=PermissionReply.REJECT))
    assert all(item.closed for item in played.view.live if isinstance(item, Asked))
    assert played.settled == []  # the tool before them still runs
    played.play(ToolFinished(call_id="c", tool="bash", outcome=ToolOutcome.COMPLETED))
    assert [type(item) for item in played.settled] == [Tool, Asked, Asked]


def test_thoughts_fold_when_something_follows() -> None:
    played = Played().play(
        ReasoningDelta(part_id="r", text="I "), ReasoningDelta(part_id="r", text="wonder"), text("So.")
    )
    thought = played.settled[0]
    assert isinstance(thought, Thought)
    assert thought.text == "I wonder"
    assert thought.since == BEGIN
    assert thought.until == BEGIN + timedelta(seconds=2)


def test_lists_and_notes_settle_at_once() -> None:
    played = Played().play(TodoUpdated(items=[TodoItem(content="a")]), Retrying(attempt=1, message="overloaded"))
    assert [type(item) for item in played.settled] == [Todos, Note]


def test_what_the_user_says_into_the_turn_stands_where_it_was_said() -> None:
    played = Played().play(
        TextDelta(part_id="p", text="Going right."),
        UserSteered(text="left\x1b[2J"),
        TextDelta(part_id="q", text="Going left."),
        TurnCompleted(),
    )
    assert [getattr(item, "text", "") for item in played.settled[:3]] == ["Going right.", "left", "Going left."]
    assert isinstance(played.settled[1], Said)


def test_a_permission_that_nobody_answered_is_not_a_refusal() -> None:
    played = Played().play(PermissionAsked(permission_id="x", permission="bash"), PermissionExpired(permission_id="x"))
    (asked,) = played.settled
    assert isinstance(asked, Asked)
    assert (asked.expired, asked.reply) == (True, None)
    assert played.view.asked is None


def test_a_turn_that_nears_its_limit_says_so() -> None:
    played = Played().play(WrapUpAsked(hard_limit_time=BEGIN), WrapUpAsked())
    assert all(isinstance(item, Note) and "told to wrap up" in item.text for item in played.settled)


def test_the_end_tells_what_it_cost() -> None:
    played = Played().play(
        TurnStarted(provider_id="p", model_id="m"),
        Usage(input_tokens=10, cache_read_tokens=90, output_tokens=4, reasoning_tokens=1, cost_micro_usd=7),
        Usage(input_tokens=5, output_tokens=5),
        TurnCompleted(),
    )
    assert played.view.model == "p/m"
    ended = played.settled[-1]
    assert isinstance(ended, Ended)
    assert ended.spent == Spent(105, 10, 90, 7, 3.0)
    assert spent_line(ended.spent) == "105 in (90 cached) · 10 out · $0.0000 · 3.0s"
    assert spent_line(Spent(seconds=0.6)) == "0.6s"


def test_an_end_leaves_nothing_open() -> None:
    played = Played().play(
        ToolStarted(call_id="c", tool="bash"), PermissionAsked(permission_id="1", permission="bash"), TurnAborted()
    )
    assert [type(item) for item in played.settled] == [Tool, Ended]
    stopped, ended = played.settled
    assert isinstance(stopped, Tool)
    assert stopped.state is ToolState.STOPPED
    assert isinstance(ended, Ended)
    assert ended.outcome is Outcome.ABORTED
    assert played.view.asked is None


def test_a_failure_says_why() -> None:
    played = Played().play(TurnFailed(reason=ErrorReason.AGENT_ERROR, message="it broke"))
    ended = played.settled[-1]
    assert isinstance(ended, Ended)
    assert (ended.reason, ended.message) == ("AGENT_ERROR", "it broke")


def test_an_event_of_a_newer_box_is_passed_over() -> None:
    assert TurnView().apply(TurnEvent(sequence=3)) == []


def test_nothing_that_is_said_commands_the_terminal() -> None:
    played = Played().play(
        text("a\x1b[2Jb"),
        ToolStarted(call_id="c", tool="bash", title="x\x1b]0;t\x07y"),
        ToolOutput(call_id="c", text="\x1b[1A"),
        ToolFinished(call_id="c", tool="bash", outcome=ToolOutcome.ERROR, error="\x1bcno"),
    )
    assert "\x1b" not in repr(played.settled).encode().decode("unicode_escape")


def test_what_is_void_is_taken_back() -> None:
    played = Played().play(
        TextDelta(part_id="a", text="Half a"),
        PartsVoided(part_ids=["a"]),
        Retrying(attempt=1, message="no answer"),
        TextDelta(part_id="b", text="Whole."),
        TurnCompleted(),
    )
    assert [item.text for item in played.settled if isinstance(item, Text)] == ["Whole."]


def test_what_is_void_and_in_the_scrollback_is_said_to_be() -> None:
    played = Played().play(
        TextDelta(part_id="a", text="A block.\n\n"),
        TextDelta(part_id="a", text="x\n"),
        PartsVoided(part_ids=["a"]),
        TurnCompleted(),
    )
    assert any(isinstance(item, Note) and "void" in item.text for item in played.settled)
