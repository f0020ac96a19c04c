"""Values that a database can hold: what a record tells of is not ours to choose, and never a reason to refuse it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

_REPLACEMENT = "\ufffd"


def keepable(value: Any) -> Any:
    """The value with what a database cannot hold replaced: NUL, half characters, numbers without an end."""
    match value:
        case str():
            return keepable_text(value)
        case float() if not math.isfinite(value):
            return str(value)
        case Mapping():
            return {keepable_text(str(name)): keepable(inner) for name, inner in value.items()}
        case Sequence():
            return [keepable(inner) for inner in value]
        case _:
            return value


def keepable_text(text: str) -> str:
    """The text with what a database cannot hold replaced."""
    if "\0" in text:
        text = text.replace("\0", _REPLACEMENT)
    return text if text.isascii() else text.encode(errors="replace").decode()
