"""The rules of protovalidate in words. A rule without words here is an error: nothing that is enforced goes untold."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_STRING: Mapping[str, Callable[[Any], str]] = {
    "min_len": lambda value: "not empty" if value == 1 else f"at least {value:,} characters",
    "max_len": lambda value: f"at most {value:,} characters",
    "max_bytes": lambda value: f"at most {value:,} bytes",
    "uuid": lambda _: "a UUID",
    "email": lambda _: "a mail address",
    "uri": lambda _: "a URI",
    "pattern": lambda value: f"matches `{value}`",
    "not_contains": lambda value: "without NUL" if value == "\0" else f"without `{value}`",
}
_NUMBER: Mapping[str, Callable[[Any], str]] = {
    "gte": lambda value: f"at least {value:,}",
    "lte": lambda value: f"at most {value:,}",
}
WORDS: Mapping[str, Mapping[str, Callable[[Any], str]]] = {
    "string": _STRING,
    "bytes": {"max_len": lambda value: f"at most {value:,} bytes"},
    "int32": _NUMBER,
    "int64": _NUMBER,
    "double": {"gte": lambda value: f"at least {value:g}", "finite": lambda _: "a finite number"},
    "enum": {
        "defined_only": lambda _: "a value of the enum",
        "not_in": lambda _: "not the unspecified one",
    },
    "repeated": {
        "min_items": lambda value: "not empty" if value == 1 else f"at least {value:,} items",
        "max_items": lambda value: f"at most {value:,} items",
    },
}


class RuleUntold(Exception):
    """A rule of the contract has no words."""


def rules_of(rules: validate_pb2.FieldRules) -> Sequence[str]:
    """What must hold for a field."""
    kind = rules.WhichOneof("type")
    told = _told(kind, getattr(rules, kind)) if kind else []
    if told and rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE:
        return [f"empty, or {told[0]}", *told[1:]]
    return told


def is_required(rules: validate_pb2.FieldRules) -> bool:
    """Whether the field must be given."""
    if rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE:
        return False
    string, items = rules.string, rules.repeated
    return rules.required or string.min_len > 0 or string.uuid or items.min_items > 0 or 0 in rules.enum.not_in


def _told(kind: str, rules: Message) -> list[str]:
    told: list[str] = []
    for descriptor, value in _in_order(kind, rules):
        if kind == "repeated" and descriptor.name == "items":
            told += [f"each {rule}" for rule in rules_of(value)]
        elif descriptor.name in WORDS.get(kind, {}):
            told.append(WORDS[kind][descriptor.name](value))
        else:
            raise RuleUntold(f"say the rule {kind}.{descriptor.name} in docs/generator/rules.py")
    return told


def _in_order(kind: str, rules: Message) -> list[tuple[FieldDescriptor, Any]]:
    """The rules that are set, in the order in which they stand above: least before most."""
    order = list(WORDS.get(kind, {}))
    return sorted(rules.ListFields(), key=lambda found: order.index(found[0].name) if found[0].name in order else -1)
