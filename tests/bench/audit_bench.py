"""How fast the audit log is: sealed appends against plain inserts, verification, and the verifier that stands alone.

Run it as `python -m tests.bench audit`. PostgreSQL waits for the disk; it, Audit and the callers share the machine.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
from orginabox.audit.v1 import audit_service_pb2 as pb
from orginabox.audit.v1 import audit_service_pb2_grpc as audit_grpc

from services.audit import operations, resealing, verifier
from services.audit.__main__ import SERVICES, Room, furnish, register
from services.audit.exporting import Form, export
from services.audit.mapping import record_to_proto
from services.audit.record import Filter, Record
from services.audit.settings import AuditSettings
from services.audit.store import QUERIES, SCHEMA, Store
from services.kit import telemetry
from services.kit.ids import new_id
from services.kit.postgres import Database
from services.kit.tenancy import SYSTEM
from tests.bench.report import Table, median
from tests.contract.rig import served
from tests.postgres import as_service, postgres_server
from tests.store.audit.room import a_record

DURABLE = ("-c", "fsync=on", "-c", "synchronous_commit=on", "-c", "shared_buffers=256MB", "-c", "max_wal_size=4GB")
ROUNDS = 3
SECONDS = 2.0
CALLERS = 4
VERIFIED = 200_000
Way = Callable[[list[Record]], Awaitable[object]]
PLAIN = """INSERT INTO plain.record (
    tenant_id, sequence, record_id, user_id, actor, action, target, session_id, channel, ip_address, user_agent,
    duration, payload, create_time)
SELECT %(tenant)s, sequence, record_id, user_id, actor, action, target, session_id, channel, ip_address, user_agent,
    duration_us * interval '1 microsecond', payload, create_time
FROM jsonb_to_recordset(%(records)s::jsonb) AS sent (
    sequence bigint, record_id uuid, user_id uuid, actor text, action text, target text, session_id text, channel text,
    ip_address text, user_agent text, duration_us bigint, payload jsonb, create_time timestamptz)"""


async def run() -> list[Table]:
    """Measure everything."""
    telemetry.configure("bench", "warning")
    async with AsyncExitStack() as stack:
        server = stack.enter_context(postgres_server(DURABLE))
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oiab-")))
        url = server.database("audit")
        database = await stack.enter_async_context(
            Database(as_service(url, SCHEMA), SCHEMA, QUERIES, system_size=CALLERS + 2)
        )
        room = furnish(AuditSettings(home=home), Store(database, SYSTEM))
        channel = await stack.enter_async_context(served(SERVICES, partial(register, room)))
        appends = await _appends(url, room.store, audit_grpc.AuditServiceStub(channel))
        return [appends, await _verifications(room.store, room.notary.make, room)]


async def _appends(url: str, store: Store, stub: audit_grpc.AuditServiceStub) -> Table:
    table = Table(
        "Audit: records appended per second",
        f"{CALLERS} callers, each with a tenant, for {SECONDS:g} s; median of {ROUNDS} rounds, ways in turn. Plain is "
        "the same rows with the same indexes, numbered, without a seal; sealed is hashed, chained, its body apart; "
        "through gRPC adds the contract, its validation and TLS.",
        ("in one batch", "plain insert", "sealed", "sealed, through gRPC", "sealed against plain"),
        bounds="Target: 20,000 sealed records per second in batches.",
    )
    _make_plain(url)
    for batch in (1, 10, 100, 500):
        plainly = _Plain(url)
        ways: dict[str, Way] = {
            "plain": plainly,
            "sealed": partial(operations.append_records, store),
            "grpc": partial(_through_grpc, stub),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                rates[name].append(await _per_second(way, batch))
        await plainly.close()
        plain, sealed, grpc = (median(rates[name]) for name in ("plain", "sealed", "grpc"))
        table.rows.append((str(batch), f"{plain:,.0f}", f"{sealed:,.0f}", f"{grpc:,.0f}", f"{sealed / plain:.2f}"))
    return table


async def _per_second(way: Way, batch: int) -> float:
    """How many records a second all callers together append."""
    done, spent = 0, 0.0
    began = time.perf_counter()

    async def caller() -> None:
        nonlocal done, spent
        tenant = uuid4()
        while time.perf_counter() - began - spent < SECONDS:
            made = time.perf_counter()
            records = [replace(a_record(tenant, number), record_id=new_id()) for number in range(batch)]
            spent += time.perf_counter() - made  # nobody else ran meanwhile, and it is not what is measured
            await way(records)
            done += 1

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return batch * done / (time.perf_counter() - began - spent)


async def _through_grpc(stub: audit_grpc.AuditServiceStub, records: list[Record]) -> None:
    await stub.AppendRecords(pb.AppendRecordsRequest(records=map(record_to_proto, records)))


class _Plain:
    """Inserts without a seal, in the same number of steps: the end of the log is held, moved and committed."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._open: dict[UUID, psycopg.AsyncConnection] = {}
        self._ends: dict[UUID, int] = {}

    async def close(self) -> None:
        """End the connections."""
        for connection in self._open.values():
            await connection.close()

    async def __call__(self, records: list[Record]) -> None:
        """Insert a batch."""
        tenant = records[0].tenant_id
        connection = self._open.get(tenant)
        if connection is None:
            connection = self._open[tenant] = await psycopg.AsyncConnection.connect(self._url)
            await connection.execute("INSERT INTO plain.head (tenant_id) VALUES (%s)", (tenant,))
        await connection.execute("SELECT sequence FROM plain.head WHERE tenant_id = %s FOR UPDATE", (tenant,))
        ids = [record.record_id for record in records]
        known = "SELECT record_id FROM plain.record WHERE tenant_id = %s AND record_id = ANY (%s)"
        await connection.execute(known, (tenant, ids))
        end = self._ends.get(tenant, 0)
        documents = [_document(record, end + place) for place, record in enumerate(records, 1)]
        await connection.execute(PLAIN, {"tenant": tenant, "records": json.dumps(documents)})
        self._ends[tenant] = end + len(records)
        moved = "UPDATE plain.head SET sequence = %s WHERE tenant_id = %s"
        await connection.execute(moved, (self._ends[tenant], tenant))
        await connection.commit()


def _document(record: Record, sequence: int) -> dict[str, object]:
    found = vars(replace(record, sequence=sequence)) | {
        "create_time": record.create_time.isoformat(),
        "duration_us": None,
    }
    found |= {name: str(found[name]) for name in ("record_id", "user_id")}
    return {name: value for name, value in found.items() if name not in {"hash", "duration", "tenant_id", "erased"}}


def _make_plain(url: str) -> None:
    first = Path(resealing.__file__).with_name("migrations") / "0001_create_record.sql"
    with psycopg.connect(url, options="-c search_path=plain") as connection:
        connection.execute("CREATE SCHEMA plain")
        connection.execute(first.read_bytes())


async def _verifications(store: Store, make: Callable[[], Awaitable[object]], room: Room) -> Table:
    table = Table(
        "Audit: records verified per second",
        f"One chain of {VERIFIED:,} records. In the box: the database hashes in sets, two stretches at once, from the "
        "first record, and from the last checkpoint that was verified. Alone: the verifier of one file, one process, "
        f"an export of the chain. Median of {ROUNDS} rounds.",
        ("how", "records", "seconds", "records per second"),
        bounds="Target: 200,000 records per second.",
    )
    tenant = uuid4()
    for _ in range(VERIFIED // 500):
        await operations.append_records(store, [a_record(tenant, number) for number in range(500)])
    await make()
    full = [await _timed(lambda: room.verifier.verify(tenant, lambda _: None, full=True)) for _ in range(ROUNDS)]
    table.rows.append(_row("in the box, from the first record", VERIFIED, median(full)))
    await operations.append_records(store, [a_record(tenant, number) for number in range(500)])
    await make()
    new = await _timed(lambda: room.verifier.verify(tenant, lambda _: None))
    table.rows.append(_row("in the box, what is new", 500, new))
    began = time.perf_counter()
    pieces = [piece async for piece in export(store, room.notary, Filter(tenant), Form.CHAIN)]
    table.rows.append(_row("exporting the chain", VERIFIED + 500, time.perf_counter() - began))
    lines = b"".join(pieces).decode().splitlines()
    key = verifier.Key.read(room.notary.key.verifier_key)
    began = time.perf_counter()
    found = verifier.verify(lines, key)
    if found.damages:
        raise AssertionError(found.damages)
    table.rows.append(_row("alone", VERIFIED + 500, time.perf_counter() - began))
    return table


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


def _row(how: str, records: int, seconds: float) -> tuple[str, str, str, str]:
    return how, f"{records:,}", f"{seconds:.2f}", f"{records / seconds:,.0f}"


if __name__ == "__main__":
    for made in asyncio.run(run()):
        print(made.markdown(), flush=True)
