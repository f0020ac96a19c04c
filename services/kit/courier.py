"""Brings a room's audit records from its outbox to Audit: in order, in batches, at least once."""

import asyncio
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf import json_format
from orginabox.audit.v1 import audit_service_pb2 as pb
from orginabox.audit.v1 import audit_service_pb2_grpc, record_pb2
from prometheus_client import Counter, Gauge

from services.kit import telemetry
from services.kit.errors import ServiceUnavailable
from services.kit.postgres import Row, Transactions

POLL_SECONDS = 1.0
BATCH = 500
BATCH_BYTES = 2_000_000

_LAG = Gauge("oiab_outbox_oldest_seconds", "How long the oldest audit record of this service waits for Audit.")
_SENT = Counter("oiab_outbox_sent", "Audit records of this service that Audit has on disk.")
_REFUSED = Counter("oiab_outbox_refused", "Audit records of this service that Audit would not have.")


class AuditCourier:
    """Brings records to Audit for ever. What was just committed goes at once, what is left behind within a second.

    Args:
        transactions: Where transactions come from.
        audits: Audit.
        wanted: Set by the room when it has committed a record.
    """

    def __init__(
        self, transactions: Transactions, audits: audit_service_pb2_grpc.AuditServiceStub, wanted: asyncio.Event
    ) -> None:
        self._transactions = transactions
        self._audits = audits
        self._wanted = wanted

    async def run(self) -> None:
        """Bring for ever."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wanted.wait()
            self._wanted.clear()
            try:
                await self.drain()
            except (grpc.aio.AioRpcError, ServiceUnavailable) as error:
                telemetry.log().warning("audit records wait", cause=str(error))
                await asyncio.sleep(POLL_SECONDS)
            except Exception as error:  # noqa: BLE001 - whatever it is, what waits is tried again in a second
                telemetry.log().error("audit records wait", exc_info=error)
                await asyncio.sleep(POLL_SECONDS)

    async def drain(self) -> None:
        """Bring all that waits."""
        try:
            while waiting := await self._read():
                await self._bring(waiting)
        finally:
            await self._measure()

    async def _read(self) -> list[Row]:
        async with self._transactions() as tx:
            rows = await tx.many("read_audit_outbox", count=BATCH)
        return _within(rows, BATCH_BYTES)

    async def _bring(self, waiting: list[Row]) -> None:
        """Bring records together; when they are refused, one by one, so that one bad record holds up no other."""
        records = {row["outbox_id"]: _record(row) for row in waiting}
        fit = [number for number, found in records.items() if isinstance(found, record_pb2.Record)]
        for number, found in records.items():
            if isinstance(found, str):
                await self._set_aside(number, found)
        try:
            await self._append([records[number] for number in fit], fit)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                raise
            for number in fit:
                await self._append_one(records[number], number)

    async def _append(self, records: list[Any], numbers: list[int]) -> None:
        if not records:
            return
        await self._audits.AppendRecords(pb.AppendRecordsRequest(records=records))
        async with self._transactions() as tx:
            await tx.run("delete_audit_outbox", ids=numbers)
        _SENT.inc(len(numbers))

    async def _append_one(self, found: Any, number: int) -> None:
        try:
            await self._append([found], [number])
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                raise
            await self._set_aside(number, error.details() or "refused")

    async def _set_aside(self, number: int, refusal: str) -> None:
        telemetry.log().error("audit record refused", outbox_id=number, details=refusal)
        _REFUSED.inc()
        async with self._transactions() as tx:
            await tx.run("refuse_audit_outbox", id=number, refusal=refusal)

    async def _measure(self) -> None:
        async with self._transactions() as tx:
            row = await tx.one("audit_outbox_lag")
        _LAG.set(row["seconds"] if row else 0.0)


def _within(rows: list[Row], size: int) -> list[Row]:
    """As many as one call carries, at least one."""
    taken = 0
    for place, row in enumerate(rows):
        taken += len(row["record"])
        if taken > size:
            return rows[: max(place, 1)]
    return rows


def _record(row: Row) -> record_pb2.Record | str:
    """The record in the contract's form, or what is wrong with it."""
    try:
        found = json_format.Parse(row["record"], record_pb2.Record())
    except json_format.ParseError as error:
        return str(error)
    found.tenant_id = str(row["tenant_id"])
    if not found.HasField("create_time"):
        found.create_time.FromDatetime(row["create_time"])
    return found
