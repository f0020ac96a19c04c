"""The life of a record: sealed from an earlier version, kept as long as its category, streamed until it has arrived."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import httpx
import psycopg
import pytest
import trustme

from services.audit import operations, resealing
from services.audit.housekeeping import expire_all
from services.audit.record import Filter, Record
from services.audit.store import SCHEMA
from services.audit.streaming import Receiver, ReceiverAway, Streamer, SyslogReceiver, WebhookReceiver, receiver_of
from services.kit.migrate import migrate
from services.kit.outbox import Who
from tests.store.audit.room import ALICE, NOON, ONE, TWO, Rig, a_record, rig_on

MIGRATIONS = Path(resealing.__file__).with_name("migrations")
OLD = """INSERT INTO record (tenant_id, sequence, record_id, user_id, actor, action, target, session_id, channel,
    ip_address, user_agent, duration, payload, create_time)
SELECT %(tenant)s, n, gen_random_uuid(), CASE WHEN n %% 2 = 0 THEN %(user)s::uuid END, 'system', 'agent.prompt',
    'turn:' || n, 's', 'rest', '10.0.0.1', 'curl', n * interval '1 millisecond', '{"a": [1, 2.5, "grüße"]}', now()
FROM generate_series(1, %(count)s) AS n"""


def earlier(url: str, tmp_path: Path, **counts: int) -> None:
    """A database as the version before has left it."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    first = MIGRATIONS / "0001_create_record.sql"
    (folder / first.name).write_bytes(first.read_bytes())
    migrate(url, SCHEMA, folder)
    with psycopg.connect(url, options="-c search_path=audit") as connection:
        for tenant, count in zip((ONE, TWO), counts.values(), strict=True):
            connection.execute("INSERT INTO head (tenant_id, sequence) VALUES (%s, %s)", (tenant, count))
            connection.execute(OLD.encode(), {"tenant": tenant, "user": ALICE, "count": count})


@pytest.mark.parametrize("killed_after", [None, 1, 2, 3])
async def test_what_an_earlier_version_kept_is_sealed(
    database: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int | None
) -> None:
    monkeypatch.setattr(resealing, "BATCH", 30)
    url = database()
    earlier(url, tmp_path, one=100, two=7)
    migrate(url, SCHEMA, MIGRATIONS)
    if killed_after:
        with psycopg.connect(
            url, options="-c search_path=audit,public", row_factory=psycopg.rows.dict_row
        ) as connection:
            for _ in range(killed_after):
                resealing._reseal_some(connection)
    resealing.reseal(url, SCHEMA)
    assert resealing.reseal(url, SCHEMA) == 0
    async with rig_on(url, tmp_path / "home") as rig:
        await rig.append(a_record(ONE), a_record(UUID(int=13)))
        await rig.checkpoint()
        report = await rig.verify()
        assert (report.whole, report.records) == (True, 109)
        kept = await operations.list_records(rig.room.store, Filter(ONE), 101, 1)
        assert (kept[0].target, kept[0].ip_address, kept[0].payload) == (
            "turn:100",
            "10.0.0.1",
            {"a": [1, 2.5, "grüße"]},
        )
        assert kept[0].duration == timedelta(milliseconds=100)
        assert rig.attacker.execute("SELECT to_regclass('unsealed_record')").fetchone() == (None,)


async def test_bodies_go_when_their_category_is_too_old(rig: Rig) -> None:
    actions = ("agent.prompt", "tool.execute", "auth.login", "admin.role_create", "data.export")
    await rig.append(*(a_record(action=action) for action in actions))
    year = timedelta(days=365)
    assert await expire_all(rig.room.store, NOON + year - timedelta(hours=1)) == 0
    assert await expire_all(rig.room.store, NOON + year + timedelta(hours=1)) == 2
    assert await expire_all(rig.room.store, NOON + year + timedelta(hours=1)) == 0
    assert await expire_all(rig.room.store, NOON + 2 * year + timedelta(hours=1)) == 3
    records = await operations.list_records(rig.room.store, Filter(ONE), None, 20)
    assert {(record.action, record.erased) for record in records if record.action in actions} == {
        (action, True) for action in actions
    }
    said = sorted(record.target.partition(":")[0] for record in records if record.action == "data.audit_expire")
    assert said == ["admin", "agent", "auth", "data", "tool"]
    await rig.checkpoint()
    assert (await rig.verify()).whole


async def test_an_erased_user_is_still_on_record(rig: Rig) -> None:
    await rig.append(a_record(), a_record(number=1))
    await operations.erase_user(rig.room.store, Who(ONE), ALICE)
    await rig.append(a_record())
    newest, said, other, erased = await operations.list_records(rig.room.store, Filter(ONE), None, 10)
    assert (said.action, said.target, said.actor) == ("data.audit_erase", f"user:{ALICE}", "system")
    assert (erased.erased, erased.ip_address, erased.user_agent, erased.payload) == (True, "", "", {})
    assert (erased.target, erased.user_id) == ("turn:0", ALICE)
    assert [other.erased, newest.erased] == [False, False]
    assert (await rig.verify()).whole


class Taking:
    """A receiver that keeps what it is sent, or is away."""

    name = "taking"

    def __init__(self) -> None:
        self.taken: list[Record] = []
        self.away = 0

    async def send(self, records: list[Record]) -> None:
        self.taken += records
        if self.away:
            self.away -= 1
            raise ReceiverAway("the answer was lost")


async def test_the_stream_goes_on_where_its_receiver_has_it(rig: Rig) -> None:
    await rig.fill()
    receiver = Taking()
    receiver.away = 1
    with pytest.raises(ReceiverAway):
        await Streamer(rig.room.store, receiver).drain()  # type: ignore[arg-type]
    await Streamer(rig.room.store, receiver).drain()  # type: ignore[arg-type]
    assert len({record.record_id for record in receiver.taken}) == 20
    assert len(receiver.taken) == 30, "what was sent when the answer was lost is sent again"
    await rig.fill(2)
    before = len(receiver.taken)
    await Streamer(rig.room.store, receiver).drain()  # type: ignore[arg-type]
    assert len(receiver.taken) == before + 4


@asynccontextmanager
async def syslog(context: ssl.SSLContext | None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A syslog server that reads frames."""
    frames: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while length := (await reader.readuntil(b" ")).strip():
                frames.append(await reader.readexactly(int(length)))
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], frames


@pytest.mark.parametrize("encrypted", [False, True])
async def test_syslog_has_a_frame_for_each_record(rig: Rig, tmp_path: Path, encrypted: bool) -> None:
    authority = trustme.CA()
    context = None
    if encrypted:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    await rig.append(a_record(), a_record(number=1, action="auth.login"))
    async with syslog(context) as (port, frames):
        scheme = "syslog+tls" if encrypted else "syslog+tcp"
        receiver = receiver_of(f"{scheme}://127.0.0.1:{port}", None, tmp_path / "ca.pem" if encrypted else None)
        await Streamer(rig.room.store, receiver).drain()
        for _ in range(100):
            if len(frames) == 2:
                break
            await asyncio.sleep(0.02)
        assert isinstance(receiver, SyslogReceiver)
        await receiver.close()
        await asyncio.sleep(0.05)
    head, message = frames[0].split(b"\xef\xbb\xbf")
    priority, time, _, program, process, kind, data, _ = head.decode().split(" ")
    assert (priority, time, program, process, kind, data) == (
        "<109>1", "2026-01-01T12:00:00.000000+00:00", "orginabox", "-", "agent.prompt", "-",
    )  # fmt: skip
    assert json.loads(message)["api"]["operation"] == "agent.prompt"


async def test_a_receiver_that_is_away_is_said_to_be() -> None:
    for receiver in (receiver_of("syslog+tcp://127.0.0.1:9", None, None), WebhookReceiver("http://127.0.0.1:9/", None)):
        with pytest.raises(ReceiverAway):
            await receiver.send([a_record()])


async def test_a_webhook_gets_lines_of_events(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.fill()
    taken: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        taken.append(request)
        return httpx.Response(503 if len(taken) == 1 else 204)

    receiver = receiver_of("https://siem.example/in", None, None)
    assert isinstance(receiver, WebhookReceiver)
    receiver._client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    with pytest.raises(ReceiverAway, match="503"):
        await Streamer(rig.room.store, receiver).drain()
    await Streamer(rig.room.store, receiver).drain()
    lines = [json.loads(line) for request in taken[1:] for line in request.content.splitlines()]
    assert sorted(line["metadata"]["sequence"] for line in lines) == sorted([*range(1, 11), *range(1, 11)])


@pytest.mark.parametrize("address", ["ftp://x", "syslog+tcp://", "nonsense"])
def test_an_address_that_is_none_is_said_to_be(address: str) -> None:
    with pytest.raises(ValueError, match="OIAB_AUDIT_STREAM"):
        receiver_of(address, None, None)


def test_receivers_have_the_same_shape() -> None:
    receivers: list[Receiver] = [WebhookReceiver("https://x", None), SyslogReceiver("x", 1, None)]
    assert len({receiver.name for receiver in receivers}) == 2
