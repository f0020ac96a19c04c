"""Keeps an event fit for every reader: the agent's side says what it likes, and what was left out of it is said."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any, TypeVar

from services.sandbox.event import Event, TodoItem, text_size

# A message of the mesh holds 4 MiB, and a batch that is nearly full takes one event more.
_EVENT_BYTES = 768 * 1024
# A text this short is always told whole: names and ids are.
_SHORT_BYTES = 1024
_NODE_BYTES = 16
# Each level is up to three levels of the wire, which has a hundred.
_DEPTH = 16
_WHOLE_NUMBERS = 2**63
_CUT = "… (cut)"
_TOO_DEEP = "… (nested too deeply)"
# Half a character, which is none in UTF-8.
_SURROGATE = re.compile("[\ud800-\udfff]")

_ItemT = TypeVar("_ItemT", bound=Event | TodoItem)


def bounded(event: Event) -> Event:
    """The event, with no text, number, depth or size in it that cannot be told."""
    return _Room().item(event)


class _Room:
    """The room of one event."""

    def __init__(self) -> None:
        self._left = _EVENT_BYTES

    def item(self, item: _ItemT) -> _ItemT:
        """An event or a task, field by field."""
        return replace(item, **{name: self._value(value) for name, value in vars(item).items()})

    def _value(self, value: Any, depth: int = 0) -> Any:
        self._left -= _NODE_BYTES
        match value:
            case str() if not isinstance(value, Enum):
                return self._text(value)
            case int() | float() if depth and not abs(value) < _WHOLE_NUMBERS:
                # The JSON of readers knows no such number, or another one.
                return self._text(str(value))
            case Mapping():
                return self._members(value, depth + 1) if depth < _DEPTH else _TOO_DEEP
            case list() | tuple():
                return self._items(value, depth + 1) if depth < _DEPTH else _TOO_DEEP
            case TodoItem():
                return self.item(value)
        return value

    def _text(self, text: str) -> str:
        text = _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
        size, room = text_size(text), max(self._left, _SHORT_BYTES)
        self._left -= size
        return text if size <= room else text.encode()[:room].decode(errors="ignore") + _CUT

    def _members(self, members: Mapping[str, Any], depth: int) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for name, value in members.items():
            if self._left <= 0:
                kept["…"] = _CUT
                break
            kept[self._text(name)] = self._value(value, depth)
        return kept

    def _items(self, items: Sequence[Any], depth: int) -> list[Any]:
        kept: list[Any] = []
        for item in items:
            if self._left <= 0:
                kept.append(replace(item, content=_CUT) if isinstance(item, TodoItem) else _CUT)
                break
            kept.append(self._value(item, depth))
        return kept
