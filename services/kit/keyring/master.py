"""The master key: the one key that is not in the database, behind a small port that each place for it fills.

It is chosen by an address: `file:///path`, `azure-kv://vault/key`, `aws-kms://key`, `vault://host/mount/key`. The SDKs
of the vendors are heavy, so only the one that is chosen is imported.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from services.kit.keyring.errors import KeyringMismatch, KeyringUnusable

Context = Mapping[str, str]
"""What a wrapped key is for. It opens for nothing else."""

PROBE: Context = {"purpose": "probe"}


@dataclass(frozen=True)
class Wrapped:
    """A key under a master key, as it is stored."""

    master_key_id: str
    ciphertext: bytes = field(repr=False)


class MasterKey(Protocol):
    """Wraps keys, and never leaves its place."""

    @property
    def backend(self) -> str:
        """The kind of place: the scheme of its address."""

    async def key_id(self) -> str:
        """The name of the key, with its version, that wraps now."""

    async def owns(self, master_key_id: str) -> bool:
        """Whether a key that was wrapped under that name is for this master key to open."""

    async def wrap(self, key: bytes, context: Context) -> Wrapped:
        """Encrypt a key for a context."""

    async def unwrap(self, wrapped: Wrapped, context: Context) -> bytes:
        """Decrypt a key of a context.

        Raises:
            KeyringMismatch: It was wrapped by another key or for another context, or was changed since.
            KeyringUnavailable: The place of the master key does not answer.
            KeyringDenied: It answers, and refuses.
        """

    def original(self, key_id: str) -> bytes | None:
        """The bytes of the master key that sealed secrets by itself under this key id; empty means the form v1.

        None where this is not that key: only a file ever gave its key away.
        """


def open_master(address: str) -> MasterKey:
    """The master key at an address. Nothing is asked of it yet.

    Raises:
        KeyringUnusable: The address is none.
        MasterKeyMissing: It is a file that is not there.
    """
    scheme, mark, rest = address.partition("://")
    match scheme if mark else "file":
        case "file":
            from services.kit.keyring.file_master import FileMaster

            return FileMaster.open(Path(rest if mark else address).expanduser())
        case "azure-kv":
            from services.kit.keyring.azure_master import AzureMaster

            return AzureMaster.parse(rest)
        case "aws-kms":
            from services.kit.keyring.aws_master import AwsMaster

            return AwsMaster.parse(rest)
        case "vault":
            from services.kit.keyring.vault_master import VaultMaster

            return VaultMaster.parse(rest)
        case _:
            raise KeyringUnusable(
                f"{scheme}:// is no place for a master key; OIAB_KEYRING takes file://, azure-kv://, aws-kms:// or vault://"
            )


def file_of(address: str) -> Path | None:
    """The file that an address names, or None where it names something else."""
    scheme, mark, rest = address.partition("://")
    if not mark:
        return Path(address).expanduser()
    return Path(rest).expanduser() if scheme == "file" else None


async def prove(master: MasterKey) -> None:
    """Make sure that a master key wraps, unwraps, and keeps contexts apart, before anything depends on it.

    Raises:
        KeyringUnusable: It gives another key back, or opens a key for a context that it was not wrapped for.
        KeyringUnavailable: It does not answer.
        KeyringDenied: It refuses.
    """
    probe = bytes(range(32))
    wrapped = await master.wrap(probe, PROBE)
    if await master.unwrap(wrapped, PROBE) != probe:
        raise KeyringUnusable(f"the master key {wrapped.master_key_id} does not give back what it wrapped")
    try:
        await master.unwrap(wrapped, {**PROBE, "of": "another"})
    except KeyringMismatch:
        return
    raise KeyringUnusable(
        f"the master key {wrapped.master_key_id} opens keys for what they were not wrapped for; "
        "in HashiCorp Vault make the transit key with derived=true"
    )


def canonical(context: Context) -> bytes:
    """A context as bytes, the same for the same context."""
    return json.dumps(dict(context), sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
