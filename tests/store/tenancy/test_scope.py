"""The tenant of a transaction ends with it, whatever happens in it, and no transaction is without one."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from uuid import UUID, uuid4

import psycopg
import pytest

from services.api.store import QUERIES
from services.kit.errors import ServiceUnavailable
from services.kit.postgres import Database, Transaction
from services.kit.tenancy import SYSTEM, DatabaseUrls, ScopeMissing, as_system, as_tenant, scope
from tests.postgres import as_service

ONE, OTHER = uuid4(), uuid4()


@pytest.fixture
def url(database: Callable[..., str]) -> str:
    made = database("api")
    with psycopg.connect(made, options="-c search_path=api", autocommit=True) as connection:
        for tenant in (ONE, OTHER):
            connection.execute(
                "INSERT INTO session (session_id, tenant_id, user_id) VALUES (%s, %s, %s)", (uuid4(), tenant, uuid4())
            )
    return made


@pytest.fixture
async def api(url: str) -> AsyncIterator[Database]:
    """A room with one connection for tenants, so that each transaction comes after the other."""
    async with Database(as_service(url, "api"), "api", QUERIES, size=1) as found:
        yield found


async def execute(tx: Transaction, statement: str) -> list[dict[str, object]]:
    cursor = await tx._connection.execute(statement.encode())
    return await cursor.fetchall() if cursor.description else []


async def seen(api: Database) -> set[object]:
    async with api.transaction() as tx:
        return {row["tenant_id"] for row in await execute(tx, "SELECT tenant_id FROM session")}


async def left_behind(api: Database) -> object:
    """What the one connection still says of a tenant."""
    async with api._tenants.connection() as connection:
        row = await (await connection.execute("SELECT current_setting('oiab.tenant', true) AS tenant")).fetchone()
    return row and row["tenant"]


async def test_a_transaction_needs_a_scope(api: Database) -> None:
    with pytest.raises(ScopeMissing):
        async with api.transaction():
            pass


async def test_a_scope_decides_what_is_seen(api: Database) -> None:
    with as_tenant(ONE):
        assert await seen(api) == {ONE}
        with as_tenant(OTHER):
            assert await seen(api) == {OTHER}
        with as_system():
            assert await seen(api) == {ONE, OTHER}
        assert await seen(api) == {ONE}


async def test_a_scope_holds_in_the_tasks_that_begin_in_it(api: Database) -> None:
    async def found() -> set[object]:
        await asyncio.sleep(0)
        return await seen(api)

    with as_tenant(ONE):
        mine = asyncio.create_task(found())
    with as_tenant(OTHER):
        others = asyncio.create_task(found())
    assert (await mine, await others) == ({ONE}, {OTHER})
    with pytest.raises(ScopeMissing):
        scope()


def test_a_tenant_is_an_id_and_no_text() -> None:
    with pytest.raises(TypeError):
        as_tenant("x'; SET LOCAL oiab.tenant = 'y")  # type: ignore[arg-type]
    with as_system():
        assert scope() is SYSTEM


async def test_the_tenant_is_gone_after_the_commit(api: Database) -> None:
    with as_tenant(ONE):
        await seen(api)
    assert not await left_behind(api)


async def test_the_tenant_is_gone_after_an_error(api: Database) -> None:
    with as_tenant(ONE), suppress(psycopg.errors.DivisionByZero):
        async with api.transaction() as tx:
            await execute(tx, "SELECT 1/0")
    assert not await left_behind(api)
    with as_tenant(OTHER):
        assert await seen(api) == {OTHER}


async def test_the_tenant_is_gone_after_a_cancelled_call(api: Database) -> None:
    async def slow() -> None:
        async with api.transaction() as tx:
            await execute(tx, "SELECT pg_sleep(30)")

    with as_tenant(ONE):
        task = asyncio.create_task(slow())
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await left_behind(api)
    with as_tenant(OTHER):
        assert await seen(api) == {OTHER}


async def test_calls_that_are_cancelled_at_any_moment_mix_up_nobody(api: Database) -> None:
    with as_tenant(ONE):
        assert await seen(api) == {ONE}
        for wait in range(60):
            task = asyncio.create_task(seen(api))
            await asyncio.sleep(wait / 20_000)
            task.cancel()
            with suppress(asyncio.CancelledError):
                assert await task == {ONE}
    with as_tenant(OTHER):
        assert await seen(api) == {OTHER}


async def test_a_setting_for_the_whole_session_is_worth_nothing(api: Database) -> None:
    with as_tenant(ONE):
        async with api.transaction() as tx:
            await execute(tx, f"SET oiab.tenant = '{ONE}'")
    with as_tenant(OTHER):
        assert await seen(api) == {OTHER}


async def test_killed_backends_are_noticed_at_once_and_mix_up_nobody(api: Database, url: str) -> None:
    with as_tenant(ONE):
        assert await seen(api) == {ONE}
    with psycopg.connect(url, autocommit=True) as administrator:
        administrator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'oiab%'")
    began = time.monotonic()
    with as_tenant(OTHER):
        assert await seen(api) == {OTHER}
    assert time.monotonic() - began < 5


async def test_a_backend_killed_within_a_transaction_is_a_refusal(api: Database, url: str) -> None:
    with as_tenant(ONE), pytest.raises(ServiceUnavailable):  # noqa: PT012 - the whole transaction is what is refused
        async with api.transaction() as tx:
            (row,) = await execute(tx, "SELECT pg_backend_pid() AS pid")
            with psycopg.connect(url, autocommit=True) as administrator:
                administrator.execute("SELECT pg_terminate_backend(%s)", (row["pid"],))
            await execute(tx, "SELECT 1")
    with as_tenant(OTHER):
        assert await seen(api) == {OTHER}


async def test_a_login_above_the_policies_is_refused(url: str) -> None:
    async with Database(DatabaseUrls(url, url), "api", QUERIES) as api:
        for pool in (api._tenants, api._system):
            pool.timeout = 0.5
        for wanted in (as_tenant(ONE), as_system()):
            with wanted, pytest.raises(ServiceUnavailable):
                await seen(api)


async def test_the_system_sees_everybody_but_is_no_tenants_login(api: Database) -> None:
    with as_tenant(UUID(int=0)):
        assert await seen(api) == set()
        async with api.transaction() as tx:
            (row,) = await execute(tx, "SELECT current_user AS name")
    assert row["name"] == "oiab_api"
