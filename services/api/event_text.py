"""Events as `text/event-stream`: each is written as text once, for all who read it, and several go into one message."""

import json
from collections.abc import Iterator, Sequence

from google.api import httpbody_pb2
from google.protobuf import json_format
from orginabox.turn.v1 import turn_event_pb2

from services.api.turn import Event
from services.kit import telemetry

CONTENT_TYPE = "text/event-stream"
MESSAGE_BYTES = 128 << 10
"""How much text goes into one message at most; an event that is larger has one of its own."""

OPENING = httpbody_pb2.HttpBody(content_type=CONTENT_TYPE)
"""The first message. It has no event, so that a reader of a quiet turn is answered at once."""


def bodies_of(events: Sequence[Event]) -> Iterator[httpbody_pb2.HttpBody]:
    """Messages with the text of events."""
    texts, size = list[bytes](), 0
    for event in events:
        text = _text_of(event)
        if texts and size + len(text) > MESSAGE_BYTES:
            yield httpbody_pb2.HttpBody(data=b"".join(texts))
            texts, size = [], 0
        texts.append(text)
        size += len(text)
    if texts:
        yield httpbody_pb2.HttpBody(data=b"".join(texts))


def body_of(event: turn_event_pb2.TurnEvent) -> httpbody_pb2.HttpBody:
    """A message with the text of an event that is not in the log."""
    return httpbody_pb2.HttpBody(data=text_of(event))


def text_of(event: turn_event_pb2.TurnEvent) -> bytes:
    """An event as text. JSON has no line ends but those that it escapes, so nothing in an event can end it."""
    return f"id: {event.sequence}\ndata: {_json(event)}\n\n".encode()


def _text_of(event: Event) -> bytes:
    text = event.shown.get(CONTENT_TYPE)
    if text is None:
        text = event.shown[CONTENT_TYPE] = text_of(turn_event_pb2.TurnEvent.FromString(event.data))
    return text


def _json(event: turn_event_pb2.TurnEvent) -> str:
    try:
        fields = json_format.MessageToDict(event, always_print_fields_with_no_presence=True)
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (ValueError, json_format.Error) as error:
        # JSON has no word for some numbers that an agent may say. Its number stands, so that the stream has no gap.
        telemetry.log().warning("event is no JSON", sequence=event.sequence, turn_id=event.turn_id, cause=repr(error))
        left = turn_event_pb2.TurnEvent(sequence=event.sequence, turn_id=event.turn_id, create_time=event.create_time)
        return json.dumps(json_format.MessageToDict(left), separators=(",", ":"))
