"""A client is killed in the middle of a call: why a queue can hang for ever after it, and why ours does not.

grpc.aio cancels the handler of a call whose client has gone, wherever it stands. Between a statement and its commit
that leaves the transaction open, and its locks with it, when the connection belongs to the service and not to the call:
a prototype with a connection for its claims hung so, in a TRUNCATE behind a lock that nobody would ever give back.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import psycopg
import pytest
from orginabox.audit.v1 import audit_service_pb2, audit_service_pb2_grpc, record_pb2

from services.kit.gate import Call, Gate
from services.kit.interceptor import CallInterceptor, Context
from tests.faults.queue.rig import ROOT

WORK_SECONDS = 0.5
CLIENT = """
import sys, grpc
from orginabox.audit.v1 import audit_service_pb2, audit_service_pb2_grpc, record_pb2
with grpc.insecure_channel(sys.argv[1]) as channel:
    stub = audit_service_pb2_grpc.AuditServiceStub(channel)
    stub.AppendRecords(audit_service_pb2.AppendRecordsRequest(records=[record_pb2.Record()]))
"""


class Claims(audit_service_pb2_grpc.AuditServiceServicer):
    """A service that claims on a connection of its own, as a dispatcher does. Which contract it has is no matter."""

    def __init__(self, connection: psycopg.AsyncConnection) -> None:
        self._connection = connection
        self.claimed = asyncio.Event()

    async def AppendRecords(
        self, request: audit_service_pb2.AppendRecordsRequest, context: Context
    ) -> audit_service_pb2.AppendRecordsResponse:
        await self._connection.execute("UPDATE job SET taken = true")
        self.claimed.set()
        await asyncio.sleep(WORK_SECONDS)
        await self._connection.commit()
        return audit_service_pb2.AppendRecordsResponse()

    async def ListRecords(
        self, request: audit_service_pb2.ListRecordsRequest, context: Context
    ) -> audit_service_pb2.ListRecordsResponse:
        raise NotImplementedError


@asynccontextmanager
async def serving(claims: Claims, folder: Path, *interceptors: grpc.aio.ServerInterceptor) -> AsyncIterator[str]:
    """Serve the claims, and give the address."""
    server = grpc.aio.server(interceptors=interceptors)
    audit_service_pb2_grpc.add_AuditServiceServicer_to_server(claims, server)
    address = f"unix://{folder}/claims.sock"
    server.add_insecure_port(address)
    await server.start()
    try:
        yield address
    finally:
        await server.stop(0)


@pytest.fixture
async def claims(database: Callable[..., str]) -> AsyncIterator[tuple[Claims, str]]:
    url = database()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE job (taken bool)")
        connection.execute("INSERT INTO job VALUES (false)")
    async with await psycopg.AsyncConnection.connect(url) as connection:
        yield Claims(connection), url  # type: ignore[abstract]
        await connection.rollback()


async def kill_a_client_in_mid_call(claims: Claims, address: str) -> None:
    client = await asyncio.create_subprocess_exec(sys.executable, "-c", CLIENT, address, cwd=ROOT)
    await asyncio.wait_for(claims.claimed.wait(), 20)
    client.kill()
    await client.wait()
    await asyncio.sleep(WORK_SECONDS + 0.3)


async def cancel_in_mid_call(claims: Claims, address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = audit_service_pb2_grpc.AuditServiceStub(channel)
        call = stub.AppendRecords(audit_service_pb2.AppendRecordsRequest(records=[record_pb2.Record()]))
        await asyncio.wait_for(claims.claimed.wait(), 20)
        call.cancel()
        await asyncio.sleep(WORK_SECONDS + 0.3)


def truncate(url: str) -> None:
    """The step that hung."""
    with psycopg.connect(url, options="-c lock_timeout=1s") as connection:
        connection.execute("TRUNCATE job")


def idle_in_transaction(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
        ).fetchone()
    return int(row[0]) if row else 0


Fault = Callable[[Claims, str], Awaitable[None]]


class Open(Gate):
    """Lets everybody in."""

    @asynccontextmanager
    async def admitted(self, call: Call) -> AsyncIterator[None]:
        """Let a call in."""
        yield


FAULTS = pytest.mark.parametrize("fault", [kill_a_client_in_mid_call, cancel_in_mid_call])


@FAULTS
async def test_a_bare_handler_leaves_its_transaction_and_its_locks(
    claims: tuple[Claims, str], fault: Fault, tmp_path: Path
) -> None:
    service, url = claims
    async with serving(service, tmp_path) as address:
        await fault(service, address)
        assert idle_in_transaction(url) == 1
        with pytest.raises(psycopg.errors.LockNotAvailable):
            truncate(url)


@FAULTS
async def test_a_handler_in_the_kit_commits_whoever_has_gone(
    claims: tuple[Claims, str], fault: Fault, tmp_path: Path
) -> None:
    service, url = claims
    async with serving(service, tmp_path, CallInterceptor(Open())) as address:
        await fault(service, address)
        assert idle_in_transaction(url) == 0
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT taken FROM job").fetchall() == [(True,)]
        truncate(url)
