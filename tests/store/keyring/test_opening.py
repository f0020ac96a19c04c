"""A lost or wrong master key stops a room at its start, with a sentence that says what to do. None is made anew."""

from collections.abc import Callable
from pathlib import Path

import pytest

from services.kit.keyring import KeyringMismatch, KeyringUnusable
from services.kit.keyring.data_key import KeyState
from services.kit.keyring.file_master import FileMaster
from services.kit.keyring.sealed import Sealed
from services.runtime.provider import record_of
from tests.keyring.places import place
from tests.store.keyring.rig import A, master_of, room
from tests.unit.kit.keyring.test_sealed import imported


@pytest.fixture
def url(database: Callable[..., str]) -> str:
    return database("runtime")


async def test_a_first_start_makes_the_key(url: str, tmp_path: Path) -> None:
    async with room(url, tmp_path):
        pass
    assert (tmp_path / "secrets" / "keyring").exists()


async def test_a_room_without_a_secret_makes_no_other_key(url: str, tmp_path: Path) -> None:
    """It would be another one than the rooms with secrets need."""
    async with room(url, tmp_path):
        lost = master_of(tmp_path)
    (tmp_path / "secrets" / "keyring").unlink()
    with pytest.raises(KeyringUnusable, match=f"file:{lost.fingerprint}"):
        async with room(url, tmp_path):
            pass
    assert not (tmp_path / "secrets" / "keyring").exists()


async def test_a_lost_file_stops_the_start_and_is_not_made_anew(url: str, tmp_path: Path) -> None:
    async with room(url, tmp_path) as before:
        await before.put(A, "acme")
    path = tmp_path / "secrets" / "keyring"
    lost = master_of(tmp_path)
    path.rename(tmp_path / "kept")

    with pytest.raises(KeyringUnusable) as refused:
        async with room(url, tmp_path):
            pass
    name = f"file:{lost.fingerprint}"
    for told in (f"needs the master key {name}", str(path), "put that key back", f"OIAB_KEYRING_LOST='{name}'"):
        assert told in str(refused.value)
    assert not path.exists()

    (tmp_path / "kept").rename(path)
    async with room(url, tmp_path) as after:
        assert await after.opened(A) == {"acme": "sk-acme"}


async def test_another_key_stops_the_start(url: str, tmp_path: Path) -> None:
    async with room(url, tmp_path) as before:
        await before.put(A, "acme")
    lost = master_of(tmp_path)
    path = tmp_path / "secrets" / "keyring"
    path.unlink()
    other = FileMaster.create(path)
    with pytest.raises(KeyringUnusable) as refused:
        async with room(url, tmp_path):
            pass
    assert f"file:{lost.fingerprint}" in str(refused.value)
    assert f"file:{other.fingerprint}" in str(refused.value)
    assert "OIAB_KEYRING_PREVIOUS" in str(refused.value)


async def test_secrets_that_the_master_key_sealed_by_itself_need_it_too(url: str, tmp_path: Path) -> None:
    old = FileMaster.create(tmp_path / "old")
    async with room(url, tmp_path, keyring=f"file://{tmp_path}/old") as before:
        sealed = Sealed.seal(old.key, old.fingerprint, "sk", record_of(A, "acme"))
        await before.put(A, "acme", sealed=str(sealed))
    with pytest.raises(KeyringUnusable, match=f"file:{old.fingerprint}"):
        async with room(url, tmp_path):
            pass
    assert not (tmp_path / "secrets" / "keyring").exists()
    FileMaster.create(tmp_path / "secrets" / "keyring")
    async with room(url, tmp_path, keyring_previous=str(tmp_path / "old")) as after:
        assert await after.opened(A) == {"acme": "sk"}


async def test_imported_secrets_need_a_file(url: str, tmp_path: Path) -> None:
    with place("vault", tmp_path) as found:
        async with room(url, tmp_path, keyring=found.address) as before:
            await before.put(A, "acme", sealed=imported(), imported=True)
        with pytest.raises(KeyringUnusable, match="file:original"):
            async with room(url, tmp_path, keyring=found.address):
                pass


async def test_what_is_lost_for_good_is_given_up_by_name(url: str, tmp_path: Path) -> None:
    async with room(url, tmp_path) as before:
        await before.put(A, "acme")
    name = f"file:{master_of(tmp_path).fingerprint}"
    (tmp_path / "secrets" / "keyring").unlink()
    with pytest.raises(KeyringUnusable):
        async with room(url, tmp_path, keyring_lost="file:00000000"):
            pass

    async with room(url, tmp_path, keyring_lost=name) as after:
        with pytest.raises(KeyringMismatch):
            await after.opened(A)
        assert [use.key.state for use in (await after.admin.status(A)).data_keys] == [KeyState.LOST]
        await after.put(A, "other")
        assert (await after.admin.status(A)).to_reseal == 1
        rotation = await after.admin.rotate(A)
        assert (rotation.unreadable, rotation.resealed) == (1, 1)
        await after.set(A, "acme", await after.keyring.seal(A, "sk-new", record_of(A, "acme")))
        await after.admin.rotate(A)
        assert await after.opened(A) == {"acme": "sk-new", "other": "sk-other"}
        assert len((await after.admin.status(A)).data_keys) == 1
    async with room(url, tmp_path):
        pass


async def test_a_key_that_is_there_is_not_given_up(url: str, tmp_path: Path) -> None:
    async with room(url, tmp_path) as before:
        await before.put(A, "acme")
    with pytest.raises(KeyringUnusable, match="at hand"):
        async with room(url, tmp_path, keyring_lost=f"file:{master_of(tmp_path).fingerprint}"):
            pass


@pytest.mark.parametrize(("fault", "told"), [("deny", "refuses"), ("fail", "does not answer"), ("stop", "not answer")])
async def test_a_place_that_does_not_serve_stops_the_start(url: str, tmp_path: Path, fault: str, told: str) -> None:
    with place("vault", tmp_path) as found:
        if fault == "stop":
            found.server.stop()
        else:
            setattr(found.server.faults, fault, 99)
        with pytest.raises(KeyringUnusable, match=told) as refused:
            async with room(url, tmp_path, keyring=found.address):
                pass
        assert found.address in str(refused.value)
