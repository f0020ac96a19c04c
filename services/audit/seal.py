"""The seal of a record: what exactly is hashed, byte by byte. docs/pages/understand/audit-format.md says it in words.

A record is sealed in two parts. Whatever may be about a person (address, program, payload) is its body: it is kept
apart with a random salt, and only its commitment is sealed. Erasing a body so leaves the chain as it was.

    commitment = SHA-256(BODY_TAG   || salt || body)
    hash       = SHA-256(RECORD_TAG || hash of the record before || record with its commitment)

The layout is also written in SQL (verify_queries.sql) and once more in the verifier, on purpose: three programs that
agree are worth more than one that agrees with itself.
"""

import json
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID

from services.audit.record import Record
from services.kit.keepable import keepable, keepable_text

RECORD_TAG = b"orginabox.audit.record.v1\n"
BODY_TAG = b"orginabox.audit.body.v1\n"
GENESIS = bytes(32)
"""What stands for the hash before the first record of a tenant."""
SALT_BYTES = 16
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""Times are microseconds from here, which is how PostgreSQL counts them."""

_MICROSECOND = timedelta(microseconds=1)
_FIXED = struct.Struct(">16sq16sqq32s")
_LENGTH = struct.Struct(">I")
_NUMBER = struct.Struct(">q")


@dataclass(frozen=True, slots=True)
class Body:
    """What can be erased of a record."""

    salt: bytes
    ip_address: str
    user_agent: str
    payload: str

    def commitment(self) -> bytes:
        """What the chain holds in place of the body."""
        return sha256(BODY_TAG + self.salt + _prefixed(self.ip_address, self.user_agent, self.payload)).digest()


@dataclass(frozen=True, slots=True)
class Skeleton:
    """What stays of a record for ever."""

    tenant_id: UUID
    sequence: int
    record_id: UUID
    user_id: UUID | None
    actor: str
    action: str
    target: str
    session_id: str
    channel: str
    duration_us: int | None
    create_time: datetime
    append_time: datetime
    commitment: bytes

    def layout(self, sequence: int | None = None) -> bytes:
        """The record as it is hashed; with another number when one is given."""
        fixed = _FIXED.pack(
            self.tenant_id.bytes,
            self.sequence if sequence is None else sequence,
            self.record_id.bytes,
            microseconds(self.create_time),
            microseconds(self.append_time),
            self.commitment,
        )
        user = self.user_id.bytes if self.user_id else b""
        took = _NUMBER.pack(self.duration_us) if self.duration_us is not None else b""
        texts = _prefixed(self.actor, self.action, self.target, self.session_id, self.channel)
        return b"".join((fixed, _LENGTH.pack(len(user)), user, _LENGTH.pack(len(took)), took, texts))

    def hash_after(self, before: bytes, sequence: int | None = None) -> bytes:
        """The hash of the record when it stands after that one."""
        return sha256(RECORD_TAG + before + self.layout(sequence)).digest()


@dataclass(frozen=True, slots=True)
class Sealed:
    """A record with its seal."""

    skeleton: Skeleton
    body: Body
    hash: bytes


def seal(records: Iterable[Record], sequence: int, before: bytes, append_time: datetime) -> Iterator[Sealed]:
    """Seal records of one tenant behind the record with that number and hash."""
    for place, record in enumerate(records, sequence + 1):
        body = body_of(record)
        skeleton = Skeleton(
            record.tenant_id,
            place,
            record.record_id,
            record.user_id,
            keepable_text(record.actor),
            record.action,
            keepable_text(record.target),
            keepable_text(record.session_id),
            keepable_text(record.channel),
            record.duration // _MICROSECOND if record.duration is not None else None,
            record.create_time,
            append_time,
            body.commitment(),
        )
        before = skeleton.hash_after(before)
        yield Sealed(skeleton, body, before)


def body_of(record: Record) -> Body:
    """The body of a record, with a new salt."""
    payload = json.dumps(keepable(record.payload or {}), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return Body(os.urandom(SALT_BYTES), keepable_text(record.ip_address), keepable_text(record.user_agent), payload)


def microseconds(time: datetime) -> int:
    """A time as it is hashed."""
    return (time - EPOCH) // _MICROSECOND


def _prefixed(*texts: str) -> bytes:
    parts: list[bytes] = []
    for text in texts:
        encoded = text.encode()
        parts += (_LENGTH.pack(len(encoded)), encoded)
    return b"".join(parts)
