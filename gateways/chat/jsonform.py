"""Messages as canonical JSON has them, for programs that read our output."""

from typing import Any

from betterproto2 import Message


def plain(message: Message) -> dict[str, Any]:
    """A message with every value of its own, and without members that are not set, as the REST API shows it."""
    kept: dict[str, Any] = _without_none(message.to_dict(include_default_values=True))
    return kept


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(member) for name, member in value.items() if member is not None}
    if isinstance(value, list):
        return [_without_none(member) for member in value]
    return value
