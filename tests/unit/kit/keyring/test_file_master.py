"""The master key in a file: for its owner only, made once, never replaced, and bound to what it wraps for."""

import base64
import stat
from pathlib import Path

import pytest

from services.kit.keyring import KeyringMismatch, KeyringUnusable
from services.kit.keyring.errors import MasterKeyMissing
from services.kit.keyring.file_master import FileMaster
from services.kit.keyring.master import Wrapped, file_of, open_master, prove

MASTER = FileMaster(b"k" * 32)
CONTEXT = {"room": "test", "tenant": "t", "key": "k1"}


def test_a_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "keyring"
    made = FileMaster.create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert FileMaster.create(path) == made == FileMaster.open(path)
    assert list(path.parent.iterdir()) == [path]
    assert "k" * 8 not in repr(MASTER)


def test_a_missing_file_is_said_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(MasterKeyMissing):
        open_master(f"file://{tmp_path}/none")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o666])
def test_a_file_that_others_can_open_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keyring"
    FileMaster.create(path)
    path.chmod(mode)
    with pytest.raises(KeyringUnusable, match=f"chmod 600 {path}"):
        FileMaster.open(path)
    path.chmod(0o400)
    FileMaster.open(path)


@pytest.mark.parametrize("content", ["", "short", "!!!!", base64.b64encode(b"k" * 31).decode(), "zz" * 32])
def test_a_file_that_holds_no_key_is_not_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keyring"
    path.touch(0o600)
    path.write_text(content)
    with pytest.raises(KeyringUnusable, match="does not hold a master key"):
        FileMaster.open(path)
    assert path.read_text() == content


def test_a_key_may_be_written_in_hex(tmp_path: Path) -> None:
    path = tmp_path / "keyring"
    path.touch(0o600)
    path.write_text((b"k" * 32).hex() + "\n")
    assert FileMaster.open(path) == MASTER


@pytest.mark.parametrize(
    "address", ["gpg://x", "aws-kms://", "aws-kms://k?zone=1", "vault://h/k", "azure-kv://v/k/ver"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(KeyringUnusable):
        open_master(address)


def test_a_file_may_be_named_without_a_scheme() -> None:
    assert file_of("/etc/keyring") == file_of("file:///etc/keyring") == Path("/etc/keyring")
    assert file_of("vault://h/m/k") is None


async def test_it_wraps_for_one_context(tmp_path: Path) -> None:
    await prove(MASTER)
    wrapped = await MASTER.wrap(b"d" * 32, CONTEXT)
    assert wrapped.master_key_id == f"file:{MASTER.fingerprint}"
    assert await MASTER.owns(wrapped.master_key_id)
    assert await MASTER.unwrap(wrapped, dict(reversed(CONTEXT.items()))) == b"d" * 32
    for name in CONTEXT:
        with pytest.raises(KeyringMismatch):
            await MASTER.unwrap(wrapped, CONTEXT | {name: "other"})


async def test_every_byte_of_what_is_wrapped_counts() -> None:
    wrapped = await MASTER.wrap(b"d" * 32, CONTEXT)
    for place in range(len(wrapped.ciphertext)):
        changed = bytearray(wrapped.ciphertext)
        changed[place] ^= 1
        with pytest.raises(KeyringMismatch):
            await MASTER.unwrap(Wrapped(wrapped.master_key_id, bytes(changed)), CONTEXT)
    with pytest.raises(KeyringMismatch):
        await MASTER.unwrap(Wrapped(wrapped.master_key_id, b""), CONTEXT)
