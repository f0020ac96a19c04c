"""The throw-away token of a sandbox, made by Runtime."""

import grpc
from orginabox.runtime.v1 import runtime_service_pb2 as pb
from orginabox.runtime.v1 import runtime_service_pb2_grpc

from services.kit.errors import ServiceUnavailable
from services.sandbox.sandbox import Sandbox


class ModelTokens:
    """Asks Runtime for tokens."""

    def __init__(self, runtime: runtime_service_pb2_grpc.RuntimeServiceStub) -> None:
        self._runtime = runtime

    async def issue(self, sandbox: Sandbox) -> str:
        """A new token of the sandbox; the ones before end.

        Raises:
            ServiceUnavailable: Runtime does not answer.
        """
        request = pb.IssueModelTokenRequest(
            tenant_id=str(sandbox.tenant_id), user_id=str(sandbox.user_id), sandbox_id=str(sandbox.id)
        )
        try:
            answer = await self._runtime.IssueModelToken(request)
        except grpc.aio.AioRpcError as error:
            raise ServiceUnavailable("the runtime service cannot be reached; try again", service="runtime") from error
        return answer.token
