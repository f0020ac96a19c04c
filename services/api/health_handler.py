"""The contract's HealthService: whether the box can serve."""

from google.protobuf.timestamp_pb2 import Timestamp
from orginabox.api.v1 import health_service_pb2 as pb
from orginabox.api.v1 import health_service_pb2_grpc

from services.api.store import Store
from services.kit.interceptor import Context


class HealthHandler(health_service_pb2_grpc.HealthServiceServicer):
    """Whether the box can serve."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def GetHealth(self, request: pb.GetHealthRequest, context: Context) -> pb.GetHealthResponse:
        await self._store.ready()
        now = Timestamp()
        now.GetCurrentTime()
        return pb.GetHealthResponse(ok=True, ts=now)
