"""Events as server-sent events."""

import json

from orginabox.turn.v1 import turn_event_pb2

from services.api import event_text
from services.api.turn import Event


def event(sequence: int, text: str) -> Event:
    made = turn_event_pb2.TurnEvent(sequence=sequence, turn_id="t")
    made.text_delta.part_id, made.text_delta.text = "p", text
    return Event(sequence, made.SerializeToString())


def test_what_waits_for_a_reader_goes_into_one_message() -> None:
    (body,) = event_text.bodies_of([event(1, "a"), event(2, "é")])
    assert body.data.decode() == (
        'id: 1\ndata: {"sequence":"1","turnId":"t","textDelta":{"partId":"p","text":"a"}}\n\n'
        'id: 2\ndata: {"sequence":"2","turnId":"t","textDelta":{"partId":"p","text":"é"}}\n\n'
    )


def test_nothing_that_an_agent_says_ends_an_event() -> None:
    (body,) = event_text.bodies_of([event(1, 'x\n\nid: 9\ndata: {"sequence":"9"}\r\n\u2028')])
    identity, data, *rest = body.data.decode().split("\n")
    assert (identity, rest) == ("id: 1", ["", ""])
    assert json.loads(data.removeprefix("data: "))["textDelta"]["text"].startswith("x\n\nid: 9")


def test_messages_stay_small_and_large_events_go_alone() -> None:
    events = [*(event(number, "x" * 60_000) for number in range(1, 6)), event(6, "y" * 500_000)]
    bodies = list(event_text.bodies_of(events))
    assert [body.data.count(b"id: ") for body in bodies] == [2, 2, 1, 1]


def test_an_event_is_written_once_for_all_readers() -> None:
    one = event(1, "a")
    first, second = (next(iter(event_text.bodies_of([one]))).data for _ in range(2))
    assert first == second == one.shown[event_text.CONTENT_TYPE]


def test_values_that_are_not_set_are_said_and_what_json_cannot_say_leaves_its_number() -> None:
    finished = turn_event_pb2.TurnEvent(sequence=1)
    finished.tool_finished.call_id = "c"
    told = json.loads(event_text.text_of(finished).decode().split("data: ")[1])
    assert told["turnId"] == ""
    assert told["toolFinished"]["output"] == ""
    strange = turn_event_pb2.TurnEvent(sequence=2, turn_id="t")
    strange.tool_started.input["n"] = float("nan")
    left = json.loads(event_text.text_of(strange).decode().split("data: ")[1])
    assert (left["sequence"], left["turnId"], "toolStarted" in left) == ("2", "t", False)
