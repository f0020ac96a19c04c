"""What has to hold in the database: at every moment, and when everything has come to rest.

The numbers are those of the design of the queue: I1 nothing acknowledged is lost, I2 one job per intent, I3 one valid
lease, I4 one of a key at a time and in order, I5 effects once, I6 attempts and dead letters, I7 no line without a head,
I8 in its time, I9 each tick fires once, I10 cancelled never runs, I11 credit, I12 works without NOTIFY, I13 no gap in a
log, I14 audit. Those that callers see are judged in `account`.
"""

import asyncio
import time
from collections.abc import Iterable
from typing import LiteralString

import psycopg

from tests.chaos.ledger import Ledger

REST_SECONDS = 60.0

# Each query finds what breaks the rule beside it.
AT_EVERY_MOMENT: dict[str, LiteralString] = {
    "I4: a key has two leased jobs": """
        SELECT tenant_id, key FROM queue.job WHERE state = 'leased' AND key <> ''
        GROUP BY tenant_id, key HAVING count(*) > 1""",
    "I4: a key has two heads": """
        SELECT tenant_id, key FROM queue.job WHERE state IN ('ready', 'leased', 'retrying') AND key <> ''
        GROUP BY tenant_id, key HAVING count(*) > 1""",
    "I7: a job is blocked by nobody": """
        SELECT tenant_id, key FROM queue.job b WHERE state = 'blocked' AND NOT EXISTS (
            SELECT FROM queue.job h WHERE h.tenant_id = b.tenant_id AND h.key = b.key
            AND h.state IN ('ready', 'leased', 'retrying'))""",
    "I6: a job has had more attempts than it may": """
        SELECT id, attempt FROM queue.job WHERE attempt > max_attempts""",
    "I3: two jobs are leased with one token": """
        SELECT token FROM queue.job WHERE state = 'leased' GROUP BY token HAVING count(*) > 1""",
    "a session has two running turns": """
        SELECT session_id FROM api.turn WHERE state = 'running' GROUP BY session_id HAVING count(*) > 1""",
}
AT_REST: dict[str, LiteralString] = {
    "I9: a schedule has not fired": "SELECT name, next_time FROM queue.schedule WHERE next_time <= clock_timestamp()",
    "I1: a job is left": "SELECT id, kind, key, state, attempt, last_error FROM queue.job",
    "I2: two jobs have one idempotency key": """
        SELECT tenant_id, idempotency_key FROM queue.ended_job GROUP BY 1, 2 HAVING count(*) > 1""",
    "I2: an intent stands for a job that is nowhere": """
        SELECT job_id FROM queue.intent i WHERE NOT EXISTS (
            SELECT FROM queue.ended_job e WHERE e.tenant_id = i.tenant_id AND e.id = i.job_id)""",
    "I6: a dead letter has no error, or more attempts than it may": """
        SELECT id, attempt, last_error FROM queue.ended_job
        WHERE (state = 'dead' AND last_error = '') OR attempt > max_attempts""",
    "I6: the job of a turn is dead": """
        SELECT id, last_error FROM queue.ended_job WHERE state = 'dead' AND kind = 'agent-turn'""",
    "a turn has not ended": "SELECT turn_id, state, attempt FROM api.turn WHERE end_time IS NULL",
    "a turn ran before the one before it had ended": """
        SELECT turn_id, start_time, before FROM (
            SELECT turn_id, start_time, max(end_time) OVER (
                PARTITION BY session_id ORDER BY ordinal ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
            FROM api.turn) t
        WHERE start_time < before""",
    "I13: a log has a gap, or an event twice": """
        SELECT t.turn_id, t.last_sequence, count(s.sequence), count(DISTINCT s.sequence), max(s.sequence)
        FROM api.turn t LEFT JOIN api.turn_event e USING (turn_id)
        LEFT JOIN LATERAL generate_series(e.first_sequence, e.last_sequence) AS s (sequence) ON true
        GROUP BY t.turn_id, t.last_sequence
        HAVING count(s.sequence) <> t.last_sequence OR count(DISTINCT s.sequence) <> t.last_sequence
            OR coalesce(max(s.sequence), 0) <> t.last_sequence""",
    "something was never told to others": "SELECT outbox_id, receiver FROM api.outbox",
    "a record never came to the audit log": """
        SELECT outbox_id, record FROM api.audit_outbox UNION ALL SELECT outbox_id, record FROM runtime.audit_outbox
        UNION ALL SELECT outbox_id, record FROM queue.audit_outbox""",
    "I14: the audit log has a gap": """
        SELECT h.tenant_id, h.sequence, count(r.sequence), max(r.sequence)
        FROM audit.head h LEFT JOIN audit.record r USING (tenant_id) GROUP BY h.tenant_id, h.sequence
        HAVING count(r.sequence) <> h.sequence OR max(r.sequence) <> h.sequence""",
    "I14: the audit log has not one prompt for each turn": """
        SELECT t.turn_id, count(r.sequence) FROM api.turn t
        LEFT JOIN audit.record r ON r.action = 'agent.prompt' AND r.target = 'turn:' || t.turn_id
        GROUP BY t.turn_id HAVING count(r.sequence) <> 1""",
}


def broken(url: str, rules: Iterable[tuple[str, LiteralString]]) -> list[str]:
    """The rules that do not hold, each with what breaks it."""
    found = []
    with psycopg.connect(url, autocommit=True) as connection:
        for rule, query in rules:
            if rows := connection.execute(query).fetchmany(3):
                found.append(f"{rule}: {', '.join(str(row) for row in rows)}")
    return found


def effects(url: str) -> list[tuple[str, str]]:
    """Job and key of each effect, in their order."""
    with psycopg.connect(url, autocommit=True) as connection:
        return [
            (str(job), str(key))
            for job, key in connection.execute("SELECT job_id, key FROM chaos.effect ORDER BY place")
        ]


def totals(url: str) -> dict[str, int]:
    """How much there was."""
    with psycopg.connect(url, autocommit=True) as connection:
        queries: dict[str, LiteralString] = {
            "jobs ended": "SELECT count(*) FROM queue.ended_job",
            "jobs dead, as they should": "SELECT count(*) FROM queue.ended_job WHERE state = 'dead'",
            "audit records": "SELECT count(*) FROM audit.record",
            "turns that a second worker took over": "SELECT count(*) FROM api.turn WHERE attempt > 1",
        }
        return {name: int((connection.execute(query).fetchone() or (0,))[0]) for name, query in queries.items()}


async def watch(url: str, ledger: Ledger, stop: asyncio.Event) -> None:
    """Look again and again whether what has to hold at every moment does."""
    while not stop.is_set():
        try:
            for sentence in await asyncio.to_thread(broken, url, AT_EVERY_MOMENT.items()):
                ledger.violated(sentence)
            ledger.counts["looks at the database"] += 1
        except psycopg.Error:
            ledger.counts["looks while the database was away"] += 1
        await asyncio.sleep(0.5)


async def settle(url: str, ledger: Ledger, seconds: float = REST_SECONDS) -> None:
    """Wait until everything has come to rest; what breaks a rule even then is a violation."""
    end = time.monotonic() + seconds
    while True:
        try:
            found = await asyncio.to_thread(broken, url, AT_REST.items())
        except psycopg.OperationalError as error:
            found = [f"the database is away: {error}"]
        if not found or time.monotonic() > end:
            break
        await asyncio.sleep(0.5)
    for sentence in found:
        ledger.violated(sentence)
