"""The contract of Audit."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

from orginabox.audit.v1 import audit_service_pb2 as pb
from orginabox.audit.v1 import audit_service_pb2_grpc

from services.audit import metrics, operations
from services.audit.exporting import export
from services.audit.mapping import (
    checkpoint_to_proto,
    damage_to_proto,
    filter_from_proto,
    form_from_proto,
    record_from_proto,
    record_to_proto,
)
from services.audit.notary import Notary
from services.audit.store import Store
from services.audit.verification import Verifier
from services.kit.interceptor import Context
from services.kit.outbox import Who
from services.kit.pages import page_cursor, page_size, page_token


class AuditHandler(audit_service_pb2_grpc.AuditServiceServicer):
    """Appends records, lists, exports and verifies them."""

    def __init__(self, store: Store, notary: Notary, verifier: Verifier) -> None:
        self._store = store
        self._notary = notary
        self._verifier = verifier

    async def AppendRecords(self, request: pb.AppendRecordsRequest, context: Context) -> pb.AppendRecordsResponse:
        records = [record_from_proto(record) for record in request.records]
        with metrics.APPEND_SECONDS.time():
            appended = await operations.append_records(self._store.of_all(), records)
        self._notary.appended(appended)
        metrics.APPENDED.inc(appended)
        metrics.BATCHES.observe(len(records))
        return pb.AppendRecordsResponse(appended=appended)

    async def ListRecords(self, request: pb.ListRecordsRequest, context: Context) -> pb.ListRecordsResponse:
        wanted, size = filter_from_proto(request), page_size(request.page_size)
        cursor = page_cursor(request.page_token, **vars(wanted))
        before = cursor.number("before") if cursor else None
        found = await operations.list_records(self._store, wanted, before, size)
        more = len(found) > size
        return pb.ListRecordsResponse(
            records=[record_to_proto(record) for record in found[:size]],
            next_page_token=page_token({"before": found[size - 1].sequence}, **vars(wanted)) if more else "",
        )

    async def ExportRecords(
        self, request: pb.ExportRecordsRequest, context: Context
    ) -> AsyncIterator[pb.ExportRecordsResponse]:
        form = form_from_proto(request.format)
        async for data in export(self._store, self._notary, filter_from_proto(request), form):
            yield pb.ExportRecordsResponse(data=data, content_type=form.value)

    async def VerifyLog(self, request: pb.VerifyLogRequest, context: Context) -> AsyncIterator[pb.VerifyLogResponse]:
        told = asyncio.Queue[int | None]()
        verifying = asyncio.create_task(
            self._verifier.verify(UUID(request.tenant_id), told.put_nowait, full=request.full)
        )
        verifying.add_done_callback(lambda _: told.put_nowait(None))
        try:
            while (records := await told.get()) is not None:
                yield pb.VerifyLogResponse(records=records)
            report = await verifying
        finally:
            verifying.cancel()
        yield pb.VerifyLogResponse(
            records=report.records,
            done=True,
            checkpoints=report.checkpoints,
            size=report.size,
            damages=map(damage_to_proto, report.damages),
        )

    async def ListCheckpoints(self, request: pb.ListCheckpointsRequest, context: Context) -> pb.ListCheckpointsResponse:
        size, cursor = page_size(request.page_size), page_cursor(request.page_token)
        async with self._store.of_all().transaction() as tx:
            found = await tx.checkpoints.page(cursor.number("before") if cursor else None, size + 1)
        return pb.ListCheckpointsResponse(
            checkpoints=[checkpoint_to_proto(*note) for note in found[:size]],
            next_page_token=page_token({"before": found[size - 1][0]}) if len(found) > size else "",
        )

    async def GetKey(self, request: pb.GetKeyRequest, context: Context) -> pb.GetKeyResponse:
        return pb.GetKeyResponse(public_key=self._notary.key.verifier_key)

    async def EraseUser(self, request: pb.EraseUserRequest, context: Context) -> pb.EraseUserResponse:
        who = Who.current(UUID(request.tenant_id))
        erased = await operations.erase_user(self._store.of_all(), who, UUID(request.user_id))
        return pb.EraseUserResponse(erased=erased)
