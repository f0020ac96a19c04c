"""Keys are rotated while everything goes on: nothing is lost, nothing stays under an old key."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg.errors import CheckViolation, ForeignKeyViolation

from services.kit.ids import DEFAULT_TENANT
from services.kit.keyring import INSTALLATION, KeyringMismatch, KeyringUnavailable
from services.kit.keyring import admin as module
from services.kit.keyring.admin import KeyringAdmin
from services.kit.keyring.data_key import KeyState
from services.kit.keyring.file_master import FileMaster
from services.kit.keyring.keyring import Keyring
from services.kit.keyring.sealed import Sealed
from services.runtime.provider import record_of
from services.runtime.store import SECRETS
from tests.keyring.places import place
from tests.store.keyring.rig import A, B, Room, master_of, room, secret_of
from tests.unit.kit.keyring.test_sealed import imported

NAMES = [f"p{number:02}" for number in range(25)]


@pytest.fixture
def url(database: Callable[..., str]) -> str:
    return database("runtime")


@pytest.fixture
async def here(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Room]:
    monkeypatch.setattr(module, "BATCH", 4)
    async with room(url, tmp_path) as found:
        yield found


def key_ids(sealed: dict[str, str]) -> set[str]:
    return {text.split(":")[1] for text in sealed.values()}


async def test_every_secret_is_sealed_with_a_new_key(here: Room) -> None:
    await here.put_many(A, NAMES)
    await here.put_many(B, ["theirs"])
    await here.apply(A)
    before, theirs = await here.sealed(A), await here.sealed(B)

    done = await here.admin.rotate(A)
    assert (done.resealed, done.unreadable, done.destroyed, done.resumed) == (2 * len(NAMES), 0, 1, False)
    for query in ("read", "read_applied"):
        after = await here.sealed(A, query)
        assert key_ids(after) == {done.key_id}
        assert await here.opened(A, query) == {name: secret_of(name) for name in NAMES}
    assert done.key_id not in key_ids(before)
    assert await here.sealed(B) == theirs
    status = await here.admin.status(A)
    assert [(use.key.state, use.secrets) for use in status.data_keys] == [(KeyState.ACTIVE, 2 * len(NAMES))]
    assert (status.to_reseal, status.to_rewrap, status.trouble) == (0, 0, "")
    assert await here.records(A) == ["admin.keyring_rotate"]


async def test_what_a_master_key_sealed_is_sealed_with_a_data_key(here: Room, tmp_path: Path) -> None:
    master = master_of(tmp_path)
    old = Sealed.seal(master.key, master.fingerprint, "sk-old", record_of(A, "old"))
    await here.put(A, "old", sealed=str(old))
    await here.put(A, "foreign", sealed=imported(master.key), imported=True)
    assert (await here.admin.status(A)).to_reseal == 2

    done = await here.admin.rotate(A)
    assert (done.resealed, done.resumed) == (2, False)
    assert await here.opened(A) == {"old": "sk-old", "foreign": "sk-a-secret"}
    assert (await here.admin.status(A)).to_reseal == 0


async def test_only_imported_rows_may_have_the_older_form(here: Room) -> None:
    with pytest.raises(CheckViolation):
        await here.put(A, "foreign", sealed=imported())
    await here.put(A, "ours")
    with pytest.raises(CheckViolation):
        await here.set(A, "ours", imported())


async def test_what_was_moved_between_records_stays_closed_and_is_counted(here: Room) -> None:
    await here.put_many(A, ["one", "two"])
    await here.put_many(B, ["one"])
    sealed = await here.sealed(A)
    await here.set(A, "two", sealed["one"])
    with pytest.raises(ForeignKeyViolation):
        await here.set(A, "two", (await here.sealed(B))["one"])
    done = await here.admin.rotate(A)
    assert (done.resealed, done.unreadable, done.destroyed) == (1, 1, 0)
    with pytest.raises(KeyringMismatch):
        await here.opened(A)
    again = await here.admin.rotate(A)
    assert (again.resealed, again.unreadable, again.resumed) == (1, 1, False)


async def test_a_used_key_is_not_destroyed_by_anybody(here: Room, url: str) -> None:
    await here.put(A, "acme")
    with psycopg.connect(url) as connection, pytest.raises(ForeignKeyViolation):
        connection.execute("DELETE FROM runtime.data_key")


async def test_rotations_at_once_end_with_one_key(here: Room, url: str, tmp_path: Path) -> None:
    await here.put_many(A, NAMES)
    async with room(url, tmp_path) as elsewhere:
        admins = [here.admin, elsewhere.admin] * 3
        done = await asyncio.gather(*(admin.rotate(A) for admin in admins))
    assert not any(each.unreadable for each in done)
    await here.admin.rotate(A)
    here.keyring.forget()
    assert await here.opened(A) == {name: secret_of(name) for name in NAMES}
    status = await here.admin.status(A)
    assert [use.key.state for use in status.data_keys].count(KeyState.ACTIVE) == 1
    assert key_ids(await here.sealed(A)) == {use.key.key_id for use in status.data_keys if use.secrets}


async def test_secrets_that_are_set_meanwhile_are_kept(here: Room) -> None:
    await here.put_many(A, NAMES)
    stop = asyncio.Event()
    set_to: dict[str, str] = {}

    async def change() -> None:
        while not stop.is_set():
            for number, name in enumerate(NAMES):
                secret = f"sk-{name}-{len(set_to)}-{number}"

                async def write(name: str = name, secret: str = secret) -> None:
                    await here.set(A, name, await here.keyring.seal(A, secret, record_of(A, name)))

                await here.keyring.again(write)
                set_to[name] = secret

    changing = asyncio.create_task(change())
    for _ in range(5):
        await here.admin.rotate(A)
    stop.set()
    await changing
    assert await here.opened(A) == set_to
    await here.admin.rotate(A)
    assert await here.opened(A) == set_to


async def test_a_writer_elsewhere_whose_key_was_destroyed_writes_again(here: Room, url: str, tmp_path: Path) -> None:
    await here.put(A, "acme")
    async with room(url, tmp_path) as elsewhere:
        await elsewhere.opened(A)
        await elsewhere.keyring.active(A)
        await here.admin.rotate(A)

        async def write() -> None:
            await elsewhere.set(A, "acme", await elsewhere.keyring.seal(A, "sk-new", record_of(A, "acme")))

        with pytest.raises(ForeignKeyViolation):
            await write()
        await elsewhere.keyring.again(write)
        assert await here.opened(A) == {"acme": "sk-new"}


async def test_a_cut_rotation_is_finished_by_the_next(here: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    await here.put_many(A, NAMES)
    calls = 0
    batch = KeyringAdmin._batch

    async def cut(self: KeyringAdmin, *args: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise ConnectionError
        return await batch(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(KeyringAdmin, "_batch", cut)
    with pytest.raises(ConnectionError):
        await here.admin.rotate(A)
    monkeypatch.undo()

    assert len(key_ids(await here.sealed(A))) == 2
    assert await here.opened(A) == {name: secret_of(name) for name in NAMES}
    status = await here.admin.status(A)
    assert 0 < status.to_reseal < len(NAMES)
    active = next(use.key.key_id for use in status.data_keys if use.key.state is KeyState.ACTIVE)

    done = await here.admin.rotate(A)
    assert (done.resumed, done.key_id, done.resealed, done.destroyed) == (True, active, status.to_reseal, 1)
    assert not (await here.admin.rotate(A)).resumed


async def test_a_retired_key_is_kept_for_what_was_derived_from_it(here: Room) -> None:
    now = datetime.now(UTC)
    admin = KeyringAdmin(here.keyring, here.database, grace=timedelta(hours=1), now=lambda: now)
    old = await here.keyring.derive(INSTALLATION, "sign")
    rotation = await admin.rotate(INSTALLATION)
    assert (rotation.resumed, rotation.destroyed) == (False, 0)
    new = await here.keyring.derive(INSTALLATION, "sign")
    assert (new.key_id, await here.keyring.derive(INSTALLATION, "sign", old.key_id)) == (rotation.key_id, old)
    now += timedelta(hours=2)
    assert await admin.sweep(INSTALLATION) == 1
    with pytest.raises(KeyringMismatch):
        await here.keyring.derive(INSTALLATION, "sign", old.key_id)


async def test_a_change_of_place_wraps_every_key_anew(url: str, tmp_path: Path) -> None:
    async with room(url, tmp_path) as before:
        await before.put_many(A, NAMES[:3])
        await before.put_many(B, NAMES[:2])
    file = f"file://{tmp_path}/secrets/keyring"
    with place("vault", tmp_path) as found:
        async with room(url, tmp_path, keyring=found.address, keyring_previous=file) as moved:
            assert (await moved.admin.status(A)).to_rewrap == 3
            assert len(await moved.opened(A)) == 3
            done = await moved.admin.rewrap()
            assert (done.rewrapped, done.unreadable, done.master_key_id) == (3, 0, f"{found.address}/v1")
            assert (await moved.admin.rewrap()).rewrapped == 0
            assert await moved.records(DEFAULT_TENANT) == ["admin.keyring_rewrap"] * 2
        (tmp_path / "secrets" / "keyring").unlink()
        async with room(url, tmp_path, keyring=found.address) as alone:
            assert await alone.opened(A) == {name: secret_of(name) for name in NAMES[:3]}
            found.rotate()
            assert (await alone.admin.status(A)).to_rewrap == 3
            assert (await alone.admin.rewrap()).rewrapped == 3
            del found.app.versions[0]
            found.app.versions.insert(0, b"x" * 32)
            alone.keyring.forget()
            assert await alone.opened(B) == {name: secret_of(name) for name in NAMES[:2]}


async def test_a_rewrap_that_is_cut_goes_on(url: str, tmp_path: Path) -> None:
    tenants = [A, B]
    async with room(url, tmp_path) as before:
        for tenant in tenants:
            await before.put(tenant, "acme")
    (tmp_path / "secrets" / "keyring").rename(tmp_path / "old")
    FileMaster.create(tmp_path / "secrets" / "keyring")
    async with room(url, tmp_path, keyring_previous=str(tmp_path / "old")) as moved:
        wrap, wraps = FileMaster.wrap, 0

        async def once(self: FileMaster, key: bytes, context: dict[str, str]) -> object:
            nonlocal wraps
            wraps += 1
            if wraps > 1:
                raise KeyringUnavailable("away")
            return await wrap(self, key, context)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FileMaster, "wrap", once)
            with pytest.raises(KeyringUnavailable):
                await moved.admin.rewrap()
        assert (await moved.admin.status(A)).to_rewrap == 2
        for tenant in tenants:
            assert await moved.opened(tenant) == {"acme": "sk-acme"}
        assert (await moved.admin.rewrap()).rewrapped == 2


async def test_a_planted_data_key_opens_nothing(here: Room, url: str) -> None:
    """Who writes to the database cannot have secrets sealed with a key that they know."""
    await here.put(A, "acme")
    stranger = FileMaster(b"s" * 32)
    key_id = await here.keyring.active(A)
    planted = await stranger.wrap(b"p" * 32, here.keyring.context(A, key_id))
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE runtime.data_key SET wrapped = %s", (planted.ciphertext,))
    here.keyring.forget()
    with pytest.raises(KeyringMismatch):
        await here.keyring.seal(A, "sk", "record")


async def test_the_place_may_be_away_while_the_room_runs(url: str, tmp_path: Path) -> None:
    with place("vault", tmp_path) as found:
        async with room(url, tmp_path, keyring=found.address) as here:
            await here.put(A, "acme")
            found.server.stop()
            assert await here.opened(A) == {"acme": "sk-acme"}
            await here.put(A, "other")
            status = await here.admin.status(A)
            assert (status.master_key_id, status.data_keys[0].secrets) == ("", 2)
            assert "does not answer" in status.trouble
            with pytest.raises(KeyringUnavailable):
                await here.admin.rotate(A)
            assert await here.opened(A) == {"acme": "sk-acme", "other": "sk-other"}


async def test_only_the_room_that_made_a_key_opens_it(here: Room, tmp_path: Path) -> None:
    await here.put(A, "acme")
    other = Keyring("identity", here.keyring.keys, master_of(tmp_path))
    with pytest.raises(KeyringMismatch):
        await other.open(A, (await here.sealed(A))["acme"], record_of(A, "acme"))
    assert len(SECRETS) == 2
