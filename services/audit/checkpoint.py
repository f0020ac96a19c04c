"""A checkpoint: what the ends of all chains were, signed, in the form of C2SP's tlog-checkpoint and signed-note.

orginabox.dev/audit/4f1c2a90b7d35e18      the log: its name is made of its key
18342                                     how many records all chains have together
5H3…=                                     the Merkle root over the ends of all chains
time 2026-01-31T12:00:00.000000Z
previous 9uK…=                            SHA-256 of the checkpoint before, whole; of nothing for the first

— orginabox.dev/audit/4f1c2a90b7d35e18 q1Z…=
"""

import base64
import binascii
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from services.audit.merkle import Head, root_of

_ED25519 = b"\x01"
_DASH = "\N{EM DASH} "


class NoteInvalid(ValueError):
    """This is not a checkpoint of this log, or not as it was signed."""


class KeyUnusable(Exception):
    """The signing key cannot be read."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint with the note that says it."""

    size: int
    root: bytes
    time: datetime
    previous: bytes
    note: str

    @property
    def digest(self) -> bytes:
        """By which the next checkpoint names this one."""
        return sha256(self.note.encode()).digest()


class SigningKey:
    """The key of this installation's log."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.origin = origin_of(self.public)
        self._id = _key_id(self.origin, self.public)

    @classmethod
    def open(cls, path: Path) -> "SigningKey":
        """Read the key, or make it at the first start.

        Raises:
            KeyUnusable: There is something else in its place.
        """
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _write_new(path, Ed25519PrivateKey.generate())
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except (ValueError, TypeError, OSError) as error:
            raise KeyUnusable(f"{path} is not the key of the audit log; bring the file back from a backup") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyUnusable(f"{path} is a key of another kind; bring the file back from a backup")
        return cls(key)

    @property
    def verifier_key(self) -> str:
        """The public half, in the form of signed notes: what an auditor is given."""
        return f"{self.origin}+{self._id.hex()}+{base64.b64encode(_ED25519 + self.public).decode()}"

    def sign(self, heads: Sequence[Head], time: datetime, before: Checkpoint | None) -> Checkpoint:
        """The checkpoint over these ends of chains, which stand in the order of the tenants' ids."""
        size = sum(head.sequence for head in heads)
        root = root_of([head.leaf() for head in heads])
        previous = before.digest if before else sha256(b"").digest()
        text = f"{self.origin}\n{size}\n{_b64(root)}\ntime {_stamp(time)}\nprevious {_b64(previous)}\n"
        signature = _b64(self._id + self._key.sign(text.encode()))
        return Checkpoint(size, root, time, previous, f"{text}\n{_DASH}{self.origin} {signature}\n")

    def read(self, note: str) -> Checkpoint:
        """A note of this log, if it is as it was signed.

        Raises:
            NoteInvalid: It is not.
        """
        return read_note(note, self.origin, self.public)


def read_note(note: str, origin: str, public: bytes) -> Checkpoint:
    """A note that the holder of a key has signed.

    Raises:
        NoteInvalid: They have not, or it says something else than a checkpoint does.
    """
    text, _, signatures = note.partition("\n\n")
    lines = (text + "\n").split("\n")
    try:
        named, size, root, time, previous, _ = lines
        _check_origin(named, origin)
        _check_signature(text + "\n", signatures, origin, public)
        return Checkpoint(
            int(size),
            base64.b64decode(root, validate=True),
            datetime.fromisoformat(time.removeprefix("time ")),
            base64.b64decode(previous.removeprefix("previous "), validate=True),
            note,
        )
    except NoteInvalid:
        raise
    except (ValueError, binascii.Error) as error:
        raise NoteInvalid("it does not have the form of a checkpoint") from error


def origin_of(public: bytes) -> str:
    """The name of the log that a key signs."""
    return f"orginabox.dev/audit/{sha256(public).hexdigest()[:16]}"


def _check_origin(named: str, origin: str) -> None:
    if named != origin:
        raise NoteInvalid(f"it is a checkpoint of {named[:80]!r}, not of {origin!r}")


def _check_signature(text: str, signatures: str, origin: str, public: bytes) -> None:
    wanted = _key_id(origin, public)
    # Of signatures by others (witnesses) we know nothing; one line is ours, whole.
    for line in signatures.split("\n"):
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or name != origin:
            continue
        signed = base64.b64decode(encoded, validate=True)
        if signed[:4] != wanted:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signed[4:], text.encode())
        except InvalidSignature:
            raise NoteInvalid("its signature is not one of the log's key") from None
        return
    raise NoteInvalid("it is not signed by the log's key")


def _key_id(origin: str, public: bytes) -> bytes:
    return sha256(origin.encode() + b"\n" + _ED25519 + public).digest()[:4]


def _write_new(path: Path, key: Ed25519PrivateKey) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)  # of two that start at once, one is first
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _stamp(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
