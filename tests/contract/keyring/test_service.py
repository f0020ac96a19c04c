"""The keyring over its contracts: Runtime's own, and Api's for people, which asks every room."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from orginabox.api.v1 import keyring_service_pb2 as api
from orginabox.runtime.v1 import keyring_pb2, keyring_service_pb2_grpc, provider_pb2
from orginabox.runtime.v1 import keyring_service_pb2 as pb

from services.api.keyring_handler import KeyringHandler, RemoteKeyring
from services.kit import caller
from services.kit.caller import Caller
from services.kit.ids import DEFAULT_TENANT, OPERATOR
from services.kit.keyring.admin import KeyringAdmin
from services.kit.keyring.handler import STATES
from services.kit.keyring.handler import KeyringHandler as RoomHandler
from tests.contract.runtime.rig import TENANT, Runtime, runtime
from tests.keyring.memory import MemoryKeys, memory_keyring
from tests.store.keyring.rig import room

KEY = "sk-a-key-that-nobody-may-see"


@pytest.fixture
def url(database: Callable[..., str]) -> str:
    return database("runtime")


@pytest.fixture
async def rt(url: str, tmp_path: Path) -> AsyncIterator[Runtime]:
    async with runtime(url, tmp_path) as running:
        yield running


def stub(rt: Runtime) -> keyring_service_pb2_grpc.KeyringServiceStub:
    return keyring_service_pb2_grpc.KeyringServiceStub(rt.channel)


def claude() -> provider_pb2.Provider:
    return provider_pb2.Provider(provider_id="anthropic", kind=provider_pb2.PROVIDER_KIND_ANTHROPIC)


def test_every_state_has_its_wire_value() -> None:
    assert len(set(STATES.values())) == len(STATES) == len(keyring_pb2.DataKeyState.keys()) - 1


async def test_the_door_opens_through_a_rotation(rt: Runtime) -> None:
    await rt.create(claude(), key=KEY)
    await rt.apply()
    token = await rt.token()
    before = (await stub(rt).GetKeyring(pb.GetKeyringRequest(tenant_id=TENANT))).keyring
    assert (before.room, before.backend, before.secrets_to_reseal, before.trouble) == ("runtime", "file", 0, "")
    assert [(key.state, key.secrets) for key in before.data_keys] == [(keyring_pb2.DATA_KEY_STATE_ACTIVE, 2)]

    done = (await stub(rt).RotateDataKeys(pb.RotateDataKeysRequest(tenant_id=TENANT))).rotation
    assert (done.resealed, done.destroyed, done.unreadable, done.resumed) == (2, 1, 0, False)
    answer = await rt.check("/anthropic/messages", x_api_key=token)
    assert KEY in str(answer)
    after = (await stub(rt).GetKeyring(pb.GetKeyringRequest(tenant_id=TENANT))).keyring
    assert [key.key_id for key in after.data_keys] == [done.key_id] != [before.data_keys[0].key_id]
    assert (await rt.status()).status.in_sync, "it is the same key"
    assert KEY not in f"{before} {after} {done}"


async def test_a_tenant_sees_its_own_keys_only(rt: Runtime) -> None:
    other = str(uuid4())
    await rt.create(claude(), key=KEY)
    theirs = (await stub(rt).GetKeyring(pb.GetKeyringRequest(tenant_id=other))).keyring
    assert not theirs.data_keys
    await stub(rt).RotateDataKeys(pb.RotateDataKeysRequest(tenant_id=other))
    ours = (await stub(rt).GetKeyring(pb.GetKeyringRequest(tenant_id=TENANT))).keyring
    assert (len(ours.data_keys), ours.data_keys[0].secrets) == (1, 1)


async def test_a_repeated_request_is_known_after_a_rotation(rt: Runtime) -> None:
    request = str(uuid4())
    first = await rt.create(claude(), key=KEY, request_id=request)
    await stub(rt).RotateDataKeys(pb.RotateDataKeysRequest(tenant_id=TENANT))
    assert (await rt.create(claude(), key=KEY, request_id=request)).create_time == first.create_time


async def test_api_asks_every_room_in_the_callers_tenant(rt: Runtime, url: str, tmp_path: Path) -> None:
    await rt.create(claude(), key=KEY)
    async with room(url, tmp_path) as here:
        local = RoomHandler(KeyringAdmin(memory_keyring(MemoryKeys()), here.database))
        handler = KeyringHandler([RemoteKeyring(stub(rt)), local])
        token = caller.enter(Caller(DEFAULT_TENANT, OPERATOR))
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(MemoryKeys, "masters", _none, raising=False)
                status = await handler.GetKeyringStatus(api.GetKeyringStatusRequest(), None)  # type: ignore[arg-type]
            rotated = await KeyringHandler([RemoteKeyring(stub(rt))]).RotateDataKeys(
                api.RotateDataKeysRequest(),
                None,  # type: ignore[arg-type]
            )
            rewrapped = await KeyringHandler([RemoteKeyring(stub(rt))]).RewrapDataKeys(
                api.RewrapDataKeysRequest(),
                None,  # type: ignore[arg-type]
            )
        finally:
            caller.leave(token)
    assert [keyring.room for keyring in status.keyrings] == ["runtime", "test"]
    assert [done.resealed for done in rotated.rotations] == [1]
    assert [done.rewrapped for done in rewrapped.rewraps] == [0]
    assert UUID(TENANT) == DEFAULT_TENANT


async def _none(_: object) -> dict[str, int]:
    return {}
