"""Keeps what the contract calls secret or personal where it belongs.

A field with the option `sensitive` stays out of logs, and one that is for input only (`INPUT_ONLY`, such as a key)
stays out of every answer, whatever a handler put there. What a message holds is found once for each type of message.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from services.kit.policy import sensitive_fields

REDACTED = "[redacted]"
MAX_TEXT = 200
MAX_ITEMS = 20


def redacted(message: Message) -> dict[str, Any]:
    """What may be logged of a message: its fields by name, secrets replaced, long values cut."""
    secret = sensitive_fields(message.DESCRIPTOR)
    return {
        field.name: REDACTED if field.name in secret else _shown(field, value) for field, value in message.ListFields()
    }


def clear_input_only(answer: Message) -> None:
    """Take what is for input only out of an answer, in place."""
    for field in _on_the_way(answer.DESCRIPTOR):
        if _is_input_only(field):
            answer.ClearField(field.name)
        else:
            for inner in _messages(field, getattr(answer, field.name)):
                clear_input_only(inner)


def _shown(field: FieldDescriptor, value: Any) -> Any:
    if _is_map(field):
        return f"{len(value)} entries"
    if field.is_repeated:
        shown = [_shown_one(item) for item in value[:MAX_ITEMS]]
        return shown if len(value) <= MAX_ITEMS else [*shown, f"and {len(value) - MAX_ITEMS} more"]
    return _shown_one(value)


def _shown_one(value: Any) -> Any:
    match value:
        case Message():
            return redacted(value)
        case bytes():
            return f"{len(value)} bytes"
        case str() if len(value) > MAX_TEXT:
            return f"{value[:MAX_TEXT]} and {len(value) - MAX_TEXT} more characters"
    return value


@cache
def _on_the_way(message: Descriptor) -> tuple[FieldDescriptor, ...]:
    """The fields of a message that are for input only, or lead to such a field."""
    return tuple(field for field in message.fields if _is_input_only(field) or _leads_to_secrets(field, frozenset()))


def _leads_to_secrets(field: FieldDescriptor, seen: frozenset[str]) -> bool:
    inner = field.message_type
    if inner is None or inner.full_name in seen:
        return False
    seen |= {inner.full_name}
    return any(_is_input_only(found) or _leads_to_secrets(found, seen) for found in inner.fields)


def _messages(field: FieldDescriptor, value: Any) -> Iterator[Message]:
    if _is_map(field):
        yield from value.values()
    elif field.is_repeated:
        yield from value
    else:
        yield value


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


@cache
def _is_input_only(field: FieldDescriptor) -> bool:
    return field_behavior_pb2.INPUT_ONLY in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
