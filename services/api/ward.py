"""Ends the turns that run for somebody who may not have agents run any more: their ceiling has come down on them."""

import asyncio
from collections import defaultdict
from contextlib import suppress

from orginabox.sandbox.v1 import sandbox_service_pb2_grpc

from services.api import mapping, operations
from services.api.abort import abort_run
from services.api.feed import Feeds
from services.api.principal import FindPrincipal
from services.api.store import Store
from services.api.turn import Ending, Turn, TurnNotFound
from services.kit import telemetry
from services.kit.errors import ServiceUnavailable
from services.kit.tenancy import as_tenant

LOOK_SECONDS = 2.0
"""How soon a turn that runs ends when its user may not have it run any more. News of a change counts at once."""


class Ward:
    """Looks after the users of turns that run or wait for an answer, for as long as that takes.

    Args:
        store: Where the turns are.
        feeds: The live ends of their logs.
        sandboxes: Where they run.
        find: Tells how their users stand.
    """

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

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except ServiceUnavailable as error:
                telemetry.log().warning("users are looked at later", cause=str(error))
            except Exception as error:  # noqa: BLE001 - one bad turn must not let all others go on
                telemetry.log().error("users are looked at later", exc_info=error)

    async def look(self) -> None:
        """End every turn that runs for somebody who may not have it run."""
        async with self._store.transaction() as tx:
            turns = await tx.list_running_turns()
        by_user = defaultdict[object, list[Turn]](list)
        for turn in turns:
            by_user[turn.tenant_id, turn.user_id].append(turn)
        for theirs in by_user.values():
            if ending := (await self._find(theirs[0].tenant_id, theirs[0].user_id)).refusal:
                for turn in theirs:
                    with suppress(TurnNotFound):  # its session was deleted meanwhile
                        await self.end(turn, ending)

    async def end(self, turn: Turn, ending: Ending) -> Turn:
        """End a turn, and what runs of it; the turn as it is then.

        Raises:
            TurnNotFound: Its session was deleted.
        """
        telemetry.log().warning("turn not allowed any more", turn_id=str(turn.id), reason=ending.reason)
        with as_tenant(turn.tenant_id):
            turn, events = await operations.refuse_turn(self._store, turn.id, ending, mapping.ending_event)
        if events:
            self._feeds.publish(turn.id, events)
        await abort_run(self._sandboxes, turn.id)
        return turn
