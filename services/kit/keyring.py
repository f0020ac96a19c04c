"""The keyring: secrets that go into the database are sealed with a master key that is not in it (AES-256-GCM).

A sealed secret is `v2:<key id>:<iv>:<tag>:<ciphertext>`. It is bound to the record that it belongs to, so that nobody
who can write to the database moves one tenant's secret into another's record.
"""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.kit.errors import DomainError, Kind

VERSION = "v2"
KEY_BYTES = 32
IV_BYTES = 12
TAG_BYTES = 16


class KeyringMismatch(DomainError):
    """A sealed secret cannot be read with the key at hand."""

    kind = Kind.FAILED_PRECONDITION
    reason = "KEYRING_MISMATCH"


class KeyringUnusable(Exception):
    """The file of the master key does not hold one."""


@dataclass(frozen=True)
class Keyring:
    """The master key at hand."""

    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise KeyringUnusable(f"a master key has {KEY_BYTES} bytes, this one {len(self.key)}")

    @classmethod
    def open(cls, path: Path) -> Self:
        """The keyring whose master key is in the file; the key is made when there is no file.

        Raises:
            KeyringUnusable: The file holds something else. It is never overwritten: it may be a key, cut short.
        """
        if not path.exists():
            _write_once(path, base64.b64encode(secrets.token_bytes(KEY_BYTES)))
        try:
            return cls(base64.b64decode(path.read_bytes().strip(), validate=True))
        except binascii.Error:
            raise KeyringUnusable(f"{path} does not hold a master key; put the one back that was there") from None

    @property
    def key_id(self) -> str:
        """The name of the master key; it tells nothing of the key."""
        return hashlib.sha256(self.key).hexdigest()[:8]

    def seal(self, secret: str, record: str) -> str:
        """Encrypt a secret for the record, such as `provider:<tenant>:<name>`."""
        iv = secrets.token_bytes(IV_BYTES)
        sealed = AESGCM(self.key).encrypt(iv, secret.encode(), record.encode())
        parts = (iv, sealed[-TAG_BYTES:], sealed[:-TAG_BYTES])
        return ":".join((VERSION, self.key_id, *(base64.b64encode(part).decode() for part in parts)))

    def open_sealed(self, sealed: str, record: str) -> str:
        """Decrypt a secret of the record.

        Raises:
            KeyringMismatch: It was sealed with another key or for another record, or was changed since.
        """
        version, _, rest = sealed.partition(":")
        key_id, *parts = rest.split(":")
        if version != VERSION or key_id != self.key_id:
            raise KeyringMismatch(
                "a stored secret was encrypted with another master key than the one at hand; "
                "put that key back, or set the secret again",
                storedKeyId=key_id,
                keyId=self.key_id,
            )
        try:
            iv, tag, ciphertext = (base64.b64decode(part, validate=True) for part in parts)
            return AESGCM(self.key).decrypt(iv, ciphertext + tag, record.encode()).decode()
        except (InvalidTag, ValueError):
            raise KeyringMismatch(
                "a stored secret is damaged or belongs to another record; set it again", keyId=self.key_id
            ) from None

    def digest(self, content: str) -> bytes:
        """A digest with which content can be recognised, and not guessed without the key."""
        return hmac.digest(hashlib.sha256(b"orginabox digest" + self.key).digest(), content.encode(), "sha256")


def _write_once(path: Path, content: bytes) -> None:
    """Write a file that only its owner reads, whole or not at all, unless somebody else was first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content + b"\n")
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):
        path.hardlink_to(draft)
    draft.unlink()
