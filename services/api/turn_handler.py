"""The contract's TurnService: turns, and the stream of their events."""

from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import grpc
from google.api import httpbody_pb2
from orginabox.api.v1 import turn_service_pb2 as pb
from orginabox.api.v1 import turn_service_pb2_grpc
from orginabox.sandbox.v1 import sandbox_service_pb2, sandbox_service_pb2_grpc
from orginabox.turn.v1 import turn_event_pb2

from services.api import event_text, inbox, mapping, operations, reader
from services.api.abort import abort_run
from services.api.feed import Feeds
from services.api.principal import FindPrincipal
from services.api.store import Store
from services.api.turn import Event, Turn, TurnState
from services.kit.caller import caller
from services.kit.errors import DomainError, Kind, PermissionDenied
from services.kit.interceptor import Context
from services.kit.pages import page_cursor, page_size, page_token
from services.kit.status import reason_of

_REPLIES = {
    turn_event_pb2.PERMISSION_REPLY_ONCE: "once",
    turn_event_pb2.PERMISSION_REPLY_ALWAYS: "always",
    turn_event_pb2.PERMISSION_REPLY_REJECT: "reject",
}


class PermissionNotFound(DomainError):
    """The turn does not wait for this permission."""

    kind = Kind.NOT_FOUND
    reason = "PERMISSION_NOT_FOUND"


class TurnHandler(turn_service_pb2_grpc.TurnServiceServicer):
    """Turns and their events."""

    def __init__(
        self,
        store: Store,
        feeds: Feeds,
        sandboxes: sandbox_service_pb2_grpc.SandboxServiceStub,
        find: FindPrincipal,
    ) -> None:
        self._store = store
        self._feeds = feeds
        self._sandboxes = sandboxes
        self._find = find

    async def GetTurn(self, request: pb.GetTurnRequest, context: Context) -> pb.GetTurnResponse:
        turn = await operations.get_turn(self._store, caller(), UUID(request.turn_id))
        return pb.GetTurnResponse(turn=mapping.turn_to_proto(turn))

    async def ListTurns(self, request: pb.ListTurnsRequest, context: Context) -> pb.ListTurnsResponse:
        limit = page_size(request.page_size)
        cursor = page_cursor(request.page_token, list="turns", session=request.session_id)
        before = cursor.number("ordinal") if cursor else None
        turns = await operations.list_turns(self._store, caller(), UUID(request.session_id), before, limit + 1)
        page, more = turns[:limit], len(turns) > limit
        return pb.ListTurnsResponse(
            turns=map(mapping.turn_to_proto, page),
            next_page_token=page_token({"ordinal": page[-1].ordinal}, list="turns", session=request.session_id)
            if more
            else "",
        )

    async def StreamTurnEvents(self, request: pb.StreamTurnEventsRequest, context: Context) -> AsyncIterator[Any]:
        turn = await operations.get_turn(self._store, caller(), UUID(request.turn_id))
        after = max(request.from_sequence, _last_event_id(context))
        async for events in self._read(turn, after):
            for event in events:
                after = event.sequence
                yield event.data  # as it was written: nobody parses it on its way to a reader
            if not events:
                yield mapping.checkpoint(turn.id, after)

    async def StreamTurnEventsAsText(
        self, request: pb.StreamTurnEventsAsTextRequest, context: Context
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        turn = await operations.get_turn(self._store, caller(), UUID(request.turn_id))
        after = max(request.from_sequence, _last_event_id(context))
        yield event_text.OPENING
        async for events in self._read(turn, after):
            for body in event_text.bodies_of(events):
                yield body
            if events:
                after = events[-1].sequence
            else:
                yield event_text.body_of(mapping.checkpoint(turn.id, after))

    def _read(self, turn: Turn, after: int) -> AsyncIterator[Sequence[Event]]:
        return reader.read_log(self._store, self._feeds, caller(), turn.id, after, mapping.end_of)

    async def UpdateTurn(self, request: pb.UpdateTurnRequest, context: Context) -> pb.UpdateTurnResponse:
        turn = await inbox.reword_turn(self._store, caller(), UUID(request.turn_id), request.text)
        return pb.UpdateTurnResponse(turn=mapping.turn_to_proto(turn))

    async def AbortTurn(self, request: pb.AbortTurnRequest, context: Context) -> pb.AbortTurnResponse:
        turn_id = UUID(request.turn_id)
        turn, events = await operations.abort_turn(self._store, caller(), turn_id, mapping.ending_event)
        if events:
            self._feeds.publish(turn_id, events)
        elif turn.state is TurnState.RUNNING:
            await abort_run(self._sandboxes, turn_id)
        return pb.AbortTurnResponse(turn=mapping.turn_to_proto(turn))

    async def ReplyPermission(self, request: pb.ReplyPermissionRequest, context: Context) -> pb.ReplyPermissionResponse:
        turn_id, reply = UUID(request.turn_id), _REPLIES[request.reply]
        principal = await self._find(caller().tenant_id, caller().user_id)
        await operations.record_reply(self._store, caller(), turn_id, request.permission_id, reply)
        try:
            await self._sandboxes.ReplyPermission(
                sandbox_service_pb2.ReplyPermissionRequest(
                    turn_id=request.turn_id,
                    permission_id=request.permission_id,
                    reply=request.reply,
                    message=request.message,
                    tools=mapping.tools_to_proto(principal.tools),
                )
            )
        except grpc.aio.AioRpcError as error:
            if reason_of(error) in {"RUN_LOST", "PERMISSION_NOT_FOUND"}:
                raise PermissionNotFound(
                    "this turn does not wait for this permission; it may have been answered already",
                    permissionId=request.permission_id,
                ) from None
            if reason_of(error) == PermissionDenied.reason:
                await operations.record_denied_reply(self._store, caller(), turn_id, request.permission_id)
                raise PermissionDenied(
                    "your roles do not allow this tool; refuse it, or ask an administrator for a role that has it",
                    permission="tools.allowed",
                ) from None
            raise
        return pb.ReplyPermissionResponse()


def _last_event_id(context: Context) -> int:
    for key, value in context.invocation_metadata() or ():
        if key == "last-event-id" and isinstance(value, str) and value.isascii() and value.isdigit():
            return min(int(value), 2**62)
    return 0
