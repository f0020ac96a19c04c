"""A page of a large log is found by an index, whatever narrows it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from services.audit.record import Filter
from services.audit.store import QUERIES

TENANTS = [uuid4() for _ in range(4)]
USER = UUID(int=7)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FILL = """
WITH bodies AS (
    INSERT INTO body SELECT %(tenant)s, n, sha256('')::bytea, '', '', '{}' FROM generate_series(1, 20000) AS n
)
INSERT INTO record (tenant_id, sequence, record_id, user_id, actor, action, target, session_id, channel, create_time,
    append_time, commitment, hash)
SELECT %(tenant)s, n, gen_random_uuid(),
    CASE WHEN n %% 500 = 0 THEN %(user)s::uuid ELSE lpad(to_hex(100 + n %% 90), 32, '0')::uuid END, 'system',
    CASE WHEN n %% 1000 = 0 THEN 'admin.runtime_apply' ELSE 'tool.execute_' || n %% 7 END,
    '', '', '', %(noon)s::timestamptz + n * interval '1 second', now(), sha256(''), sha256('')
FROM generate_series(1, 20000) AS n
"""


@pytest.fixture(scope="module")
def log(postgres: Any) -> Iterator[psycopg.Connection]:
    url = postgres.database("audit")
    with psycopg.connect(url, options="-c search_path=audit", autocommit=True) as connection:
        for tenant in TENANTS:
            connection.execute("INSERT INTO head (tenant_id, sequence) VALUES (%s, 20000)", (tenant,))
            connection.execute(FILL.encode(), {"tenant": tenant, "user": USER, "noon": NOON})
        connection.execute("ANALYZE record")
        connection.execute("ANALYZE body")
        yield connection
    postgres.drop(url)


@pytest.mark.parametrize(
    ("narrowed", "before"),
    [
        ({}, None),
        ({}, 15_000),
        ({"action": "admin.runtime_apply"}, None),
        ({"action": "admin.*"}, None),
        ({"action": "nothing.here"}, None),
        ({"user_id": USER}, 10_000),
        ({"since": NOON + timedelta(seconds=100), "until": NOON + timedelta(seconds=160)}, None),
    ],
    ids=str,
)
def test_a_page_reads_little(log: psycopg.Connection, narrowed: dict[str, Any], before: int | None) -> None:
    wanted = Filter(TENANTS[1], **narrowed)
    params = {
        "tenant_id": wanted.tenant_id,
        "before": before,
        "action": wanted.exact,
        "prefix": wanted.prefix,
        "user_id": wanted.user_id,
        "since": wanted.since,
        "until": wanted.until,
        "size": 51,
    }
    row = log.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {QUERIES['list_records']}".encode(), params).fetchone()
    assert row
    plan = row[0][0]["Plan"]
    assert "Seq Scan" not in str(plan)
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 250


def test_known_records_are_found_by_their_ids(log: psycopg.Connection) -> None:
    ids = [row[0] for row in log.execute("SELECT record_id FROM record LIMIT 500")]
    params = {"tenant_id": TENANTS[0], "record_ids": ids}
    row = log.execute(f"EXPLAIN (FORMAT JSON) {QUERIES['known_records']}".encode(), params).fetchone()
    assert row
    assert "Seq Scan" not in str(row)
