"""What Audit tells of its seals: exports, verifications, checkpoints, the key, erasure."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from uuid import uuid4

import grpc
import pytest
from orginabox.audit.v1 import audit_service_pb2 as pb
from orginabox.audit.v1 import audit_service_pb2_grpc, damage_pb2, export_pb2

from services.audit import verifier
from services.audit.__main__ import SERVICES, Room, furnish, register
from services.audit.damage import Kind
from services.audit.settings import AuditSettings
from services.audit.store import QUERIES, SCHEMA, Store
from services.kit.ids import OPERATOR
from services.kit.postgres import Database
from tests.contract.audit.test_audit import TENANT, a_record
from tests.contract.rig import served
from tests.postgres import as_service

Stub = audit_service_pb2_grpc.AuditServiceStub


@pytest.fixture
async def room(database: Callable[..., str], tmp_path: Path) -> AsyncIterator[tuple[Room, Stub]]:
    async with Database(as_service(database("audit"), SCHEMA), SCHEMA, QUERIES) as pool:
        made = furnish(AuditSettings(home=tmp_path), Store(pool))
        async with served(SERVICES, partial(register, made)) as channel:
            yield made, Stub(channel)


async def filled(stub: Stub) -> None:
    """Records of two tenants."""
    for tenant in (TENANT, str(uuid4())):
        records = [a_record(tenant=tenant, user_id=str(OPERATOR), ip_address="10.0.0.1") for _ in range(5)]
        await stub.AppendRecords(pb.AppendRecordsRequest(records=records))


async def exported(stub: Stub, form: export_pb2.ExportFormat.ValueType, **wanted: str) -> str:
    """An export, put together."""
    request = pb.ExportRecordsRequest(tenant_id=TENANT, format=form, **wanted)  # type: ignore[arg-type]
    return b"".join([piece.data async for piece in stub.ExportRecords(request)]).decode()


async def verified(stub: Stub, *, full: bool = True) -> list[pb.VerifyLogResponse]:
    """What a verification says."""
    return [told async for told in stub.VerifyLog(pb.VerifyLogRequest(tenant_id=TENANT, full=full))]


async def test_a_verification_tells_how_far_it_is_and_what_it_found(room: tuple[Room, Stub]) -> None:
    await filled(room[1])
    await room[0].notary.make()
    told = await verified(room[1])
    assert [one.done for one in told] == [False] * (len(told) - 1) + [True]
    assert (told[-1].records, told[-1].checkpoints, told[-1].size, list(told[-1].damages)) == (5, 1, 10, [])


async def test_a_chain_is_proven_by_the_key_alone(room: tuple[Room, Stub]) -> None:
    await filled(room[1])
    key = verifier.Key.read((await room[1].GetKey(pb.GetKeyRequest())).public_key)
    chain = await exported(room[1], export_pb2.EXPORT_FORMAT_CHAIN)
    found = verifier.verify(chain.splitlines(), key)
    assert (found.damages, found.records) == ([], 5)
    with pytest.raises(grpc.aio.AioRpcError, match="whole"):
        await exported(room[1], export_pb2.EXPORT_FORMAT_CHAIN, action="agent.*")
    assert len((await exported(room[1], export_pb2.EXPORT_FORMAT_UNSPECIFIED)).splitlines()) == 6


async def test_checkpoints_are_listed_by_page(room: tuple[Room, Stub]) -> None:
    for _ in range(3):
        await filled(room[1])
        await room[0].notary.make()
    sizes, token = list[int](), ""
    while True:
        page = await room[1].ListCheckpoints(pb.ListCheckpointsRequest(page_size=2, page_token=token))
        sizes += [checkpoint.size for checkpoint in page.checkpoints]
        if not (token := page.next_page_token):
            break
    assert sizes == [30, 20, 10]
    assert page.checkpoints[-1].note.startswith(room[0].notary.key.origin)


async def test_erasure_is_of_one_tenants_user(room: tuple[Room, Stub]) -> None:
    await filled(room[1])
    erasing = pb.EraseUserRequest(tenant_id=TENANT, user_id=str(OPERATOR))
    assert [(await room[1].EraseUser(erasing)).erased for _ in range(2)] == [5, 0]
    answer = await room[1].ListRecords(pb.ListRecordsRequest(tenant_id=TENANT))
    assert [(record.action, record.ip_address, record.erased) for record in answer.records[-2:]] == [
        ("agent.prompt", "", True)
    ] * 2
    assert not (await verified(room[1]))[-1].damages


def test_every_damage_has_its_name_on_the_wire() -> None:
    names = {name.removeprefix("DAMAGE_KIND_") for name in damage_pb2.DamageKind.DESCRIPTOR.values_by_name}
    assert {kind.name for kind in Kind} == names - {"UNSPECIFIED"}
