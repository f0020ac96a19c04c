"""Ids in opencode's own form, made from ours: the same turn always has the same message."""

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
    stamp = (milliseconds * 0x1000 + 1) & 0xFFFF_FFFF_FFFF
    digest = hashlib.sha256(turn_id.bytes).digest()
    return f"msg_{stamp:012x}" + "".join(_DIGITS[byte % len(_DIGITS)] for byte in digest[:_RANDOM_LENGTH])
