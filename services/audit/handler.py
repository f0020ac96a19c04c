"""The contract of Audit."""

from orginabox.audit.v1 import audit_service_pb2 as pb
from orginabox.audit.v1 import audit_service_pb2_grpc

from services.audit import operations
from services.audit.mapping import filter_from_proto, record_from_proto, record_to_proto
from services.audit.metrics import APPEND_SECONDS, APPENDED
from services.audit.store import Store
from services.kit.interceptor import Context
from services.kit.pages import page_cursor, page_size, page_token


class AuditHandler(audit_service_pb2_grpc.AuditServiceServicer):
    """Appends records and lists them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def AppendRecords(self, request: pb.AppendRecordsRequest, context: Context) -> pb.AppendRecordsResponse:
        records = [record_from_proto(record) for record in request.records]
        with APPEND_SECONDS.time():
            appended = await operations.append_records(self._store, records)
        APPENDED.inc(appended)
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
