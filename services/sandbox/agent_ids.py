"""Ids in opencode's own form, made from ours: the same words of a user always are the same message."""

import hashlib
import time
from uuid import UUID

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_LENGTH = 14
_TIME_VERSION = 7


def message_id(turn_id: UUID) -> str:
    """The id of the user's message of a turn.

    opencode's ids are 48 bits of time (milliseconds times 4096 and a counter) in hex and 14 random digits. It sorts by
    them where times are equal, so ours carry the time of the turn.
    """
    milliseconds = turn_id.int >> 80 if turn_id.version == _TIME_VERSION else time.time_ns() // 1_000_000
    return _message_id(milliseconds * 0x1000 + 1, turn_id)


def said_message_id(request_id: UUID) -> str:
    """The id of a message that is said into a running turn now: it stands behind all that the turn holds."""
    return _message_id(time.time_ns() * 0x1000 // 1_000_000, request_id)


def part_id(message: str) -> str:
    """The id of the only part of a message: saying it again replaces it."""
    return "prt_" + message.removeprefix("msg_")


def _message_id(stamp: int, name: UUID) -> str:
    digest = hashlib.sha256(name.bytes).digest()
    random = "".join(_DIGITS[byte % len(_DIGITS)] for byte in digest[:_RANDOM_LENGTH])
    return f"msg_{stamp & 0xFFFF_FFFF_FFFF:012x}{random}"
