"""The pool of connections, and transactions that run named queries."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, LiteralString, Self

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from services.kit.errors import ServiceUnavailable

Row = dict[str, Any]


class Transaction:
    """One transaction; it ends with the block that opened it."""

    def __init__(self, connection: psycopg.AsyncConnection[Row], queries: Mapping[str, LiteralString]) -> None:
        self._connection = connection
        self._queries = queries

    async def one(self, name: str, **params: object) -> Row | None:
        """Run a named query and return its first row, or None when it has none."""
        return await (await self._connection.execute(self._queries[name], params)).fetchone()

    async def many(self, name: str, **params: object) -> list[Row]:
        """Run a named query and return its rows."""
        return await (await self._connection.execute(self._queries[name], params)).fetchall()

    async def run(self, name: str, **params: object) -> int:
        """Run a named query and return how many rows it touched."""
        return (await self._connection.execute(self._queries[name], params)).rowcount

    async def each(self, name: str, params: list[dict[str, Any]]) -> None:
        """Run a named query once per set of parameters, in one round trip."""
        async with self._connection.cursor() as cursor:
            await cursor.executemany(self._queries[name], params)


class Database:
    """A pool of connections to one schema.

    Args:
        url: The address of the database in libpq's form.
        schema: The schema of the service. Every connection has it as its search path, and `public` for extensions.
        queries: The named queries of the store.
        size: How many connections at most.
    """

    def __init__(self, url: str, schema: str, queries: Mapping[str, LiteralString], *, size: int = 8) -> None:
        self._queries = queries
        self._pool = AsyncConnectionPool(
            url,
            connection_class=psycopg.AsyncConnection[Row],
            kwargs={
                "row_factory": dict_row,
                "options": f"-c search_path={schema},public -c idle_in_transaction_session_timeout=60s",
                "application_name": f"oiab-{schema}",
            },
            min_size=1,
            max_size=size,
            open=False,
            timeout=10,
            # A restarted server leaves dead connections in the pool; a round trip finds them before a query does.
            check=AsyncConnectionPool.check_connection,
            # The back-off between tries doubles; given up early, the next caller tries anew without it.
            reconnect_timeout=2.0,
        )

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Open a transaction: it commits when the block ends, and rolls back when the block raises.

        Raises:
            ServiceUnavailable: The database cannot be reached, or was lost before the commit.
        """
        try:
            async with self._pool.connection() as connection:
                yield Transaction(connection, self._queries)
        except (PoolTimeout, psycopg.OperationalError, psycopg.errors.IdleInTransactionSessionTimeout) as error:
            raise ServiceUnavailable(
                "the database cannot be reached just now; try again in a moment", service="database"
            ) from error

    async def ready(self) -> None:
        """Return when the database answers.

        Raises:
            ServiceUnavailable: It does not.
        """
        async with self.transaction() as tx:
            await tx._connection.execute("SELECT 1")  # noqa: SLF001 - the two classes are one thing in two halves
