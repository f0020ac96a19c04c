"""Secrets are sealed, bound to their record, and never lost by a second start."""

import base64
import stat
from pathlib import Path

import pytest

from services.kit.keyring import Keyring, KeyringMismatch, KeyringUnusable

SECRET = "sk-a-secret"
RECORD = "provider:t:acme"


def test_a_secret_comes_back(tmp_path: Path) -> None:
    keyring = Keyring.open(tmp_path / "secrets" / "keyring")
    sealed = keyring.seal(SECRET, RECORD)

    assert Keyring.open(tmp_path / "secrets" / "keyring").open_sealed(sealed, RECORD) == SECRET
    assert SECRET not in sealed
    assert keyring.seal(SECRET, RECORD) != sealed


def test_the_form_names_version_and_key() -> None:
    keyring = Keyring(b"k" * 32)
    version, key_id, iv, tag, ciphertext = keyring.seal(SECRET, RECORD).split(":")
    assert (version, key_id) == ("v2", keyring.key_id)
    assert [len(base64.b64decode(part)) for part in (iv, tag, ciphertext)] == [12, 16, len(SECRET)]


def test_the_key_is_for_its_owner_only_and_made_once(tmp_path: Path) -> None:
    path = tmp_path / "keyring"
    first = Keyring.open(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Keyring.open(path).key == first.key
    assert list(tmp_path.iterdir()) == [path]
    assert "k" * 8 not in repr(Keyring(b"k" * 32))


@pytest.mark.parametrize("place", range(5))
def test_a_change_is_noticed(place: int) -> None:
    keyring = Keyring(b"k" * 32)
    parts = keyring.seal(SECRET, RECORD).split(":")
    parts[place] = base64.b64encode(b"x" * 16).decode()
    with pytest.raises(KeyringMismatch):
        keyring.open_sealed(":".join(parts), RECORD)


@pytest.mark.parametrize("sealed", ["", "v2", "v2:a", "v1:a:b:c", "nonsense", "v2:1:2:3:4:5:6"])
def test_what_was_never_sealed_is_refused(sealed: str) -> None:
    with pytest.raises(KeyringMismatch):
        Keyring(b"k" * 32).open_sealed(sealed, RECORD)


def test_a_secret_does_not_open_in_another_record() -> None:
    keyring = Keyring(b"k" * 32)
    with pytest.raises(KeyringMismatch):
        keyring.open_sealed(keyring.seal(SECRET, RECORD), "provider:t:other")


def test_another_key_is_named_and_tells_nothing() -> None:
    sealed = Keyring(b"a" * 32).seal(SECRET, RECORD)
    with pytest.raises(KeyringMismatch, match="another master key") as refused:
        Keyring(b"b" * 32).open_sealed(sealed, RECORD)
    assert refused.value.metadata == {"storedKeyId": Keyring(b"a" * 32).key_id, "keyId": Keyring(b"b" * 32).key_id}


@pytest.mark.parametrize("content", ["", "short", "!!!!", base64.b64encode(b"k" * 31).decode()])
def test_a_file_that_holds_no_key_is_not_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keyring"
    path.write_text(content)
    with pytest.raises(KeyringUnusable):
        Keyring.open(path)
    assert path.read_text() == content


def test_a_digest_needs_the_key() -> None:
    assert Keyring(b"a" * 32).digest("x") == Keyring(b"a" * 32).digest("x") != Keyring(b"b" * 32).digest("x")
