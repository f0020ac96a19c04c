"""The log on disk: partitions, compaction and retention change nothing that a reader sees."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api import operations
from services.api.log_store import ROW_BYTES, ROW_EVENTS, pieces
from services.api.store import QUERIES, Store
from services.api.turn import Ending, Event, TurnState
from services.kit.ids import DEFAULT_TENANT, OPERATOR, new_id
from services.kit.migrate import migrate
from services.kit.postgres import Database
from tests.postgres import as_owner, as_service

pytestmark = pytest.mark.usefixtures("of_the_system")

MIGRATIONS = Path("services/api/migrations")
RETENTION = timedelta(days=400)


def id_at(time: datetime) -> UUID:
    return UUID(hex=f"{int(time.timestamp() * 1000):012x}7000" + new_id().hex[16:])


def make_session(connection: psycopg.Connection, session: UUID) -> None:
    values = (session, DEFAULT_TENANT, OPERATOR)
    connection.execute("INSERT INTO session (session_id, tenant_id, user_id) VALUES (%s, %s, %s)", values)


def make_turn(url: str, turn_id: UUID, *, ended: bool) -> None:
    """A turn whose log "l" may write, or one that has ended and was compacted."""
    with connect(url) as connection:
        session = new_id()
        connection.execute(
            "INSERT INTO session (session_id, tenant_id, user_id) VALUES (%s, %s, %s)",
            (session, DEFAULT_TENANT, OPERATOR),
        )
        state, end = ("completed", datetime.now(UTC)) if ended else ("running", None)
        connection.execute(
            "INSERT INTO turn (turn_id, ticket, tenant_id, user_id, session_id, state, text, lease_token, end_time,"
            " compacted) VALUES (%s, %s, %s, %s, %s, %s, 'hi', 'l', %s, %s)",
            (turn_id, turn_id, DEFAULT_TENANT, OPERATOR, session, state, end, ended),
        )


def connect(url: str) -> psycopg.Connection:
    return psycopg.connect(url, options="-c search_path=api,public", autocommit=True)


def rows(url: str, turn_id: UUID) -> list[tuple[str, int, int]]:
    with connect(url) as connection:
        return connection.execute(
            "SELECT tableoid::regclass::text, first_sequence, last_sequence FROM turn_event"
            " WHERE turn_id = %s ORDER BY first_sequence",
            (turn_id,),
        ).fetchall()


def partitions(url: str) -> set[str]:
    with connect(url) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM turn_event_partition")}


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    async with Database(as_service(url, "api"), "api", QUERIES, size=4) as database:
        yield Store(database)


async def write(store: Store, turn_id: UUID, count: int, *, flush: int = 3) -> None:
    """Write a whole log in flushes of a few events, the last of them terminal."""
    events = [Event(number, f"event {number}".encode()) for number in range(1, count)]
    events.append(Event(count, b"end", Ending(TurnState.COMPLETED)))
    for start in range(0, count, flush):
        await operations.append_events(store, turn_id, "l", events[start : start + flush])


async def read(store: Store, turn_id: UUID, after: int = 0, count: int = 100_000) -> list[tuple[int, bytes]]:
    async with store.transaction() as tx:
        return await tx.log.read(turn_id, after, count)


@pytest.mark.parametrize("length", [1, 2, 7, 2_500])
async def test_a_compacted_log_reads_as_before_from_every_number(database: Callable[..., str], length: int) -> None:
    url, turn_id = database("api"), new_id()
    make_turn(url, turn_id, ended=False)
    async with opened(url) as store:
        await write(store, turn_id, length)
        whole = await read(store, turn_id)
        assert [number for number, _ in whole] == list(range(1, length + 1))
        assert await operations.compact_one(store, lambda _, events: b"%d" % len(events))
        assert not await operations.compact_one(store, lambda _, __: b"")
        assert len(rows(url, turn_id)) == -(-length // ROW_EVENTS)
        for after in {0, 1, 2, length // 2, 999, 1_000, 1_001, length - 1, length, length + 5}:
            assert await read(store, turn_id, after) == whole[after:]
    with connect(url) as connection:
        assert connection.execute("SELECT answer FROM turn").fetchone() == (b"%d" % length,)


async def test_a_reader_in_the_middle_of_a_compaction_misses_nothing(database: Callable[..., str]) -> None:
    url, turn_id = database("api"), new_id()
    make_turn(url, turn_id, ended=False)
    async with opened(url) as store:
        await write(store, turn_id, 3_000, flush=7)
        seen = await read(store, turn_id, 0, 10)
        async with store.transaction() as tx:
            turn = await tx.lock_turn_for_work(turn_id)
            await tx.log.compact(turn, await tx.log.read(turn_id, 0, 3_000), b"")
            while len(seen) < 1_500:  # nothing of it is seen before it is done
                seen += await read(store, turn_id, seen[-1][0], 10)
        while found := await read(store, turn_id, seen[-1][0], 10):
            seen += found
    assert [number for number, _ in seen] == list(range(1, 3_001))


async def test_a_turn_that_lives_is_not_compacted(database: Callable[..., str]) -> None:
    url, turn_id = database("api"), new_id()
    make_turn(url, turn_id, ended=False)
    async with opened(url) as store:
        await operations.append_events(store, turn_id, "l", [Event(1, b"x")])
        assert not await operations.compact_one(store, lambda _, __: b"")


@given(st.lists(st.integers(0, ROW_BYTES * 2), max_size=30), st.integers(1, 5))
def test_pieces_are_in_order_and_bounded(sizes: list[int], repeat: int) -> None:
    events = [(number, bytes(size)) for number, size in enumerate(sizes * repeat, start=1)]
    cut = list(pieces(events))
    assert [event for piece in cut for event in piece] == events
    assert all(len(piece) == 1 or sum(len(data) for _, data in piece) <= ROW_BYTES for piece in cut)


def test_rows_from_before_the_partitions_are_kept(database: Callable[..., str], tmp_path: Path) -> None:
    url, turn_id = database(), id_at(datetime.now(UTC) - timedelta(days=90))
    for path in sorted(MIGRATIONS.glob("*.sql")):
        if path.name < "0002":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    migrate(as_owner(url), "api", tmp_path)
    with connect(url) as connection:
        session = new_id()
        connection.execute(
            "INSERT INTO session (session_id, tenant_id, user_id) VALUES (%s, %s, %s)",
            (session, DEFAULT_TENANT, OPERATOR),
        )
        connection.execute(
            "INSERT INTO turn (turn_id, tenant_id, user_id, session_id, text) VALUES (%s, %s, %s, %s, '')",
            (turn_id, DEFAULT_TENANT, OPERATOR, session),
        )
        connection.execute(
            "INSERT INTO turn_event (turn_id, first_sequence, last_sequence, tenant_id, events)"
            " VALUES (%s, 1, 2, %s, %s)",
            (turn_id, DEFAULT_TENANT, [b"a", b"b"]),
        )
    migrate(as_owner(url), "api", MIGRATIONS)
    assert rows(url, turn_id) == [("turn_event_before", 1, 2)]
    with connect(url) as connection:
        connection.execute("DELETE FROM session")
    assert rows(url, turn_id) == []


async def test_partitions_are_made_ahead_and_events_go_where_their_turn_belongs(database: Callable[..., str]) -> None:
    url, now = database("api"), datetime.now(UTC)
    async with opened(url) as store:
        assert await operations.renew_partitions(store, 3, RETENTION) == (0, 0)
        far = id_at(now + timedelta(days=200))
        make_turn(url, far, ended=False)
        make_turn(url, today := id_at(now), ended=False)
        await operations.append_events(store, far, "l", [Event(1, b"far")])
        await operations.append_events(store, today, "l", [Event(1, b"now")])
        assert [row[0] for row in rows(url, far) + rows(url, today)] == ["turn_event_other", "turn_event_before"]
        made, _ = await operations.renew_partitions(store, 8, RETENTION)
        assert made == 5
        assert rows(url, far)[0][0] == f"turn_event_{now + timedelta(days=200):%Y_%m}"
        await operations.append_events(store, far, "l", [Event(2, b"more")])
        assert [data for _, data in await read(store, far)] == [b"far", b"more"]


async def test_old_partitions_go_but_not_while_a_turn_of_theirs_lives(database: Callable[..., str]) -> None:
    url, now = database("api"), datetime.now(UTC)
    old, living = id_at(now - timedelta(days=30)), id_at(now - timedelta(days=40))
    make_turn(url, old, ended=True)
    make_turn(url, living, ended=False)
    async with opened(url) as store:
        await operations.append_events(store, living, "l", [Event(1, b"x")])
        # Everything is older than a time far ahead.
        assert await operations.renew_partitions(store, 3, timedelta(days=-1_000)) == (0, 0)
        with connect(url) as connection:
            connection.execute("UPDATE turn SET state = 'completed', end_time = now(), compacted = true")
        assert await operations.renew_partitions(store, 3, timedelta(days=-1_000)) == (0, 4)
        assert partitions(url) == {"turn_event_other"}


async def test_one_replica_at_a_time_keeps_the_log(database: Callable[..., str]) -> None:
    async with opened(database("api")) as store, store.transaction() as first, store.transaction() as second:
        assert await first.log.keep_house()
        assert not await second.log.keep_house()
