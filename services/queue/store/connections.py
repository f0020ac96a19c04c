"""The ways to the database.

Each of the busy loops has a line of its own: no pool stands in its way, and its plans suit its work. The rest shares
the pool.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import psycopg
from psycopg.rows import dict_row

from services.kit import outbox
from services.kit.errors import ServiceUnavailable
from services.kit.postgres import Database, Row, Transactions
from services.kit.queries import load_queries
from services.kit.tenancy import DatabaseUrls, Scope
from services.queue.store.rows import QuickTransaction
from services.queue.store.transaction import QueueTransaction

QUERIES = load_queries(Path(__file__).parents[1] / "queries.sql") | outbox.QUERIES
SCHEMA = "queue"
CHANNEL = "queue"

# The statistics of a queue are wrong by nature: the table is empty now and full in a second. Plans are made once, and
# always go by index.
STEADY_PLANS = "-c jit=off -c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
ROW_BY_ROW = "-c enable_hashjoin=off -c enable_mergejoin=off"


class Line:
    """One connection for one loop: opened when it is needed, and opened anew after it broke.

    Args:
        url: The address of the database.
        options: Settings of its session.
    """

    def __init__(self, url: str, options: str) -> None:
        self._url = url
        self._options = options
        self._connection: psycopg.AsyncConnection[Row] | None = None
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[QueueTransaction]:
        """A transaction of several statements."""
        async with self._connected() as connection, connection.transaction():
            yield QueueTransaction(QuickTransaction(connection, QUERIES))

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[QueueTransaction]:
        """Single statements, each a transaction of its own."""
        async with self._connected() as connection:
            yield QueueTransaction(QuickTransaction(connection, QUERIES))

    async def tell_others(self, instance: str) -> None:
        """Hint to the other Queue processes that there is something to do."""
        async with self._connected() as connection:
            await connection.execute(QUERIES["tell_others"], {"instance": instance})

    async def told_by_others(self, instance: str) -> AsyncIterator[None]:
        """Listen to the hints of the other Queue processes. The first comes when the listening begins."""
        async with self._connected() as connection:
            await connection.execute(f"LISTEN {CHANNEL}")
            yield
            async for hint in connection.notifies():
                if hint.payload != instance:
                    yield

    async def close(self) -> None:
        """Close the connection, until it is needed again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[psycopg.AsyncConnection[Row]]:
        async with self._turn:
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = await self._connect()
                yield self._connection
            except psycopg.OperationalError as error:
                await self.close()
                raise ServiceUnavailable(
                    "the database cannot be reached just now; try again in a moment", service="database"
                ) from error

    async def _connect(self) -> psycopg.AsyncConnection[Row]:
        return await psycopg.AsyncConnection[Row].connect(
            self._url,
            autocommit=True,
            row_factory=dict_row,
            connect_timeout=5,
            prepare_threshold=1,
            application_name=f"oiab-{SCHEMA}",
            options=f"-c search_path={SCHEMA} -c idle_in_transaction_session_timeout=60s {self._options}",
        )


class Store:
    """The queue's tables, and the lines to them.

    The lines are the system's: what they do is for many tenants at once. On the pool a call works for its tenant.

    Args:
        urls: The addresses of the database for the two logins of the queue.

    Attributes:
        recorded: Set whenever an audit record has been committed.
    """

    def __init__(self, urls: DatabaseUrls) -> None:
        self._database = Database(urls, SCHEMA, QUERIES, size=8, system_size=16)
        self.recorded = asyncio.Event()
        url = urls.system
        self.enqueueing = Line(url, STEADY_PLANS)
        # A claim that a crash of the database undoes is only made again, so it need not wait for the disk.
        self.claiming = Line(url, f"{STEADY_PLANS} {ROW_BY_ROW} -c synchronous_commit=off")
        self.settling = Line(url, f"{STEADY_PLANS} {ROW_BY_ROW}")
        # A renewal that waits for callers or for the disk is a lease lost; one that a crash undoes comes again.
        self.renewing = Line(url, "-c synchronous_commit=off")
        self.telling = Line(url, "-c synchronous_commit=off")
        self.listening = Line(url, "")

    async def __aenter__(self) -> Self:
        await self._database.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for line in (self.enqueueing, self.claiming, self.settling, self.renewing, self.telling, self.listening):
            await line.close()
        await self._database.__aexit__()

    @asynccontextmanager
    async def transaction(self, wanted: Scope | None = None) -> AsyncIterator[QueueTransaction]:
        """A transaction on a connection of the pool, in the current scope unless another one is wanted."""
        async with self._database.transaction(wanted) as tx:
            transaction = QueueTransaction(tx)
            yield transaction
        if transaction.recorded:
            self.recorded.set()

    @property
    def outbox(self) -> Transactions:
        """Where the courier of audit records gets its transactions."""
        return self._database.transaction
