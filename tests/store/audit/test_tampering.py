"""Whatever is done to the database behind the log's back is found, by name."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.audit.checkpoint import SigningKey
from services.audit.exporting import Link
from services.audit.places import FilePlace
from services.audit.record import Filter, now
from services.audit.seal import GENESIS
from tests.store.audit.room import ALICE, ONE, TWO, Rig, rig_on

SOME = "tenant_id = '00000000-0000-0000-0000-00000000000b'"


ADDED = (
    "INSERT INTO record SELECT tenant_id, 11, gen_random_uuid(), user_id, actor, action, target, session_id, channel,"
    f" duration_us, create_time, append_time, commitment, hash FROM record WHERE {SOME} AND sequence = 10"
)
SWAPPED = "UPDATE checkpoint SET note = (SELECT note FROM checkpoint WHERE size = 10) WHERE size = 20"

GONE = "DELETE FROM checkpoint WHERE size = 10"


async def test_a_log_that_nobody_touched_is_whole(rig: Rig) -> None:
    await rig.fill()
    report = await rig.verify()
    assert report.whole, report.damages
    assert (report.records, report.checkpoints, report.size) == (20, 2, 20)
    assert (await rig.verify(ONE)).records == 10


async def test_what_was_verified_is_not_verified_again(rig: Rig) -> None:
    await rig.fill()
    assert (await rig.verify(full=False)).records == 20
    await rig.fill(4)
    report = await rig.verify(full=False)
    assert (report.records, report.checkpoints, report.whole) == (8, 2, True)


@pytest.mark.parametrize(
    ("tampering", "name"),
    [
        ([f"DELETE FROM record WHERE {SOME} AND sequence = 4"], "MISSING"),
        ([f"DELETE FROM record WHERE {SOME} AND sequence = 1"], "MISSING"),
        ([f"DELETE FROM body WHERE {SOME} AND sequence = 4"], "MISSING"),
        ([f"DELETE FROM record WHERE {SOME} AND sequence > 8"], "MISSING"),
        ([f"DELETE FROM head WHERE {SOME}"], "MISSING"),
        (
            [
                f"DELETE FROM record WHERE {SOME} AND sequence > 8",
                f"UPDATE head AS h SET sequence = 8, hash = r.hash FROM record AS r WHERE r.sequence = 8 AND h.{SOME}",
            ],
            "MISSING",
        ),
        (
            [
                f"UPDATE record SET sequence = 100 WHERE {SOME} AND sequence = 3",
                f"UPDATE record SET sequence = 3 WHERE {SOME} AND sequence = 4",
                f"UPDATE record SET sequence = 4 WHERE {SOME} AND sequence = 100",
            ],
            "REORDERED",
        ),
        (
            [
                f"UPDATE record SET sequence = 100 WHERE {SOME} AND sequence = 2",
                f"UPDATE record SET sequence = 2 WHERE {SOME} AND sequence = 7",
                f"UPDATE record SET sequence = 7 WHERE {SOME} AND sequence = 100",
            ],
            "REORDERED",
        ),
        (
            [
                f"UPDATE body SET sequence = 100 WHERE {SOME} AND sequence = 2",
                f"UPDATE body SET sequence = 2 WHERE {SOME} AND sequence = 7",
                f"UPDATE body SET sequence = 7 WHERE {SOME} AND sequence = 100",
            ],
            "BODY_CHANGED",
        ),
        (
            [
                f"UPDATE record SET tenant_id = '{ALICE}' WHERE tenant_id = '{ONE}' AND sequence = 5",
                f"UPDATE record SET tenant_id = '{ONE}' WHERE tenant_id = '{TWO}' AND sequence = 5",
                f"UPDATE record SET tenant_id = '{TWO}' WHERE tenant_id = '{ALICE}' AND sequence = 5",
            ],
            "CHANGED",
        ),
        ([ADDED], "CHANGED"),
        (["UPDATE checkpoint SET note = replace(note, 'time 2', 'time 1') WHERE size = 20"], "CHECKPOINT_FORGED"),
        ([SWAPPED], "CHECKPOINT_FORGED"),
        (["DELETE FROM checkpoint_head WHERE size = 10", GONE], "CHECKPOINT_FORGED"),
        (["DELETE FROM checkpoint_head WHERE size = 20", "DELETE FROM checkpoint WHERE size = 20"], "ROLLED_BACK"),
    ],
)  # fmt: skip
async def test_damage_is_named(rig: Rig, tampering: list[str], name: str) -> None:
    await rig.fill()
    rig.tamper(*tampering)
    assert name in await rig.found()


async def test_the_first_bad_record_is_told(rig: Rig) -> None:
    await rig.fill()
    rig.tamper(f"UPDATE record SET target = 'turn:x' WHERE {SOME} AND sequence IN (4, 8)")
    damages = (await rig.verify()).damages
    assert [(damage.kind.name, damage.sequence, damage.tenant_id) for damage in damages] == [
        ("CHANGED", 4, ONE),
        ("CHANGED", 8, ONE),
    ]
    assert (await rig.verify(TWO)).whole


async def test_a_chain_that_was_written_anew_is_not_the_one_that_was_signed(rig: Rig) -> None:
    """The hash has no secret in it: whoever owns the database can seal a history of their own. Checkpoints tell."""
    await rig.fill()
    before, statements = GENESIS, []
    for skeleton, _, _ in await _links(rig):
        changed = skeleton if skeleton.sequence != 3 else replace(skeleton, target="turn:other")
        before = changed.hash_after(before)
        statements.append(
            f"UPDATE record SET target = '{changed.target}', hash = '\\x{before.hex()}'"
            f" WHERE {SOME} AND sequence = {skeleton.sequence}"
        )
    rig.tamper(*statements, f"UPDATE head SET hash = '\\x{before.hex()}' WHERE {SOME}")
    damages = (await rig.verify()).damages
    assert [(damage.kind.name, damage.sequence) for damage in damages] == [("CHANGED", 5)]
    # Who forges the signed ends as well forges the checkpoint.
    rig.tamper(
        "UPDATE checkpoint_head AS c SET hash = r.hash FROM record AS r"
        " WHERE r.tenant_id = c.tenant_id AND r.sequence = c.sequence"
    )
    assert await rig.found() == {"CHECKPOINT_FORGED"}


async def _links(rig: Rig) -> Sequence[Link]:
    async with rig.room.store.transaction() as tx:
        return await tx.chain(Filter(ONE), 0, 100)


COLUMNS = [
    *((table, column) for table, columns in {
        "record": "tenant_id sequence record_id user_id actor action target session_id channel duration_us create_time"
        " append_time commitment hash",
        "body": "tenant_id sequence salt ip_address user_agent payload",
        "head": "tenant_id sequence hash",
        "checkpoint": "size note create_time",
        "checkpoint_head": "tenant_id sequence hash",
    }.items() for column in columns.split()),
]  # fmt: skip


def _one_byte(kind: str, column: str, place: int, bit: int) -> str:
    """SQL that changes one byte of a value."""
    match kind:
        case "bytea":
            at = f"mod({place}, length({column}))"
            return f"set_byte({column}, {at}, get_byte({column}, {at}) # {bit})"
        case "uuid":
            found = f"uuid_send({column})"
            return f"encode(set_byte({found}, {place % 16}, get_byte({found}, {place % 16}) # {bit}), 'hex')::uuid"
        case "timestamp with time zone":
            return f"{column} + {bit} * interval '1 microsecond'"
        case "bigint":
            return f"coalesce({column}, 0) # {bit}"
        case "json":
            return f"""replace({column}::text, '"number":', '"number": ')::json"""
        case _:
            at = f"(1 + mod({place}, greatest(length({column}), 1)))"
            return f"overlay({column} placing chr(ascii(substr({column}, {at}, 1)) # {bit % 32}) from {at} for 1)"


TABLES = ("record", "body", "head", "checkpoint", "checkpoint_head")


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(COLUMNS), st.integers(0, 400), st.integers(0, 4), st.integers(0, 1))
async def test_one_byte_of_any_column_is_found(
    sealed: Rig, where: tuple[str, str], place: int, bit: int, row: int
) -> None:
    (table, column), attacker = where, sealed.attacker
    (kind,) = attacker.execute(
        "SELECT data_type FROM information_schema.columns WHERE table_schema = 'audit' AND table_name = %s"
        " AND column_name = %s",
        (table, column),
    ).fetchone() or ("",)
    change = _one_byte(kind, column, place, 1 << bit)
    before = attacker.execute(
        f"SELECT ctid, {column}::text FROM {table} ORDER BY ctid OFFSET {row}".encode()
    ).fetchone()
    assert before
    try:
        attacker.execute(f"UPDATE {table} SET {column} = {change} WHERE ctid = %s".encode(), (before[0],))
    except psycopg.errors.UniqueViolation:  # two with one key: there is no such database
        return
    report = await sealed.verify()
    assert not report.whole, (table, column, change)
    for name in TABLES:
        attacker.execute(f"DELETE FROM {name}; INSERT INTO {name} TABLE kept_{name}".encode())
    assert (await sealed.verify()).whole


@pytest.fixture
async def sealed(rig: Rig) -> Rig:
    """A log whose tables refuse nothing any more, with a copy of each."""
    await rig.fill()
    constraints = "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype IN ('c', 'f')"
    for name in TABLES:
        rig.attacker.execute(f"ALTER TABLE {name} DISABLE TRIGGER USER".encode())
        for (constraint,) in rig.attacker.execute(constraints, (name,)).fetchall():
            rig.attacker.execute(f'ALTER TABLE {name} DROP CONSTRAINT "{constraint}"'.encode())
        rig.attacker.execute(f"CREATE TABLE kept_{name} AS TABLE {name}".encode())
    return rig


async def test_another_key_is_found(rig: Rig) -> None:
    await rig.fill()
    rig.room.notary.key = SigningKey(Ed25519PrivateKey.generate())
    assert "CHECKPOINT_FORGED" in await rig.found()


async def test_a_checkpoint_that_somebody_else_signed_is_found(rig: Rig) -> None:
    await rig.fill()
    async with rig.room.store.transaction() as tx:
        heads = await tx.checkpoints.heads()
    forged = SigningKey(Ed25519PrivateKey.generate()).sign(heads, now(), None).note
    mine = rig.room.notary.key.origin
    relabelled = "\n".join(mine if line.startswith("orginabox.dev") else line for line in forged.split("\n"))
    for note in (forged, relabelled):
        with rig.attacker.transaction():
            rig.attacker.execute("ALTER TABLE checkpoint DISABLE TRIGGER USER")
            rig.attacker.execute("UPDATE checkpoint SET note = %s WHERE size = 20", (note,))
        assert "CHECKPOINT_FORGED" in await rig.found()
    FilePlace(rig.home / "audit" / "checkpoints", mine).push(21, relabelled)
    assert "CHECKPOINT_FORGED" in await rig.found()


async def test_a_database_that_was_rolled_back_is_found_at_start_and_by_verify(
    rig: Rig, postgres: object, database: Callable[..., str], tmp_path: Path
) -> None:
    await rig.fill()
    older = database("audit")
    for table in TABLES:
        _copy(rig.url, older, table)
    await rig.fill()
    async with rig_on(older, rig.home) as rolled:
        assert await rolled.found() == {"ROLLED_BACK"}
        assert await rolled.found(full=False) == {"ROLLED_BACK"}
        # It is not signed on, not even when it grows past what was published.
        await rolled.room.notary.run()
        await rolled.fill(40)
        withheld = await rolled.room.notary.make()
        assert withheld
        assert withheld.size == 20
        assert await rolled.found() == {"ROLLED_BACK"}
        # Whoever has understood the loss puts the evidence aside, and it goes on.
        (rig.home / "audit" / "checkpoints").rename(rig.home / "evidence")
        shutil.rmtree(rig.home / "audit" / "verified", ignore_errors=True)
    async with rig_on(older, rig.home) as rolled:
        await rolled.checkpoint()
        assert (await rolled.verify()).whole
        assert (await rolled.verify()).size == 100


def _copy(source: str, target: str, table: str) -> None:
    with psycopg.connect(source) as reading, psycopg.connect(target) as writing:
        copying = reading.cursor().copy(f"COPY audit.{table} TO STDOUT".encode())
        filling = writing.cursor().copy(f"COPY audit.{table} FROM STDIN".encode())
        with copying as out, filling as into:
            for piece in out:
                into.write(piece)


async def test_what_was_verified_and_then_changed_is_found_by_a_full_verification(rig: Rig) -> None:
    await rig.fill()
    assert (await rig.verify(full=False)).whole
    rig.tamper(f"UPDATE record SET target = 'turn:x' WHERE {SOME} AND sequence = 4")
    assert await rig.found() == {"CHANGED"}
    shutil.rmtree(rig.home / "audit" / "verified")
    assert await rig.found(full=False) == {"CHANGED"}
