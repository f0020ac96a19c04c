"""Every rule of the database is shown rows that break it: a check that finds nothing proves something only then."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from tests.chaos import invariants
from tests.chaos.account import Account
from tests.chaos.calls import QueueAt
from tests.chaos.ledger import Ledger
from tests.chaos.schedules import MINUTES, SECONDS, Schedules
from tests.contract.queue.rig import TENANT
from tests.postgres import TestServer

# What the tables themselves refuse has to be allowed first, as if they had failed too.
ALLOW: tuple[LiteralString, ...] = (
    "DROP INDEX queue.job_head",
    "ALTER TABLE api.turn_event DROP CONSTRAINT turn_event_has_no_gap",
    "INSERT INTO api.session (session_id, tenant_id, user_id) VALUES (uuid(9), uuid(0), uuid(0))",
    "INSERT INTO audit.head (tenant_id) VALUES (uuid(0))",
)
HELP: tuple[LiteralString, ...] = (
    """CREATE FUNCTION uuid(n integer) RETURNS uuid LANGUAGE sql RETURN
        ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid""",
    """CREATE FUNCTION job(n integer, state queue.job_state, key text, attempt integer = 1, token integer = 0)
    RETURNS void LANGUAGE sql AS $$
        INSERT INTO queue.job (tenant_id, id, kind, key, state, attempt, priority, max_attempts, run_time, session_id,
            token, idempotency_key, trace_parent, payload)
        VALUES (uuid(0), uuid(n), 'chaos', key, state, attempt, 0, 5, now(),
            CASE WHEN state = 'leased' THEN uuid(7) END, uuid(CASE token WHEN 0 THEN n ELSE token END), n, '',
            '') $$""",
    """CREATE FUNCTION ended(n integer, state queue.job_state, kind text = 'chaos', attempt integer = 1,
        last_error text = 'why', intent text = '') RETURNS void LANGUAGE sql AS $$
        INSERT INTO queue.ended_job (tenant_id, id, kind, key, state, priority, attempt, max_attempts, run_time,
            create_time, idempotency_key, trace_parent, last_error, payload)
        VALUES (uuid(0), uuid(n), kind, '', state, 0, attempt, 5, now(), now(),
            CASE intent WHEN '' THEN n::text ELSE intent END, '', last_error, '') $$""",
    """CREATE FUNCTION turn(n integer, state text, began timestamptz = now(), ended timestamptz = now(),
        last integer = 0) RETURNS void LANGUAGE sql AS $$
        INSERT INTO api.turn (turn_id, ticket, tenant_id, user_id, session_id, text, state, start_time, end_time,
            last_sequence)
        VALUES (uuid(n), uuid(n), uuid(0), uuid(0), uuid(9), 'say', state, began,
            CASE WHEN state IN ('queued', 'running') THEN NULL ELSE ended END, last) $$""",
    """CREATE FUNCTION events(n integer, first integer, last integer) RETURNS void LANGUAGE sql AS $$
        INSERT INTO api.turn_event (turn_id, first_sequence, last_sequence, tenant_id, events)
        VALUES (uuid(n), first, last, uuid(0), '{}') $$""",
    """CREATE FUNCTION record(number integer, target text, action text = 'agent.prompt') RETURNS void LANGUAGE sql AS $$
        INSERT INTO audit.record (tenant_id, sequence, record_id, actor, action, target, session_id, channel,
            create_time, append_time, commitment, hash)
        VALUES (uuid(0), number, uuid(number), 'system', action, target, '', '', now(), now(), sha256(''), sha256(''));
        UPDATE audit.head SET sequence = greatest(sequence, number) $$""",
    "CREATE FUNCTION prompted(n integer) RETURNS text LANGUAGE sql RETURN 'turn:' || uuid(n)",
)

# Each rule, and what breaks it and no other.
BREAKS: dict[str, LiteralString] = {
    "I4: a key has two leased jobs": "SELECT job(1, 'leased', 'k'), job(2, 'leased', 'k')",
    "I4: a key has two heads": "SELECT job(1, 'ready', 'k'), job(2, 'retrying', 'k')",
    "I7: a job is blocked by nobody": "SELECT job(1, 'blocked', 'k')",
    "I6: a job has had more attempts than it may": "SELECT job(1, 'ready', '', attempt => 6)",
    "I3: two jobs are leased with one token": """
        SELECT job(1, 'leased', '', token => 8), job(2, 'leased', '', token => 8)""",
    "a session has two running turns": "SELECT turn(1, 'running'), turn(2, 'running')",
    "I9: a schedule has not fired": """
        INSERT INTO queue.schedule
        VALUES (uuid(0), 'late', '* * * * *', '', 'chaos', '', '', now() - interval '1 s')""",
    "I1: a job is left": "SELECT job(1, 'ready', '')",
    "I2: two jobs have one idempotency key": """
        SELECT ended(1, 'completed', intent => 'same'), ended(2, 'completed', intent => 'same')""",
    "I2: an intent stands for a job that is nowhere": """
        INSERT INTO queue.intent VALUES (uuid(0), 'intent', uuid(1), '', now() + interval '1 day')""",
    "I6: a dead letter has no error, or more attempts than it may": "SELECT ended(1, 'dead', last_error => '')",
    "I6: the job of a turn is dead": "SELECT ended(1, 'dead', kind => 'agent-turn')",
    "a turn has not ended": "SELECT turn(1, 'queued'), record(1, prompted(1))",
    "a turn ran before the one before it had ended": """
        SELECT turn(1, 'completed', now(), now() + interval '2 s'), turn(2, 'completed', now() + interval '1 s'),
            record(1, prompted(1)), record(2, prompted(2))""",
    "I13: a log has a gap, or an event twice": """
        SELECT turn(1, 'completed', last => 4), events(1, 1, 2), events(1, 4, 4), record(1, prompted(1))""",
    "something was never told to others": """
        INSERT INTO api.outbox (receiver, tenant_id, message) VALUES ('queue', uuid(0), '{}')""",
    "a record never came to the audit log": """
        INSERT INTO runtime.audit_outbox (tenant_id, record) VALUES (uuid(0), '{}')""",
    "I14: the audit log has a gap": "SELECT record(1, 'x', 'box.start'), record(3, 'x', 'box.start')",
    "I14: the audit log has not one prompt for each turn": """
        SELECT turn(1, 'completed'), record(1, prompted(1)), record(2, prompted(1))""",
}


@pytest.fixture
def wronged(postgres: TestServer) -> Iterator[str]:
    """A database whose tables let everything happen."""
    url = postgres.database("queue", "api", "audit", "runtime")
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in (*HELP, *ALLOW):
            connection.execute(statement)
    yield url
    postgres.drop(url)


def test_nothing_is_broken_where_nothing_happened(wronged: str) -> None:
    assert invariants.broken(wronged, (invariants.AT_EVERY_MOMENT | invariants.AT_REST).items()) == []


def test_every_rule_is_planted() -> None:
    assert (invariants.AT_EVERY_MOMENT | invariants.AT_REST).keys() == BREAKS.keys()


@pytest.mark.parametrize("rule", BREAKS)
def test_the_database_breaks_a_rule(wronged: str, rule: str) -> None:
    with psycopg.connect(wronged, autocommit=True) as connection:
        connection.execute(BREAKS[rule])
    moment = rule in invariants.AT_EVERY_MOMENT
    found = invariants.broken(wronged, (invariants.AT_EVERY_MOMENT if moment else invariants.AT_REST).items())
    assert any(sentence.startswith(rule) for sentence in found), found


def test_a_look_at_the_database_reaches_the_ledger(wronged: str) -> None:
    """What the queries find while everything burns, and at rest, is counted as violations."""
    with psycopg.connect(wronged, autocommit=True) as connection:
        connection.execute(BREAKS["I7: a job is blocked by nobody"])
    ledger, stop = Ledger(), asyncio.Event()

    async def look() -> None:
        asyncio.get_running_loop().call_later(0.1, stop.set)
        await invariants.watch(wronged, ledger, stop)
        await invariants.settle(wronged, ledger, seconds=0)

    asyncio.run(look())
    assert [sentence.split(":")[0] for sentence in ledger.violations] == ["I7", "I1"]


def test_the_jobs_of_schedules_are_held_against_their_ticks(wronged: str) -> None:
    """I9, from the table: a tick that did not fire, and a minute that passed without a job."""
    account = Account(Ledger(), concurrency=8)
    schedules = Schedules(QueueAt(Path(), ""), wronged, account, "chaos")
    schedules.ticks += ["20260101T000001Z", "20260101T000002Z"]
    schedules.began = datetime(2026, 1, 1, tzinfo=UTC)
    with psycopg.connect(wronged, autocommit=True) as connection:
        connection.execute("SELECT ended(1, 'completed', intent => %s)", (f"cron:{TENANT}:{SECONDS}:20260101T000001Z",))
    schedules.check()
    by_hand, by_clock = account.ledger.violations
    assert by_hand == f"I9: schedule {SECONDS} did not fire at 20260101T000002Z"
    assert by_clock.startswith(f"I9: schedule {MINUTES} did not fire at 20260101T000100Z, 20260101T000200Z")
