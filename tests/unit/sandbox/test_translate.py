"""The translator, on what a real opencode said."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.sandbox import agent_events as said_by
from services.sandbox import mapping
from services.sandbox.bounds import bounded
from services.sandbox.event import (
    Event,
    Failed,
    FileEdited,
    PartsVoided,
    PermissionAsked,
    PermissionExpired,
    PermissionReplied,
    ReasoningDelta,
    Reply,
    Retrying,
    TextDelta,
    TodoItem,
    TodoUpdated,
    ToolFinished,
    ToolOutput,
    ToolStarted,
    Usage,
)
from services.sandbox.failures import failure, retry_message
from services.sandbox.run import Numbered
from services.sandbox.tool_calls import new_output
from services.sandbox.translate import Translator

RECORDED = Path(__file__).parent / "recorded"
NAMES = sorted(path.stem for path in RECORDED.glob("*.jsonl"))


def said(name: str) -> list[said_by.AgentEvent]:
    """What opencode said in a recorded turn."""
    parsed = map(said_by.parse_event, (RECORDED / f"{name}.jsonl").read_text().splitlines())
    return [event for event in parsed if event]


def translator_of(name: str) -> Translator:
    """A translator for a recorded turn."""
    prompt = next(e.info for e in said(name) if isinstance(e, said_by.MessageChanged) and e.info.role == "user")
    return Translator(prompt.session_id, prompt.id)


def told(name: str) -> Sequence[Event]:
    """The events of a recorded turn."""
    translator = translator_of(name)
    return [event for one in said(name) for event in translator.feed(one)]


def text(events: Sequence[Event], kind: type[TextDelta] | type[ReasoningDelta] = TextDelta) -> str:
    """All text of one kind."""
    return "".join(event.text for event in events if isinstance(event, kind))


def only(events: Sequence[Event], kind: type[Event]) -> list[Event]:
    """The events of one kind."""
    return [event for event in events if isinstance(event, kind)]


def test_text_comes_piece_by_piece() -> None:
    events = told("say")
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Hello ", "there ", "my ", "friend"]
    assert len(only(events, Usage)) == 1


def test_a_tool_is_started_prints_and_finishes() -> None:
    events = told("bash")
    kinds = [type(event) for event in events if not isinstance(event, TextDelta | Usage)]
    assert (kinds[0], kinds[-1]) == (ToolStarted, ToolFinished)
    started, finished = only(events, ToolStarted)[0], only(events, ToolFinished)[0]
    assert isinstance(started, ToolStarted)
    assert isinstance(finished, ToolFinished)
    assert (started.tool, started.title, started.call_id) == ("bash", "Run a command", finished.call_id)
    assert "".join(e.text for e in events if isinstance(e, ToolOutput)) == "line 1\nline 2\nline 3\n"
    assert finished.error is None
    assert finished.seconds > 0.8


def test_edits_and_tasks_are_told() -> None:
    assert only(told("edit"), FileEdited) == [FileEdited("/workspace/note.txt")]
    items = [TodoItem("first", "pending", "high"), TodoItem("second", "pending", "high")]
    assert only(told("todo"), TodoUpdated) == [TodoUpdated(items)]


def test_reasoning_is_no_answer() -> None:
    events = told("think")
    assert (text(events, ReasoningDelta), text(events)) == ("Let me think. ", "Done.")


@pytest.mark.parametrize(("name", "reply"), [("permission", Reply.ONCE), ("reject", Reply.REJECT)])
def test_a_permission_comes_after_its_call(name: str, reply: Reply) -> None:
    events = told(name)
    kinds = [type(event) for event in events if isinstance(event, ToolStarted | PermissionAsked | PermissionReplied)]
    assert kinds == [ToolStarted, PermissionAsked, PermissionReplied]
    started, asked, replied = (only(events, kind)[0] for kind in kinds)
    assert isinstance(started, ToolStarted)
    assert isinstance(asked, PermissionAsked)
    assert asked.call_id == started.call_id
    assert (asked.title, list(asked.patterns), list(asked.always_patterns)) == (
        "rm -rf nothing", ["rm -rf nothing"], ["rm *"],
    )  # fmt: skip
    assert replied == PermissionReplied(asked.permission_id, reply)
    assert not only(events, ToolOutput)


def test_a_permission_whose_call_never_comes_is_released() -> None:
    translator = translator_of("permission")
    for one in said("permission"):
        assert not only(list(translator.feed(one)), PermissionAsked)
        if isinstance(one, said_by.PermissionRequested):
            break
    assert len(list(translator.release())) == 1
    assert not list(translator.release())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("unauthenticated", "PROVIDER_UNAUTHENTICATED"),
        ("badjson", "PROVIDER_BAD_RESPONSE"),
        ("unknown_model", "MODEL_NOT_FOUND"),
    ],
)
def test_errors_become_reasons(name: str, reason: str) -> None:
    translator = translator_of(name)
    for one in said(name):
        list(translator.feed(one))
    assert translator.error
    failed = failure(translator.error)
    assert failed.reason == reason
    assert "upstream detail" not in failed.message
    assert translator.idle


@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, "PROVIDER_UNAUTHENTICATED"), (403, "PROVIDER_UNAUTHENTICATED"), (404, "MODEL_NOT_FOUND"),
     (429, "PROVIDER_RATE_LIMITED"), (503, "PROVIDER_UNAVAILABLE"), (400, "AGENT_ERROR")],
)  # fmt: skip
def test_statuses_become_reasons(status: int, reason: str) -> None:
    error = said_by.AgentError.model_validate(
        {"name": "APIError", "data": {"message": "at https://secret.example: no", "statusCode": status}}
    )
    assert failure(error).reason == reason
    assert "secret" not in failure(error).message


def test_an_error_of_nobody_knows_what_is_the_agents() -> None:
    assert failure(said_by.AgentError.model_validate({"name": "X", "data": None})) == Failed(
        "AGENT_ERROR", "The agent stopped with an error."
    )


def test_a_retry_is_told_in_our_words() -> None:
    retry = only(told("failing"), Retrying)[0]
    assert isinstance(retry, Retrying)
    assert retry.attempt == 1
    assert "upstream" not in retry.message
    assert "limits" in retry_message("429 Too Many Requests from https://secret.example")


def test_an_abort_keeps_the_text() -> None:
    translator = translator_of("abort")
    events = [event for one in said("abort") for event in translator.feed(one)]
    assert text(events) == "word0 word1 word2 word3 word4 word"
    assert translator.idle == 2
    assert translator.error
    assert translator.error.name == "MessageAbortedError"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_twice_is_told_once(name: str) -> None:
    """Whole states are repeated, by opencode itself and by a catch-up; pieces are not."""
    translator = translator_of(name)
    events: list[Event] = []
    for one in said(name):
        events += translator.feed(one)
        if not isinstance(one, said_by.PartGrew | said_by.StatusChanged | said_by.TodoChanged):
            events += translator.feed(one)
    assert events == list(told(name))


@given(st.sampled_from(["say", "bash", "edit", "think", "abort"]), st.data())
def test_a_cut_stream_loses_no_text(name: str, data: st.DataObject) -> None:
    """Any stretch of the stream is lost; what REST tells afterwards makes the text whole."""
    lines = said(name)
    start = data.draw(st.integers(0, len(lines)))
    end = data.draw(st.integers(start, len(lines)))
    translator = translator_of(name)
    events: list[Event] = []
    for one in lines[:start]:
        events += translator.feed(one)
    translator.stream_was_cut()
    with translator.catching_up():
        for one in states(lines[:end]):
            events += translator.feed(one)
    for one in lines[end:]:
        events += translator.feed(one)
    with translator.catching_up():
        for one in states(lines):
            events += translator.feed(one)
    whole = list(told(name))
    assert (text(events), text(events, ReasoningDelta)) == (text(whole), text(whole, ReasoningDelta))
    for kind in (ToolStarted, ToolFinished, FileEdited, Usage):
        assert only(events, kind) == only(whole, kind)


def states(lines: Sequence[said_by.AgentEvent]) -> Iterator[said_by.AgentEvent]:
    """What REST would tell: every message, and every part as it stands. An unfinished text stands there empty."""
    messages = {e.info.id: e for e in lines if isinstance(e, said_by.MessageChanged)}
    parts = {e.part.id: e for e in lines if isinstance(e, said_by.PartChanged)}
    yield from messages.values()
    yield from parts.values()


def test_other_sessions_and_older_messages_are_left_out() -> None:
    prompt = translator_of("say")
    other = Translator("ses_other", "msg_other")
    assert not [event for one in said("say") for event in other.feed(one)]
    old = {"id": "prt_1", "sessionID": prompt._session_id, "messageID": "msg_old", "type": "text", "text": "old"}
    assert not list(prompt.feed(said_by.PartChanged.model_validate({"part": old})))


def test_a_sub_agent_counts_and_asks() -> None:
    translator = translator_of("say")
    session = translator._session_id
    child = {"id": "ses_child", "parentID": session}
    list(translator.feed(said_by.SessionChanged.model_validate({"info": child})))
    asked = {"id": "per_1", "sessionID": "ses_child", "permission": "bash", "metadata": {"command": "ls"}}
    events = list(translator.feed(said_by.PermissionRequested.model_validate(asked)))
    assert isinstance(events[0], PermissionAsked)
    part = {"id": "prt_9", "sessionID": "ses_child", "messageID": "msg_c", "type": "step-finish", "cost": 0.5}
    assert only(list(translator.feed(said_by.PartChanged.model_validate({"part": part}))), Usage) == [
        Usage(0, 0, 0, 0, 0, 500_000)
    ]
    spoken = {"id": "prt_8", "sessionID": "ses_child", "messageID": "msg_c", "type": "text", "text": "inner"}
    assert not list(translator.feed(said_by.PartChanged.model_validate({"part": spoken})))


@pytest.mark.parametrize("count", [float("inf"), float("nan"), -1.0, 1e300])
def test_nonsense_is_counted_as_far_as_it_goes(count: float) -> None:
    translator = translator_of("say")
    session, message = translator._session_id, "msg_of_ours"
    part = {"id": "prt_1", "sessionID": session, "messageID": message, "type": "step-finish", "cost": count}
    tokens = {"input": count, "output": count, "reasoning": count, "cache": {"read": count, "write": count}}
    state = {"status": "completed", "time": {"start": 0, "end": count}}
    made: list[said_by.AgentEvent] = [
        said_by.PartChanged.model_validate({"part": {**part, "tokens": tokens}}),
        said_by.PartChanged.model_validate({"part": {**part, "id": "prt_2", "type": "tool", "state": state}}),
        said_by.StatusChanged.model_validate(
            {"sessionID": session, "status": {"type": "retry", "attempt": 2**40, "next": count}}
        ),
    ]
    translator._messages.add(message)
    events = [event for one in made for event in translator.feed(one)]
    assert [type(event) for event in events] == [Usage, ToolStarted, ToolFinished, Retrying]
    for event in events:
        told = mapping.event_to_proto("t", Numbered(1, datetime.now(UTC), event))
        assert told.WhichOneof("event") == mapping.EVENTS[type(event)][0]


def test_a_very_long_answer_is_told_whole_and_in_pieces() -> None:
    translator = translator_of("say")
    translator._messages.add("msg_of_ours")
    part = {"id": "prt_1", "sessionID": translator._session_id, "messageID": "msg_of_ours", "type": "text"}
    long = "\N{GRINNING FACE}" * 200_000
    events = list(translator.feed(said_by.PartChanged.model_validate({"part": {**part, "text": long}})))
    grown = {key: part[key] for key in ("sessionID", "messageID")} | {"partID": "prt_1", "field": "text", "delta": long}
    events += translator.feed(said_by.PartGrew.model_validate(grown))
    assert text(events) == long * 2
    assert [bounded(event) for event in events] == events


def test_a_compaction_is_no_answer_and_what_follows_is() -> None:
    translator = translator_of("say")
    session, prompt = translator._session_id, translator._message_id

    def message(message_id: str, created: float, **more: object) -> said_by.MessageChanged:
        info = {"id": message_id, "sessionID": session, "role": "assistant", "time": {"created": created}, **more}
        return said_by.MessageChanged.model_validate({"info": info})

    def spoken(message_id: str, words: str) -> list[Event]:
        part = {"id": f"prt_{message_id}", "sessionID": session, "messageID": message_id, "type": "text", "text": words}
        return list(translator.feed(said_by.PartChanged.model_validate({"part": part})))

    list(translator.feed(message(prompt, 100, role="user")))
    list(translator.feed(message("msg_before", 50)))
    list(translator.feed(message("msg_summary", 150, summary=True)))
    list(translator.feed(message("msg_after", 200, parentID="msg_continue")))
    assert not spoken("msg_before", "old")
    assert not spoken("msg_summary", "in short")
    assert text(spoken("msg_after", "go on")) == "go on"


@given(st.text(max_size=600), st.text(max_size=50))
def test_new_output_continues_what_was_told(before: str, after: str) -> None:
    assert new_output(before, before + after) == after


def test_new_output_follows_a_sliding_end() -> None:
    whole = "".join(f"line {i}\n" for i in range(5000))
    one, two = whole[:30000], whole[:33000]
    assert new_output("...\n\n" + one[-20000:], "...\n\n" + two[-20000:]) == whole[30000:33000]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"type": 1}',
        b'{"type": "session.idle"}',
        b'{"type": "session.idle", "properties": 3}',
        b'{"type": "message.part.updated", "properties": {"part": {"id": []}}}',
        b"\xff",
        b'{"type": "session.idle", "properties": ' + b"[" * 100_000,
        b'{"type": "session.idle", "properties": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
    ],
)
def test_nonsense_is_left_out(data: bytes) -> None:
    assert said_by.parse_event(data) is None


def test_every_recorded_line_is_json() -> None:
    for name in NAMES:
        for line in (RECORDED / f"{name}.jsonl").read_text().splitlines():
            assert "type" in json.loads(line)


def test_what_a_failed_model_call_had_said_is_taken_back() -> None:
    """A call that is cut in its middle is made again; what it had said must not count twice."""
    translator, recorded = translator_of("say"), said("say")
    begun = next(place for place, one in enumerate(recorded) if isinstance(one, said_by.PartGrew))
    events = [event for one in recorded[: begun + 1] for event in translator.feed(one)]
    part = next(event.part_id for event in events if isinstance(event, TextDelta))
    retry = next(one for one in said("cut") if isinstance(one, said_by.StatusChanged) and one.status.type == "retry")
    session = next(one.info.session_id for one in recorded if isinstance(one, said_by.MessageChanged))
    retry = retry.model_copy(update={"session_id": session})
    assert [type(event) for event in translator.feed(retry)] == [PartsVoided, Retrying]
    assert [type(event) for event in translator.feed(retry)] == [Retrying]
    rest = [event for one in recorded[begun:] for event in translator.feed(one)]
    assert part not in {event.part_id for event in rest if isinstance(event, TextDelta)}


def assistant(name: str, parent: str, created: float) -> said_by.MessageChanged:
    """A message that the agent begins to write."""
    return noted({"id": name, "role": "assistant", "parentID": parent, "time": {"created": created}})


def user(name: str, created: float) -> said_by.MessageChanged:
    """A message of the user, as opencode notes it."""
    return noted({"id": name, "role": "user", "time": {"created": created}})


def noted(info: dict[str, object]) -> said_by.MessageChanged:
    """A message of the session, as opencode tells it."""
    return said_by.MessageChanged.model_validate({"info": {"sessionID": "s", **info}})


def test_an_answer_to_the_last_word_answers_those_before_it() -> None:
    translator = Translator("s", "prompt")
    for said_message in (user("prompt", 1), assistant("first", "prompt", 2)):
        list(translator.feed(said_message))
    for name in ("z", "a", "m"):
        translator.expect(name)
    assert translator.unanswered == ["z", "a", "m"]
    # The call that was under way answers none of them, even when it is noted after they were.
    for said_message in (user("z", 3), user("a", 4), assistant("second", "prompt", 5)):
        list(translator.feed(said_message))
    assert translator.unanswered == ["z", "a", "m"]
    list(translator.feed(assistant("third", "a", 6)))
    assert translator.unanswered == ["m"]
    assert translator.owns("third")


def test_after_a_compaction_a_later_answer_counts() -> None:
    """It goes on under a message of its own, which sums up all that was said before."""
    translator = Translator("s", "prompt")
    list(translator.feed(user("prompt", 1)))
    translator.expect("steer")
    list(translator.feed(assistant("early", "compacted", 2)))
    assert translator.unanswered == ["steer"]
    list(translator.feed(user("steer", 3)))
    list(translator.feed(assistant("late", "compacted", 4)))
    assert translator.unanswered == []


def test_an_expired_permission_is_not_answered_afterwards() -> None:
    translator = translator_of("reject")
    events: list[Event] = []
    for one in said("reject"):
        events += translator.feed(one)
        for permission in translator.pending_permissions:
            if any(isinstance(event, PermissionAsked) for event in events):
                events += translator.expire(permission)
    asked = next(event for event in events if isinstance(event, PermissionAsked))
    assert only(events, PermissionExpired) == [PermissionExpired(asked.permission_id)]
    assert not only(events, PermissionReplied)
    finished = next(event for event in events if isinstance(event, ToolFinished))
    assert finished.error
    assert "rejected" not in finished.error
