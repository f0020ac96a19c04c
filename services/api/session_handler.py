"""The contract's SessionService: takes requests apart, asks the operations, puts answers together."""

import asyncio
from uuid import UUID

import grpc
from orginabox.api.v1 import session_service_pb2 as pb
from orginabox.api.v1 import session_service_pb2_grpc
from orginabox.sandbox.v1 import sandbox_service_pb2, sandbox_service_pb2_grpc

from services.api import inbox, mapping, operations
from services.api.abort import abort_run
from services.api.store import Store
from services.kit import telemetry
from services.kit.caller import Caller, caller
from services.kit.interceptor import Context
from services.kit.pages import page_cursor, page_size, page_token
from services.kit.status import reason_of

WARM_SECONDS = 60.0


class SessionHandler(session_service_pb2_grpc.SessionServiceServicer):
    """Sessions and what is said in them.

    Args:
        store: Where they are kept.
        sandboxes: Where their turns will run.
    """

    def __init__(self, store: Store, sandboxes: sandbox_service_pb2_grpc.SandboxServiceStub) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._warming: set[asyncio.Task[None]] = set()

    async def CreateSession(self, request: pb.CreateSessionRequest, context: Context) -> pb.CreateSessionResponse:
        session = await operations.create_session(
            self._store,
            caller(),
            request.title,
            mapping.model_from_proto(request.model),
            _optional_id(request.request_id),
        )
        self._warm(caller(), session.id)
        return pb.CreateSessionResponse(session_id=str(session.id), session=mapping.session_to_proto(session))

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        limit, cursor = page_size(request.page_size), page_cursor(request.page_token, list="sessions")
        before = (cursor.time("time"), cursor.id("id")) if cursor else None
        sessions = await operations.list_sessions(self._store, caller(), before, limit + 1)
        page, more = sessions[:limit], len(sessions) > limit
        return pb.ListSessionsResponse(
            sessions=map(mapping.session_to_proto, page),
            next_page_token=page_token(
                {"time": page[-1].update_time.isoformat(), "id": str(page[-1].id)}, list="sessions"
            )
            if more
            else "",
        )

    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.GetSessionResponse:
        session = await operations.get_session(self._store, caller(), UUID(request.session_id))
        return pb.GetSessionResponse(session=mapping.session_to_proto(session))

    async def UpdateSession(self, request: pb.UpdateSessionRequest, context: Context) -> pb.UpdateSessionResponse:
        policy = mapping.policy_from_proto(request.busy_policy)
        session = await inbox.update_session(self._store, caller(), UUID(request.session_id), request.title, policy)
        return pb.UpdateSessionResponse(session=mapping.session_to_proto(session))

    async def DeleteSession(self, request: pb.DeleteSessionRequest, context: Context) -> pb.DeleteSessionResponse:
        await operations.delete_session(self._store, caller(), UUID(request.session_id))
        return pb.DeleteSessionResponse()

    async def ListMessages(self, request: pb.ListMessagesRequest, context: Context) -> pb.ListMessagesResponse:
        # A turn is two messages or, when it was steered, more; a page never cuts one in two.
        size = page_size(request.page_size)
        limit = max(1, size // 2)
        cursor = page_cursor(request.page_token, list="messages", session=request.session_id)
        history = await operations.list_history(
            self._store,
            caller(),
            UUID(request.session_id),
            cursor.number("ordinal") if cursor else None,
            limit + 1,
            mapping.answer_of,
        )
        response = pb.ListMessagesResponse()
        shown = 0
        for turn, answer in history[:limit]:
            said = mapping.messages_to_proto(turn, answer)
            if shown and len(response.messages) + len(said) > size:
                break
            response.messages.extend(said)
            shown += 1
        if shown < len(history):
            last = history[shown - 1][0].ordinal
            response.next_page_token = page_token({"ordinal": last}, list="messages", session=request.session_id)
        return response

    async def ListInbox(self, request: pb.ListInboxRequest, context: Context) -> pb.ListInboxResponse:
        limit = page_size(request.page_size)
        cursor = page_cursor(request.page_token, list="inbox", session=request.session_id)
        after = cursor.number("ordinal") if cursor else None
        turns = await inbox.list_inbox(self._store, caller(), UUID(request.session_id), after, limit + 1)
        page, more = turns[:limit], len(turns) > limit
        return pb.ListInboxResponse(
            turns=map(mapping.turn_to_proto, page),
            next_page_token=page_token({"ordinal": page[-1].ordinal}, list="inbox", session=request.session_id)
            if more
            else "",
        )

    async def Prompt(self, request: pb.PromptRequest, context: Context) -> pb.PromptResponse:
        said = inbox.Said(
            request.text,
            mapping.model_from_proto(request.model),
            _optional_id(request.request_id),
            mapping.policy_from_proto(request.busy_policy),
            telemetry.trace_parent(),
        )
        prompted = await inbox.prompt(self._store, caller(), UUID(request.session_id), said)
        if prompted.interrupted:
            await abort_run(self._sandboxes, prompted.interrupted.id)
        return pb.PromptResponse(
            turn_id=str(prompted.turn.id), position=prompted.position, turn=mapping.turn_to_proto(prompted.turn)
        )

    def _warm(self, owner: Caller, session_id: UUID) -> None:
        """Have sandbox and agent ready while the owner thinks of what to say; a cold start takes seconds."""
        task = asyncio.create_task(self._claim(owner, session_id))
        self._warming.add(task)
        task.add_done_callback(self._warming.discard)

    async def _claim(self, owner: Caller, session_id: UUID) -> None:
        request = sandbox_service_pb2.ClaimSandboxRequest(
            tenant_id=str(owner.tenant_id), user_id=str(owner.user_id), session_id=str(session_id)
        )
        try:
            await self._sandboxes.ClaimSandbox(request, timeout=WARM_SECONDS)
        except grpc.aio.AioRpcError as error:
            # The first turn will claim it again, and tell its user what is wrong.
            telemetry.log().info("sandbox not warmed", reason=reason_of(error), code=error.code().name)


def _optional_id(text: str) -> UUID | None:
    return UUID(text) if text else None
