"""The outbox of audit records: with the change or not at all, to the log at least once, and no flood of refusals."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import grpc
import psycopg
import pytest
from orginabox.audit.v1 import audit_service_pb2 as pb
from orginabox.audit.v1 import record_pb2

from services.kit.caller import Caller, enter, leave
from services.kit.courier import AuditCourier
from services.kit.denials import MAX_KINDS, DenialRecorder
from services.kit.ids import DEFAULT_TENANT, OPERATOR
from services.kit.outbox import MAX_PAYLOAD, QUERIES, Who, record
from services.kit.postgres import Database
from tests.postgres import as_service

pytestmark = pytest.mark.usefixtures("of_the_system")

ROOT = Path(__file__).parents[3]


class Log:
    """Audit, in memory: refuses what it is told to, and may lose its answers."""

    def __init__(self) -> None:
        self.records: list[record_pb2.Record] = []
        self.lose_answers = 0

    async def AppendRecords(self, request: pb.AppendRecordsRequest) -> pb.AppendRecordsResponse:
        if any(found.action == "bad" for found in request.records):
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.INVALID_ARGUMENT, grpc.aio.Metadata(), grpc.aio.Metadata(), "not this one"
            )
        self.records.extend(request.records)
        if self.lose_answers:
            self.lose_answers -= 1
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "gone")
        return pb.AppendRecordsResponse(appended=len(request.records))


@pytest.fixture
async def room(database: Callable[..., str]) -> AsyncIterator[Database]:
    async with Database(as_service(database("runtime"), "runtime"), "runtime", QUERIES) as found:
        yield found


def courier(room: Database, log: Log) -> AuditCourier:
    return AuditCourier(room.transaction, log, asyncio.Event())  # type: ignore[arg-type]


@pytest.mark.parametrize("migration", ["api/migrations/0006", "runtime/migrations/0002", "queue/migrations/0004"])
def test_every_room_has_the_same_table(migration: str) -> None:
    (path,) = (ROOT / "services").glob(f"{migration}_*.sql")
    assert (ROOT / "services" / "kit" / "outbox_table.sql").read_text() in path.read_text()


async def test_a_record_tells_who_did_what(room: Database) -> None:
    tenant, log = uuid4(), Log()
    token = enter(Caller(tenant, OPERATOR, channel="cli", ip_address="10.0.0.1", user_agent="oiab"))
    async with room.transaction() as tx:
        await record(tx, "admin.provider_create", "provider:acme", session_id="0198", payload={"odd\0": float("nan")})
    leave(token)
    async with room.transaction() as tx:
        await record(tx, "auth.logout", tenant_id=tenant)
    await courier(room, log).drain()

    first, second = log.records
    assert (first.tenant_id, first.actor, first.user_id) == (str(tenant), f"user:{OPERATOR}", str(OPERATOR))
    assert (first.action, first.target, first.session_id) == ("admin.provider_create", "provider:acme", "0198")
    assert (first.channel, first.ip_address, first.user_agent) == ("cli", "10.0.0.1", "oiab")
    assert dict(first.payload) == {"odd\ufffd": "nan"}
    assert (second.actor, second.user_id, second.channel) == ("system", "", "")
    assert first.create_time.ToDatetime() <= second.create_time.ToDatetime()


async def test_what_is_rolled_back_leaves_no_record(room: Database) -> None:
    log = Log()
    with suppress(RuntimeError):
        async with room.transaction() as tx:
            await record(tx, "admin.provider_create", "provider:acme")
            raise RuntimeError
    await courier(room, log).drain()
    assert log.records == []


async def test_a_lost_answer_sends_the_same_record_again(room: Database) -> None:
    log = Log()
    log.lose_answers = 1
    async with room.transaction() as tx:
        for number in range(3):
            await record(tx, "agent.prompt", f"turn:{number}")
    with pytest.raises(grpc.aio.AioRpcError):
        await courier(room, log).drain()
    await courier(room, log).drain()

    assert [found.target for found in log.records] == ["turn:0", "turn:1", "turn:2"] * 2
    assert len({found.record_id for found in log.records}) == 3
    await courier(room, log).drain()
    assert len(log.records) == 6


async def test_a_bad_record_is_set_aside_and_holds_up_no_other(room: Database) -> None:
    log = Log()
    async with room.transaction() as tx:
        for action in ("agent.prompt", "bad", "agent.abort"):
            await record(tx, action)
        await tx.run("insert_audit_record", tenant_id=DEFAULT_TENANT, record='{"no_such_field": 1}')
    await courier(room, log).drain()
    await courier(room, log).drain()

    assert [found.action for found in log.records] == ["agent.prompt", "agent.abort"]
    async with room.transaction() as tx:
        rows = await (await tx._connection.execute("SELECT refusal FROM audit_outbox ORDER BY outbox_id")).fetchall()
    assert [row["refusal"] == "not this one" for row in rows] == [True, False]


async def test_what_is_too_large_is_left_out_and_said(room: Database) -> None:
    log = Log()
    async with room.transaction() as tx:
        await record(tx, "file.write", "file:1", payload={"text": "x" * MAX_PAYLOAD})
    await courier(room, log).drain()
    assert list(log.records[0].payload) == ["left_out"]


async def test_a_flood_of_refusals_is_a_few_records_that_count_it(room: Database) -> None:
    log, now = Log(), [0.0]
    denials = DenialRecorder(room.transaction, asyncio.Event(), clock=lambda: now[0])
    for _ in range(1000):
        await denials.denied("method:Create", "PERMISSION_DENIED")
    for number in range(2 * MAX_KINDS):
        await denials.denied(
            "method:Create", "UNAUTHENTICATED", who=Who(actor="anonymous", user_agent=f"scanner/{number}")
        )
    await courier(room, log).drain()
    assert len(log.records) <= MAX_KINDS + 1
    assert {(found.action, found.actor) for found in log.records} == {("auth.denied", "anonymous")}

    now[0] = 61.0
    await denials.flush()
    await courier(room, log).drain()
    counts = [found.payload.fields for found in log.records if "times" in found.payload]
    times = [int(count["times"].number_value) for count in counts]
    assert ("PERMISSION_DENIED", 999) in zip((count["reason"].string_value for count in counts), times, strict=True)
    assert sum(times) + len(log.records) - len(counts) == 1000 + 2 * MAX_KINDS
    await denials.denied("method:Create", "PERMISSION_DENIED")
    await courier(room, log).drain()
    assert log.records[-1].payload.fields["reason"].string_value == "PERMISSION_DENIED"


def test_what_waited_in_the_outbox_of_all_goes_on_from_the_new_one(database: Callable[..., str]) -> None:
    migrations = ROOT / "services" / "api" / "migrations"
    with psycopg.connect(database(), autocommit=True) as connection:
        connection.execute("CREATE SCHEMA api; SET search_path = api, public")
        for path in sorted(migrations.glob("000[1-5]_*.sql")):
            connection.execute(path.read_bytes())
        for receiver, message, refused in (("audit", "1", False), ("queue", "2", False), ("audit", "3", True)):
            connection.execute(
                "INSERT INTO outbox (tenant_id, receiver, message, refused) VALUES (%s, %s, %s, %s)",
                (DEFAULT_TENANT, receiver, message, refused),
            )
        connection.execute(next(migrations.glob("0006_*.sql")).read_bytes())
        moved = connection.execute("SELECT record, refusal IS NULL FROM audit_outbox ORDER BY outbox_id").fetchall()
        assert moved == [(1, True), (3, False)]
        assert connection.execute("SELECT message FROM outbox").fetchall() == [(2,)]
