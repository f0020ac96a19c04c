"""The contract's SandboxService: takes requests apart, asks, puts answers together."""

from collections.abc import AsyncIterator
from uuid import UUID

from orginabox.sandbox.v1 import sandbox_service_pb2 as pb
from orginabox.sandbox.v1 import sandbox_service_pb2_grpc

from services.kit.interceptor import Context
from services.kit.pages import page_cursor, page_size, page_token
from services.sandbox import mapping, operations
from services.sandbox.fleet import Fleet
from services.sandbox.forgetting import Forgetting
from services.sandbox.patience import Patience
from services.sandbox.store import Store


class SandboxHandler(sandbox_service_pb2_grpc.SandboxServiceServicer):
    """Sandboxes and the turns that run in them."""

    def __init__(self, store: Store, fleet: Fleet, patience: Patience, forgetting: Forgetting) -> None:
        self._store = store
        self._fleet = fleet
        self._patience = patience
        self._forgetting = forgetting

    async def ClaimSandbox(self, request: pb.ClaimSandboxRequest, context: Context) -> pb.ClaimSandboxResponse:
        session = UUID(request.session_id) if request.session_id else None
        sandbox = await operations.claim_sandbox(
            self._store, self._fleet, UUID(request.tenant_id), UUID(request.user_id), session
        )
        return pb.ClaimSandboxResponse(sandbox=mapping.sandbox_to_proto(sandbox))

    async def ForgetSession(self, request: pb.ForgetSessionRequest, context: Context) -> pb.ForgetSessionResponse:
        await self._forgetting.forget(UUID(request.tenant_id), UUID(request.session_id))
        return pb.ForgetSessionResponse()

    async def GetSandbox(self, request: pb.GetSandboxRequest, context: Context) -> pb.GetSandboxResponse:
        sandbox = await operations.get_sandbox(self._store, UUID(request.tenant_id), UUID(request.sandbox_id))
        return pb.GetSandboxResponse(sandbox=mapping.sandbox_to_proto(sandbox))

    async def ListSandboxes(self, request: pb.ListSandboxesRequest, context: Context) -> pb.ListSandboxesResponse:
        limit = page_size(request.page_size)
        cursor = page_cursor(request.page_token, list="sandboxes", tenant=request.tenant_id)
        after = cursor.id("id") if cursor else None
        found = await operations.list_sandboxes(self._store, UUID(request.tenant_id), after, limit + 1)
        page = found[:limit]
        token = page_token({"id": str(page[-1].id)}, list="sandboxes", tenant=request.tenant_id)
        return pb.ListSandboxesResponse(
            sandboxes=map(mapping.sandbox_to_proto, page), next_page_token=token if len(found) > limit else ""
        )

    async def StopSandbox(self, request: pb.StopSandboxRequest, context: Context) -> pb.StopSandboxResponse:
        sandbox = await operations.stop_sandbox(
            self._store, self._fleet, UUID(request.tenant_id), UUID(request.sandbox_id)
        )
        return pb.StopSandboxResponse(sandbox=mapping.sandbox_to_proto(sandbox))

    async def RunTurn(self, request: pb.RunTurnRequest, context: Context) -> AsyncIterator[pb.RunTurnResponse]:
        turn = mapping.turn_from_proto(request)
        run = await operations.run_turn(self._store, self._fleet, self._patience, turn, request.after_sequence)
        if run.waits_for_user and run.last_sequence <= request.after_sequence:
            yield pb.RunTurnResponse(waits_for_user=True)
        async for batch in run.read(request.after_sequence):
            yield mapping.batch_to_proto(turn.id, batch, waits_for_user=run.waits_for_user)

    async def AbortTurn(self, request: pb.AbortTurnRequest, context: Context) -> pb.AbortTurnResponse:
        await operations.abort_turn(self._fleet, UUID(request.turn_id))
        return pb.AbortTurnResponse()

    async def SteerTurn(self, request: pb.SteerTurnRequest, context: Context) -> pb.SteerTurnResponse:
        await operations.steer_turn(self._fleet, UUID(request.turn_id), UUID(request.request_id), request.text)
        return pb.SteerTurnResponse()

    async def ReplyPermission(self, request: pb.ReplyPermissionRequest, context: Context) -> pb.ReplyPermissionResponse:
        await operations.reply_permission(
            self._fleet,
            UUID(request.turn_id),
            request.permission_id,
            mapping.reply_from_proto(request.reply),
            request.message,
            mapping.ceiling_from_proto(request.tools),
        )
        return pb.ReplyPermissionResponse()
