"""The tables of the audit log refuse what the log must never do, whoever asks."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from uuid import uuid4

import psycopg
import pytest

TENANT = uuid4()
INSERT = (
    "WITH body AS (INSERT INTO body VALUES (%(tenant)s, %(sequence)s, sha256('')::bytea, '', '', %(payload)s))"
    " INSERT INTO record (tenant_id, sequence, record_id, user_id, actor, action, target, session_id, channel,"
    " create_time, append_time, commitment, hash) VALUES (%(tenant)s, %(sequence)s, gen_random_uuid(), %(user)s,"
    " %(actor)s, %(action)s, %(target)s, '', '', %(time)s, now(), sha256(''), sha256(''))"
)
USER = uuid4()
OLD = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def log(database: Callable[..., str]) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database("audit"), options="-c search_path=audit", autocommit=True) as connection:
        connection.execute("INSERT INTO head (tenant_id, sequence) VALUES (%s, 1)", (TENANT,))
        insert(connection)
        yield connection


def insert(log: psycopg.Connection, sequence: int = 1, **values: object) -> None:
    made = {"actor": "system", "action": "a.b", "payload": "{}", "user": USER, "target": "", "time": OLD}
    log.execute(INSERT.encode(), {"tenant": TENANT, "sequence": sequence} | made | values)


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
        "UPDATE body SET ip_address = 'x'",
        "TRUNCATE body",
        "DELETE FROM body",
        "SET session_replication_role = replica; DELETE FROM body",
    ],
)
def test_records_are_never_changed(log: psycopg.Connection, change: str) -> None:
    with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
        log.execute(change.encode())
    assert log.execute("SELECT count(*), count(b) FROM record LEFT JOIN body b USING (sequence)").fetchone() == (1, 1)


@pytest.mark.parametrize(
    ("action", "target", "goes"),
    [
        ("data.audit_erase", f"user:{USER}", True),
        ("data.audit_erase", f"user:{uuid4()}", False),
        ("data.audit_expire", f"a:{int(OLD.timestamp()) + 1}", True),
        ("data.audit_expire", f"a:{int(OLD.timestamp())}", False),
        ("data.audit_expire", f"b:{int(OLD.timestamp()) + 1}", False),
        ("data.other", f"user:{USER}", False),
    ],
)
def test_a_body_goes_only_when_a_later_record_says_so(
    log: psycopg.Connection, action: str, target: str, goes: bool
) -> None:
    insert(log, 2, action=action, target=target)
    with suppress(psycopg.errors.RestrictViolation):
        log.execute("DELETE FROM body WHERE sequence = 1")
    assert log.execute("SELECT sequence FROM body ORDER BY 1").fetchall() == ([(2,)] if goes else [(1,), (2,)])


def test_a_body_does_not_go_for_an_earlier_record(log: psycopg.Connection) -> None:
    insert(log, 2, action="data.audit_erase", target=f"user:{USER}")
    insert(log, 3)
    with pytest.raises(psycopg.errors.RestrictViolation):
        log.execute("DELETE FROM body WHERE sequence = 3")


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
