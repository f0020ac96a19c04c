"""Random messages of the contract: some that could be right, some that cannot, some that are unkind."""

import random
from typing import TYPE_CHECKING, Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KNOWN = "00000000-0000-7000-8000-000000000002"
DEEPEST = 4
UNKIND = (
    "",
    "a\0b",
    "' OR 1=1 --",
    "../../../etc/passwd",
    "{{7*7}}${jndi:ldap://x}",
    "%00%ff",
    "\u202eabc\ufeff",
    "x" * 10_000,
    "\U0001f600" * 300,
    "*",
    "-1",
    "null",
)
PLAIN = (
    "ada",
    "owner",
    "default",
    KNOWN,
    "00000000-0000-7000-8000-00000000dead",
    "agents.run",
    "demo",
    "UTC",
    "a@b.example",
)
NUMBERS = (0, 1, -1, 7, 2**31 - 1, -(2**31))
LARGE = (0, 1, -1, 2**63 - 1, -(2**63), 253_402_300_800)


class Dice:
    """Makes messages, the same for the same seed."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        r = self._random
        text = lambda: r.choice(PLAIN if r.random() < 0.6 else UNKIND)  # noqa: E731 - one of a table
        self._scalars: Mapping[int, Callable[[], Any]] = {
            FieldDescriptor.TYPE_BOOL: lambda: r.random() < 0.5,
            FieldDescriptor.TYPE_STRING: text,
            FieldDescriptor.TYPE_BYTES: lambda: r.randbytes(r.choice((0, 1, 100))),
            FieldDescriptor.TYPE_INT32: lambda: r.choice(NUMBERS),
            FieldDescriptor.TYPE_UINT32: lambda: abs(r.choice(NUMBERS[:-1])),
            FieldDescriptor.TYPE_INT64: lambda: r.choice(LARGE),
            FieldDescriptor.TYPE_UINT64: lambda: abs(r.choice(LARGE[:4])),
            FieldDescriptor.TYPE_DOUBLE: lambda: r.choice((0.0, -1.0, 1e308, float("nan"), float("inf"))),
            FieldDescriptor.TYPE_FLOAT: lambda: r.choice((0.0, -1.0, float("nan"))),
            FieldDescriptor.TYPE_ENUM: lambda: r.choice((0, 1, 2, 99)),
        }

    def message(self, kind: Descriptor, depth: int = 0) -> Message:
        """A message with some of its fields set."""
        made = message_factory.GetMessageClass(kind)()
        for field in kind.fields:
            if self._random.random() < 0.7:
                self._set(made, field, depth)
        return made

    def _set(self, made: Message, field: FieldDescriptor, depth: int) -> None:
        if field.message_type is not None:
            if depth < DEEPEST and not field.message_type.GetOptions().map_entry:
                self._set_message(made, field, depth)
        elif field.is_repeated:
            getattr(made, field.name).extend(self._scalars[field.type]() for _ in range(self._random.choice((0, 1, 3))))
        else:
            setattr(made, field.name, self._scalars[field.type]())

    def _set_message(self, made: Message, field: FieldDescriptor, depth: int) -> None:
        assert field.message_type is not None
        if field.is_repeated:
            count = self._random.choice((0, 1, 2))
            getattr(made, field.name).extend(self.message(field.message_type, depth + 1) for _ in range(count))
        else:
            getattr(made, field.name).CopyFrom(self.message(field.message_type, depth + 1))
