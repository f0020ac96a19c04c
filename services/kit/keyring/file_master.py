"""A master key in a file that only its owner reads."""

import base64
import binascii
import hashlib
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.kit.keyring.errors import KeyringMismatch, KeyringUnusable, MasterKeyMissing
from services.kit.keyring.master import Context, Wrapped, canonical
from services.kit.keyring.sealed import IV_BYTES, KEY_BYTES

_BOUND_TO = b"orginabox data key\x00"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class FileMaster:
    """32 bytes, written in base64 (or hex)."""

    backend: ClassVar[str] = "file"
    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise KeyringUnusable(f"a master key has {KEY_BYTES} bytes, this one {len(self.key)}")

    @classmethod
    def open(cls, path: Path) -> Self:
        """The master key in a file.

        Raises:
            MasterKeyMissing: There is no such file.
            KeyringUnusable: It holds something else, or others may read it. It is never overwritten.
        """
        try:
            with path.open("rb") as file:
                _refuse_readers(path, os.fstat(file.fileno()))
                content = file.read(1024).strip()
        except FileNotFoundError:
            raise MasterKeyMissing(f"there is no master key at {path}") from None
        except OSError as error:
            raise KeyringUnusable(f"{path} cannot be read: {error.strerror}") from None
        try:
            return cls(_decoded(content))
        except (binascii.Error, ValueError, KeyringUnusable):
            raise KeyringUnusable(f"{path} does not hold a master key; put the one back that was there") from None

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make a master key in a file, unless somebody else was first, and open it."""
        _write_once(path, base64.b64encode(secrets.token_bytes(KEY_BYTES)))
        return cls.open(path)

    @property
    def fingerprint(self) -> str:
        """A name of the key that tells nothing of it."""
        return hashlib.sha256(self.key).hexdigest()[:8]

    async def key_id(self) -> str:
        """The name of the key."""
        return f"file:{self.fingerprint}"

    async def owns(self, master_key_id: str) -> bool:
        """Whether it is this key."""
        return master_key_id == f"file:{self.fingerprint}"

    async def wrap(self, key: bytes, context: Context) -> Wrapped:
        """Encrypt a key for a context."""
        iv = secrets.token_bytes(IV_BYTES)
        sealed = AESGCM(self.key).encrypt(iv, key, _BOUND_TO + canonical(context))
        return Wrapped(await self.key_id(), iv + sealed)

    async def unwrap(self, wrapped: Wrapped, context: Context) -> bytes:
        """Decrypt a key of a context."""
        iv, sealed = wrapped.ciphertext[:IV_BYTES], wrapped.ciphertext[IV_BYTES:]
        try:
            return AESGCM(self.key).decrypt(iv, sealed, _BOUND_TO + canonical(context))
        except (InvalidTag, ValueError):
            raise KeyringMismatch(
                "a data key is damaged or belongs to another record", masterKeyId=wrapped.master_key_id
            ) from None

    def original(self, key_id: str) -> bytes | None:
        """This key, for what it sealed by itself."""
        return self.key if key_id in {"", self.fingerprint} else None


def _refuse_readers(path: Path, found: os.stat_result) -> None:
    if found.st_mode & _OTHERS:
        raise KeyringUnusable(f"others may read {path}, which holds the master key: chmod 600 {path}")


def _decoded(content: bytes) -> bytes:
    if len(content) == 2 * KEY_BYTES:
        return bytes.fromhex(content.decode())
    return base64.b64decode(content, validate=True)


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
