"""The pools of connections, and transactions that run named queries and see what is their tenant's."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, LiteralString, Self

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from services.kit.errors import ServiceUnavailable, TextInvalid
from services.kit.tenancy import SYSTEM, DatabaseUrls, Scope, scope

Row = dict[str, Any]
Pool = AsyncConnectionPool[psycopg.AsyncConnection[Row]]

_BOUND = "SELECT rolsuper OR rolbypassrls AS unbound FROM pg_catalog.pg_roles WHERE rolname = current_user"


class RoleUnbound(psycopg.OperationalError):
    """The login is above row-level security: with it, every tenant would see everything."""


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


Transactions = Callable[[], AbstractAsyncContextManager[Transaction]]
"""Where transactions come from: `Database.transaction`."""


class Database:
    """Two pools of connections to one schema: one for the tenants, one for the system.

    Args:
        urls: The addresses of the database for the two logins.
        schema: The schema of the service. Every connection has it as its search path, and nothing else.
        queries: The named queries of the store.
        size: How many connections for the tenants at most.
        system_size: How many connections for the system at most.
    """

    def __init__(
        self,
        urls: DatabaseUrls,
        schema: str,
        queries: Mapping[str, LiteralString],
        *,
        size: int = 8,
        system_size: int = 4,
    ) -> None:
        self._queries = queries
        self._tenants = _pool(urls.tenant, schema, 1, size)
        self._system = _pool(urls.system, schema, 0, system_size)

    async def __aenter__(self) -> Self:
        await self._tenants.open()
        await self._system.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tenants.close()
        await self._system.close()

    @asynccontextmanager
    async def transaction(self, wanted: Scope | None = None) -> AsyncIterator[Transaction]:
        """Open a transaction: it commits when the block ends, and rolls back when it raises.

        Args:
            wanted: The scope, for what is always of the same. None means the current one.

        Raises:
            ScopeMissing: Nobody said for whom.
            ServiceUnavailable: The database cannot be reached, or was lost before the commit.
        """
        current = wanted or scope()
        pool = self._system if current is SYSTEM else self._tenants
        try:
            connection = await _begun(pool, _begin(current))
            try:
                async with connection:  # of a pool: this ends the transaction, not the connection
                    yield Transaction(connection, self._queries)
            finally:
                await pool.putconn(connection)
        except (PoolTimeout, psycopg.OperationalError, psycopg.errors.IdleInTransactionSessionTimeout) as error:
            raise ServiceUnavailable(
                "the database cannot be reached just now; try again in a moment", service="database"
            ) from error
        except psycopg.DataError as error:
            if error.sqlstate is None and "NUL" in str(error):  # psycopg's own word: it was not sent
                raise TextInvalid("a text holds a NUL character, which no text may", field="") from error
            raise

    async def ready(self) -> None:
        """Return when the database answers.

        Raises:
            ServiceUnavailable: It does not.
        """
        try:
            async with self._tenants.connection() as connection:
                await connection.execute("SELECT 1")
        except (PoolTimeout, psycopg.OperationalError) as error:
            raise ServiceUnavailable(
                "the database cannot be reached just now; try again in a moment", service="database"
            ) from error


def _pool(url: str, schema: str, least: int, most: int) -> Pool:
    return AsyncConnectionPool(
        url,
        connection_class=psycopg.AsyncConnection[Row],
        kwargs={
            "autocommit": True,  # a transaction is begun by hand, and named in the same breath
            "row_factory": dict_row,
            "options": f"-c search_path={schema} -c idle_in_transaction_session_timeout=60s",
            "application_name": f"oiab-{schema}",
        },
        configure=_refuse_unbound,
        min_size=least,
        max_size=most,
        open=False,
        timeout=10,
        # The back-off between tries doubles; given up early, the next caller tries anew without it.
        reconnect_timeout=2.0,
    )


async def _refuse_unbound(connection: psycopg.AsyncConnection[Row]) -> None:
    """Refuse a login that no policy binds, however the service was told of it."""
    row = await (await connection.execute(_BOUND)).fetchone()
    if row and row["unbound"]:
        raise RoleUnbound(f"the role {connection.info.user} is above row-level security; give the service its own")


def _begin(current: Scope) -> bytes:
    """What opens a transaction, in one round trip. The tenant ends with the transaction, whatever happens in it."""
    return b"BEGIN" if current is SYSTEM else f"BEGIN; SET LOCAL oiab.tenant = '{current}'".encode()


async def _begun(pool: Pool, begin: bytes) -> psycopg.AsyncConnection[Row]:
    """A connection with an open transaction.

    A restarted server leaves dead connections in the pool. The first statement finds them, and no other has to.
    """
    for _ in range(pool.max_size + 1):
        connection = await pool.getconn()
        try:
            await connection.execute(begin, prepare=False)
        except BaseException as error:
            dead = connection.closed
            await pool.putconn(connection)
            if dead and isinstance(error, psycopg.OperationalError):
                continue
            raise
        return connection
    raise psycopg.OperationalError("every connection was dead")
