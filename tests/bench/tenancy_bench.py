"""What it costs that the database keeps tenants apart: the same queries and transactions with it and without."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from services.kit.postgres import Database, Row
from services.kit.queries import load_queries
from services.kit.tenancy import as_system, as_tenant
from tests.bench.report import Table, median, percentile
from tests.postgres import TestServer, as_administrator, as_service, postgres_server

QUERIES = load_queries(Path(__file__).parents[2] / "services" / "api" / "queries.sql")
TENANTS, SESSIONS = 50, 400
WARM, CALLS, ROUNDS = 50, 400, 8

Work = Callable[[], Awaitable[object]]


async def run() -> list[Table]:
    """Measure everything."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(postgres_server())
        url, tenant, user = _filled(server)
        before = await stack.enter_async_context(_as_before(url))
        api = await stack.enter_async_context(Database(as_service(url, "api"), "api", QUERIES))
        return [await _transactions(before, api, tenant, user), await _queries(url, tenant, user)]


def _filled(server: TestServer) -> tuple[str, UUID, UUID]:
    """A database with the sessions of many tenants, and one user of them."""
    url = server.database("api")
    tenant, user = uuid4(), uuid4()
    with psycopg.connect(url, options="-c search_path=api", autocommit=True) as administrator:
        for number in range(TENANTS):
            administrator.execute(
                "INSERT INTO session (session_id, tenant_id, user_id, title)"
                " SELECT gen_random_uuid(), %s, %s, 'session ' || n FROM generate_series(1, %s) AS n",
                (uuid4() if number else tenant, uuid4() if number else user, SESSIONS),
            )
        administrator.execute("ANALYZE session")
    return url, tenant, user


@asynccontextmanager
async def _as_before(url: str) -> AsyncIterator[AsyncConnectionPool[psycopg.AsyncConnection[Row]]]:
    """The pool as it was without tenants: it looks whether a connection lives, and psycopg begins the transaction."""
    pool = AsyncConnectionPool(
        as_administrator(url),
        connection_class=psycopg.AsyncConnection[Row],
        kwargs={"row_factory": dict_row, "options": "-c search_path=api,public"},
        min_size=1,
        open=False,
        check=AsyncConnectionPool.check_connection,
    )
    async with pool:
        yield pool


async def _transactions(
    before: AsyncConnectionPool[psycopg.AsyncConnection[Row]], api: Database, tenant: UUID, user: UUID
) -> Table:
    params = {"tenant": tenant, "user": user, "before_time": None, "before_id": None, "limit": 1}

    async def without() -> None:
        async with before.connection() as connection:
            await (await connection.execute(QUERIES["list_sessions"], params)).fetchall()

    async def in_tenant() -> None:
        with as_tenant(tenant):
            async with api.transaction() as tx:
                await tx.many("list_sessions", **params)

    async def in_system() -> None:
        with as_system():
            async with api.transaction() as tx:
                await tx.many("list_sessions", **params)

    table = Table(
        "Tenancy: a transaction with one query",
        f"A query that finds one row, in a transaction of its own over a socket; {ROUNDS} rounds of {CALLS}, ways "
        "in turn. Before: a look whether the connection lives, BEGIN, query, COMMIT, as a superuser. Now: BEGIN with "
        "the tenant in one round trip, which is that look, query, COMMIT.",
        ("way", "p50 in µs", "p95 in µs", "against before"),
    )
    return await _by_turns(table, {"before": without, "as a tenant": in_tenant, "as the system": in_system})


async def _queries(url: str, tenant: UUID, user: UUID) -> Table:
    """Queries alone, within one long transaction."""
    point = sql.SQL("SELECT session_id FROM session WHERE session_id = {} AND tenant_id = {}")
    with psycopg.connect(url, options="-c search_path=api") as administrator:
        row = administrator.execute("SELECT session_id FROM session WHERE tenant_id = %s", (tenant,)).fetchone()
        assert row
        found = row[0]
    statements: dict[str, sql.SQL | sql.Composed] = {
        "one row by its id": point.format(sql.Literal(found), sql.Literal(tenant)),
        "a page of 50": sql.SQL(
            "SELECT * FROM session WHERE tenant_id = {} AND user_id = {}"
            " ORDER BY update_time DESC, session_id DESC LIMIT 50"
        ).format(sql.Literal(tenant), sql.Literal(user)),
        f"count {SESSIONS} of {TENANTS * SESSIONS}": sql.SQL(
            "SELECT count(*) FROM session WHERE tenant_id = {}"
        ).format(sql.Literal(tenant)),
        "the same, unsaid": sql.SQL(
            "SELECT count(*) FROM session WHERE tenant_id = current_setting('oiab.tenant')::uuid"
        ),
    }
    table = Table(
        "Tenancy: row-level security's cost per query",
        f"The same statement, as a superuser whom no policy binds and as a tenant; {ROUNDS} rounds of {CALLS}, ways in "
        "turn, median. `unsaid` names the tenant by the setting that the policy reads.",
        ("query", "without, µs", "with, µs", "with against without"),
    )
    async with AsyncExitStack() as stack:
        sessions = [
            await stack.enter_async_context(await psycopg.AsyncConnection.connect(at, options="-c search_path=api"))
            for at in (as_administrator(url), as_service(url, "api").tenant)
        ]
        for session in sessions:
            await session.execute("SELECT set_config('oiab.tenant', %s, false)", (str(tenant),))
        for name, statement in statements.items():
            ways = [_statement(session, statement) for session in sessions]
            without, bound = (median(times) for times in await _timed(ways))
            table.rows.append((name, f"{without:.0f}", f"{bound:.0f}", f"{bound / without:.2f}x"))
    return table


def _statement(session: psycopg.AsyncConnection, statement: sql.SQL | sql.Composed) -> Work:
    async def work() -> object:
        return await (await session.execute(statement, prepare=True)).fetchall()

    return work


async def _by_turns(table: Table, ways: dict[str, Work]) -> Table:
    times = await _timed(list(ways.values()))
    first = median(times[0])
    for name, found in zip(ways, times, strict=True):
        half, most = median(found), percentile(found, 95)
        table.rows.append((name, f"{half:.0f}", f"{most:.0f}", f"{half / first:.2f}x"))
    return table


async def _timed(ways: Sequence[Work]) -> list[list[float]]:
    """How many µs each way takes, each call of each round."""
    times: list[list[float]] = [[] for _ in ways]
    for work in ways:
        for _ in range(WARM):
            await work()
    for _ in range(ROUNDS):
        for work, found in zip(ways, times, strict=True):
            for _ in range(CALLS):
                began = time.perf_counter()
                await work()
                found.append((time.perf_counter() - began) * 1e6)
    return times
