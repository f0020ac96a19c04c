"""The contract's TurnLogService: the writing side of the log, for workers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from uuid import UUID

from orginabox.turn.v1 import turn_log_service_pb2 as pb
from orginabox.turn.v1 import turn_log_service_pb2_grpc

from services.api import mapping, operations
from services.api.feed import Feeds
from services.api.principal import FindPrincipal
from services.api.store import Store
from services.api.turn import Lease, LeaseLost, TurnEnded
from services.api.ward import Ward
from services.api.writer import LogWriter
from services.kit.interceptor import Context


class TurnLogHandler(turn_log_service_pb2_grpc.TurnLogServiceServicer):
    """The writing side of the log."""

    def __init__(self, store: Store, feeds: Feeds, find: FindPrincipal, ward: Ward) -> None:
        self._store = store
        self._feeds = feeds
        self._find = find
        self._ward = ward

    async def OpenTurn(self, request: pb.OpenTurnRequest, context: Context) -> pb.OpenTurnResponse:
        lease = Lease(request.attempt, request.lease_token)
        turn = await operations.open_log(self._store, UUID(request.turn_id), lease)
        # Another replica may have had the writer until now: its live end is not the log's any more.
        self._feeds.neighbours.tell(turn.id)
        tools = None
        if not turn.ended:
            principal = await self._find(turn.tenant_id, turn.user_id)
            tools = mapping.tools_to_proto(principal.tools)
            if principal.refusal:
                turn = await self._ward.end(turn, principal.refusal)
        return pb.OpenTurnResponse(
            tenant_id=str(turn.tenant_id),
            user_id=str(turn.user_id),
            session_id=str(turn.session_id),
            text=turn.text,
            model=mapping.model_to_proto(turn.model),
            last_sequence=turn.last_sequence,
            ended=turn.ended,
            abort_requested=turn.abort_requested,
            turn_id=str(turn.id),
            tools=None if turn.ended else tools,
        )

    async def AppendTurnEvents(
        self, request_iterator: AsyncIterator[pb.AppendTurnEventsRequest], context: Context
    ) -> AsyncIterator[pb.AppendTurnEventsResponse]:
        first = await anext(request_iterator, None)
        if first is None:
            return
        turn_id = UUID(first.turn_id)
        turn = await operations.read_for_work(self._store, turn_id)
        if turn.ended:
            raise TurnEnded(turn_id)
        if turn.lease_token != first.lease_token:
            raise LeaseLost(turn_id)
        with self._feeds.write(turn_id) as feed:
            writer = LogWriter(self._store, feed, self._feeds.neighbours, turn, first.lease_token)
            accepting = asyncio.create_task(_accept(writer, first, request_iterator))
            try:
                async for durable in writer.flushes():
                    yield pb.AppendTurnEventsResponse(
                        durable_sequence=durable.sequence, abort_requested=durable.abort_requested
                    )
                if accepting.done():
                    accepting.result()  # a gap in the events is an answer, not a silent end
            finally:
                accepting.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await accepting


async def _accept(
    writer: LogWriter, first: pb.AppendTurnEventsRequest, requests: AsyncIterator[pb.AppendTurnEventsRequest]
) -> None:
    try:
        await writer.accept([mapping.event_from_proto(event) for event in first.events])
        async for request in requests:
            await writer.accept([mapping.event_from_proto(event) for event in request.events])
    finally:
        writer.close()
