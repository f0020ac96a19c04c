"""The stored form of a secret: `v2:<key id>:<iv>:<tag>:<ciphertext>`, AES-256-GCM bound to the record it belongs to.

`v1:<iv>:<tag>:<ciphertext>` is the form of the original product: under its master key, bound to nothing.
"""

import base64
import binascii
import secrets
from dataclasses import dataclass, field
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.kit.keyring.errors import KeyringMismatch

KEY_BYTES = 32
IV_BYTES = 12
TAG_BYTES = 16

_V1_PARTS = 3
_V2_PARTS = 4


@dataclass(frozen=True)
class Sealed:
    """A secret as it is stored. The key id is empty in the form v1."""

    key_id: str
    iv: bytes
    tag: bytes
    ciphertext: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the stored form.

        Raises:
            KeyringMismatch: It is none.
        """
        version, *parts = text.split(":")
        try:
            if version == "v1" and len(parts) == _V1_PARTS:
                return cls("", *map(_decoded, parts))
            if version == "v2" and len(parts) == _V2_PARTS:
                return cls(parts[0], *map(_decoded, parts[1:]))
        except binascii.Error:
            pass
        raise damaged()

    @classmethod
    def seal(cls, key: bytes, key_id: str, secret: str, record: str) -> Self:
        """Encrypt a secret for a record."""
        iv = secrets.token_bytes(IV_BYTES)
        sealed = AESGCM(key).encrypt(iv, secret.encode(), record.encode())
        return cls(key_id, iv, sealed[-TAG_BYTES:], sealed[:-TAG_BYTES])

    def open(self, key: bytes, record: str) -> str:
        """Decrypt the secret of a record. In the form v1 it is bound to none.

        Raises:
            KeyringMismatch: It was sealed for another record or with another key, or was changed since.
        """
        if len(self.iv) != IV_BYTES or len(self.tag) != TAG_BYTES:
            raise damaged(self.key_id)
        bound_to = record.encode() if self.key_id else None
        try:
            return AESGCM(key).decrypt(self.iv, self.ciphertext + self.tag, bound_to).decode()
        except (InvalidTag, UnicodeDecodeError):
            raise damaged(self.key_id) from None

    def __str__(self) -> str:
        head = ("v2", self.key_id) if self.key_id else ("v1",)
        return ":".join((*head, *map(_encoded, (self.iv, self.tag, self.ciphertext))))


def damaged(key_id: str = "") -> KeyringMismatch:
    """The refusal of a secret that does not open."""
    return KeyringMismatch("a stored secret is damaged or belongs to another record; set it again", keyId=key_id)


def _encoded(part: bytes) -> str:
    return base64.b64encode(part).decode()


def _decoded(part: str) -> bytes:
    return base64.b64decode(part, validate=True)
