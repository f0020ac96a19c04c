"""The other replicas of Api on the same database: who reads here what is written there, and what has been written.

A replica with a reader of a log that it does not write says so, again and again (`watch`). Whoever writes that log
says after each flush that there is more (`tell`). Both are hints by NOTIFY, gathered into one
for many turns, on a connection of their own that waits for no disk: the transaction that writes the log carries none,
and where nobody watches, nothing is sent. A hint that is lost costs a reader a second: it looks by itself, too.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from uuid import UUID

import psycopg

from services.api.log_store import LOG_QUERIES
from services.kit import telemetry
from services.kit.ids import new_id

CHANNEL = "oiab_api_log"
TELL_SECONDS = 0.01
"""How long hints gather after one was sent. The first after a pause is sent at once."""
WATCH_SECONDS = 1.0
"""How often a reader says that it is still there."""
WATCHED_SECONDS = 5.0
"""How long a reader is believed to be there."""
MOST_HINTS = 200
"""How many hints share a NOTIFY: it may be 8,000 bytes long."""
RETRY_SECONDS = 0.5

_TOLD, _WATCHED = "t", "w"


class Neighbours:
    """The other replicas of Api.

    Args:
        url: The address of the database in libpq's form.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._name = new_id().hex
        self._hints: set[str] = set()
        self._wanted = asyncio.Event()
        self._watching: dict[UUID, float] = {}
        self._watched: dict[UUID, float] = {}

    def watch(self, turn_id: UUID) -> None:
        """Somebody here reads a log that may be written elsewhere."""
        now = _now()
        if now - self._watching.get(turn_id, 0) >= WATCH_SECONDS:
            _forget_before(self._watching, now - WATCH_SECONDS)
            self._watching.pop(turn_id, None)
            self._watching[turn_id] = now
            self._hint(_WATCHED, turn_id)

    def watched(self, turn_id: UUID) -> bool:
        """Whether somebody elsewhere reads the log of a turn."""
        return self._watched.get(turn_id, 0) > _now()

    def tell(self, turn_id: UUID) -> None:
        """There is something new in the log of a turn."""
        self._hint(_TOLD, turn_id)

    async def run(self, hear: Callable[[UUID], None]) -> None:
        """Tell and hear for ever. A database that is away only delays it.

        Args:
            hear: Called for each turn in whose log another replica says that there is something new.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._again(self._tell))
            tasks.create_task(self._again(lambda connection: self._listen(connection, hear)))

    def _hint(self, kind: str, turn_id: UUID) -> None:
        self._hints.add(kind + turn_id.hex)
        self._wanted.set()

    async def _again(self, work: Callable[[psycopg.AsyncConnection], Awaitable[None]]) -> None:
        while True:
            try:
                async with await self._connect() as connection:
                    await work(connection)
            except psycopg.OperationalError as error:
                telemetry.log().warning("the neighbours wait", cause=str(error))
            await asyncio.sleep(RETRY_SECONDS)

    async def _tell(self, connection: psycopg.AsyncConnection) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            hints, self._hints = self._hints, set()
            await connection.execute(LOG_QUERIES["tell_neighbours"], {"hints": list(self._payloads(hints))})
            await asyncio.sleep(TELL_SECONDS)

    async def _listen(self, connection: psycopg.AsyncConnection, hear: Callable[[UUID], None]) -> None:
        await connection.execute(f"LISTEN {CHANNEL}")
        async for notification in connection.notifies():
            sender, *hints = notification.payload.split()
            if sender != self._name:
                self._take(hints, hear)

    def _take(self, hints: Iterable[str], hear: Callable[[UUID], None]) -> None:
        now = _now()
        for hint in hints:
            turn_id = UUID(hex=hint[1:])
            if hint[0] == _TOLD:
                hear(turn_id)
                continue
            if not self.watched(turn_id):
                # What was written before anybody listened has not been told.
                self.tell(turn_id)
            _forget_before(self._watched, now)
            self._watched.pop(turn_id, None)
            self._watched[turn_id] = now + WATCHED_SECONDS

    def _payloads(self, hints: Iterable[str]) -> Iterator[str]:
        ordered = sorted(hints)
        for start in range(0, len(ordered), MOST_HINTS):
            yield " ".join([self._name, *ordered[start : start + MOST_HINTS]])

    async def _connect(self) -> psycopg.AsyncConnection:
        return await psycopg.AsyncConnection.connect(
            self._url,
            autocommit=True,
            connect_timeout=5,
            application_name="oiab-api",
            options="-c search_path=api,public -c synchronous_commit=off",
        )


def _now() -> float:
    return asyncio.get_running_loop().time()


def _forget_before(times: dict[UUID, float], limit: float) -> None:
    """Forget what is over. Times only grow, and a renewed one goes to the end, so that the oldest stand first."""
    while times and (oldest := next(iter(times))) and times[oldest] < limit:
        del times[oldest]
