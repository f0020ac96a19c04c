"""The audit log as the other services see it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from orginabox.audit.v1 import audit_service_pb2 as pb
from orginabox.audit.v1 import audit_service_pb2_grpc, record_pb2

from services.audit.__main__ import SERVICES, furnish, register
from services.audit.settings import AuditSettings
from services.audit.store import QUERIES, SCHEMA, Store
from services.kit.ids import DEFAULT_TENANT, OPERATOR
from services.kit.postgres import Database
from services.kit.status import reason_of
from tests.contract.rig import served
from tests.postgres import as_service

TENANT = str(DEFAULT_TENANT)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Audit:
    """The calls that tests make most."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub = audit_service_pb2_grpc.AuditServiceStub(channel)

    async def append(self, *records: record_pb2.Record) -> int:
        """Append records."""
        return (await self.stub.AppendRecords(pb.AppendRecordsRequest(records=records))).appended

    async def list(self, tenant: str = TENANT, **wanted: object) -> list[record_pb2.Record]:
        """The first page of the log."""
        request = pb.ListRecordsRequest(tenant_id=tenant, **wanted)  # type: ignore[arg-type]
        return list((await self.stub.ListRecords(request)).records)


@pytest.fixture
async def audit(database: Callable[..., str], tmp_path: Path) -> AsyncIterator[Audit]:
    async with Database(as_service(database("audit"), SCHEMA), SCHEMA, QUERIES) as pool:
        room = furnish(AuditSettings(home=tmp_path), Store(pool))
        async with served(SERVICES, partial(register, room)) as channel:
            yield Audit(channel)


def a_record(
    action: str = "agent.prompt", tenant: str = TENANT, at: datetime = NOON, **values: object
) -> record_pb2.Record:
    record = record_pb2.Record(
        record_id=str(uuid4()),
        tenant_id=tenant,
        actor="system",
        action=action,
        **values,  # type: ignore[arg-type]
    )
    record.create_time.FromDatetime(at)
    return record


async def test_a_record_comes_back_as_it_was_sent(audit: Audit) -> None:
    sent = a_record(
        user_id=str(OPERATOR),
        target="turn:1",
        session_id="0198",
        channel="rest",
        ip_address="127.0.0.1",
        user_agent="curl/8",
    )
    sent.actor = f"user:{OPERATOR}"
    sent.duration.FromTimedelta(timedelta(milliseconds=12.345))
    sent.payload.update({"model": "a/b", "deep": {"list": [1, "two", None, True, {"three": 3.5}]}})

    assert await audit.append(sent) == 1

    (kept,) = await audit.list()
    sent.sequence = 1
    assert len(kept.hash) == 32
    kept.ClearField("hash")
    assert MessageToDict(kept) == MessageToDict(sent)


async def test_sending_again_adds_nothing_and_leaves_no_gap(audit: Audit) -> None:
    first, second, third = a_record(), a_record(), a_record()

    assert await audit.append(first, first, second) == 2
    assert await audit.append(first, second, third) == 1

    kept = await audit.list()
    assert [(record.sequence, record.record_id) for record in kept] == [
        (3, third.record_id),
        (2, second.record_id),
        (1, first.record_id),
    ]


async def test_writers_at_once_leave_no_gap(audit: Audit) -> None:
    tenants = [str(uuid4()), str(uuid4())]
    batches = [[a_record(tenant=tenants[(place + turn) % 2]) for place in range(6)] for turn in range(20)]

    # Each batch is sent twice at the same time, as after a lost answer.
    appended = await asyncio.gather(*(audit.append(*batch) for batch in (*batches, *batches)))

    assert sum(appended) == 120
    for tenant in tenants:
        assert [record.sequence for record in await audit.list(tenant, page_size=100)] == list(range(60, 0, -1))


async def test_a_list_is_narrowed(audit: Audit) -> None:
    hour = timedelta(hours=1)
    await audit.append(
        a_record("agent.prompt", at=NOON - hour),
        a_record("agent.complete", at=NOON, user_id=str(OPERATOR)),
        a_record("agents.other", at=NOON + hour),
        a_record("admin.provider_create", at=NOON + 2 * hour, user_id=str(OPERATOR)),
    )
    await audit.append(a_record(tenant=str(uuid4())))

    async def actions(**wanted: Any) -> list[str]:
        return [record.action for record in await audit.list(**wanted)]

    assert await actions(action="agent.prompt") == ["agent.prompt"]
    assert await actions(action="agent.*") == ["agent.complete", "agent.prompt"]
    assert await actions(action="agent*") == ["agents.other", "agent.complete", "agent.prompt"]
    assert await actions(action="%") == []
    assert len(await actions(action="*")) == 4
    assert await actions(user_id=str(OPERATOR)) == ["admin.provider_create", "agent.complete"]
    assert await actions(since=NOON, until=NOON + 2 * hour) == ["agents.other", "agent.complete"]


async def test_pages_follow_each_other_while_the_log_grows(audit: Audit) -> None:
    records = [a_record() for _ in range(7)]
    await audit.append(*records)
    seen: list[int] = []
    token = ""
    while True:
        page = await audit.stub.ListRecords(pb.ListRecordsRequest(tenant_id=TENANT, page_size=3, page_token=token))
        await audit.append(a_record())
        seen += [record.sequence for record in page.records]
        token = page.next_page_token
        if not token:
            break

    assert seen == [7, 6, 5, 4, 3, 2, 1]


async def test_a_page_token_of_another_list_is_refused(audit: Audit) -> None:
    await audit.append(a_record(), a_record())
    page = await audit.stub.ListRecords(pb.ListRecordsRequest(tenant_id=TENANT, page_size=1))

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await audit.list(action="agent.*", page_token=page.next_page_token)
    assert reason_of(refused.value) == "PAGE_TOKEN_INVALID"


async def test_whatever_a_record_tells_of_is_kept(audit: Audit) -> None:
    odd = a_record(target="a\0b", user_agent="\U0001f600")
    odd.payload.update({"nul\0": "x\0y", "number": float("nan"), "far": [float("inf")], "deep": {"empty": {}}})

    assert await audit.append(odd) == 1

    (kept,) = await audit.list()
    assert kept.target == "a�b"
    assert MessageToDict(kept.payload) == {"nul�": "x�y", "number": "nan", "far": ["inf"], "deep": {"empty": {}}}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("record_id", "no"),
        ("tenant_id", ""),
        ("user_id", "me"),
        ("actor", "root"),
        ("action", "prompt"),
        ("action", "A.b"),
        ("action", "data.audit_erase"),
    ],
)
async def test_a_record_that_names_nobody_or_nothing_is_refused_with_its_batch(
    audit: Audit, field: str, value: str
) -> None:
    wrong = a_record()
    setattr(wrong, field, value)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await audit.append(a_record(), wrong)

    assert reason_of(refused.value) == "INVALID_ARGUMENT"
    assert await audit.list() == []
