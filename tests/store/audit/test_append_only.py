"""The tables of the audit log refuse what the log must never do, whoever asks."""

from collections.abc import Callable, Iterator
from uuid import uuid4

import psycopg
import pytest

TENANT = uuid4()
INSERT = (
    "INSERT INTO record (tenant_id, sequence, record_id, actor, action, target, session_id, channel, ip_address,"
    " user_agent, payload, create_time) VALUES (%s, %s, %s, %s, %s, '', '', '', '', '', %s, now())"
)


@pytest.fixture
def log(database: Callable[..., str]) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database("audit"), options="-c search_path=audit", autocommit=True) as connection:
        connection.execute("INSERT INTO head (tenant_id, sequence) VALUES (%s, 1)", (TENANT,))
        insert(connection)
        yield connection


def insert(
    log: psycopg.Connection, sequence: int = 1, actor: str = "system", action: str = "a.b", payload: str = "{}"
) -> None:
    log.execute(INSERT.encode(), (TENANT, sequence, uuid4(), actor, action, payload))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE record SET action = 'a.c'",
        "UPDATE record SET action = 'a.c' WHERE false",
        "DELETE FROM record",
        "TRUNCATE record",
        "TRUNCATE head CASCADE",
        "MERGE INTO record USING head ON true WHEN MATCHED THEN DELETE",
        "SET session_replication_role = replica; DELETE FROM record",
    ],
)
def test_records_are_never_changed(log: psycopg.Connection, change: str) -> None:
    with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
        log.execute(change.encode())
    assert log.execute("SELECT count(*) FROM record").fetchone() == (1,)


@pytest.mark.parametrize(
    "change", ["UPDATE head SET sequence = 0", f"UPDATE head SET tenant_id = '{uuid4()}'", "DELETE FROM head"]
)
def test_the_head_only_moves_forward(log: psycopg.Connection, change: str) -> None:
    with pytest.raises(psycopg.Error, match="only moves forward"):
        log.execute(change.encode())


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"sequence": 0}, "sequence_begins_at_one"),
        ({"actor": "root"}, "actor_is_known"),
        ({"actor": "user:"}, "actor_is_known"),
        ({"action": "prompt"}, "action_is_dotted"),
        ({"payload": "[]"}, "payload_is_an_object"),
    ],
)
def test_nonsense_is_refused_by_name(log: psycopg.Connection, values: dict[str, str], rule: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match=rule):
        insert(log, **{"sequence": 2} | values)  # type: ignore[arg-type]


def test_a_number_is_given_once(log: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.UniqueViolation):
        insert(log, sequence=1)
    insert(log, sequence=2)
