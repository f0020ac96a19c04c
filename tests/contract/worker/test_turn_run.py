"""One turn over the death of anything on the way: a real Api and its database, and a sandbox that can be cut."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import psycopg
import pytest
from orginabox.api.v1 import session_service_pb2, session_service_pb2_grpc, turn_service_pb2, turn_service_pb2_grpc
from orginabox.errors.v1 import error_reason_pb2
from orginabox.sandbox.v1 import sandbox_pb2, sandbox_service_pb2, sandbox_service_pb2_grpc
from orginabox.turn.v1 import turn_event_pb2, turn_log_service_pb2_grpc
from pydantic import SecretStr

from services.api.__main__ import serve_api
from services.api.settings import ApiSettings
from services.kit import telemetry
from services.kit.channel import connect
from services.kit.errors import DomainError, Kind
from services.kit.interceptor import Context
from services.worker.turn_run import Lease, TurnRun
from tests.allowed import AllowedChannel
from tests.contract.api.peers import PEERS, Peers, RunLost, served_peer
from tests.identities import certificates, identity
from tests.people import people
from tests.postgres import as_administrator, as_settings
from tests.spans import named, recorded_spans

KEY = (("authorization", "Bearer k"),)


class NoIsolation(DomainError):
    """The host does not allow isolation."""

    kind = Kind.FAILED_PRECONDITION
    reason = "SANDBOX_ISOLATION_UNAVAILABLE"


class Sandbox(Peers):
    """A sandbox whose run is a list of events that grows, and whose stream can be cut after any of them."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[turn_event_pb2.TurnEvent] = []
        self.grown = asyncio.Event()
        self.joined: list[int] = []
        self.ceilings: list[list[str]] = []
        self.refuses: DomainError | None = None
        self.breaks: DomainError | None = None
        self.loses_run = False
        self.ran_before = False
        self.cut_after = 0
        self.asks = False

    def happen(self, **event: object) -> None:
        """Let something happen in the run."""
        self.events.append(turn_event_pb2.TurnEvent(sequence=len(self.events) + 1, **event))  # type: ignore[arg-type]
        self.grown.set()
        self.grown = asyncio.Event()

    def say(self, text: str) -> None:
        """Let the agent say something."""
        self.happen(text_delta=turn_event_pb2.TextDelta(part_id="p", text=text))

    async def ClaimSandbox(
        self, request: sandbox_service_pb2.ClaimSandboxRequest, context: object
    ) -> sandbox_service_pb2.ClaimSandboxResponse:
        if self.refuses:
            raise self.refuses
        return sandbox_service_pb2.ClaimSandboxResponse(sandbox=sandbox_pb2.Sandbox(sandbox_id=request.user_id))

    async def RunTurn(
        self, request: sandbox_service_pb2.RunTurnRequest, context: Context
    ) -> AsyncIterator[sandbox_service_pb2.RunTurnResponse]:
        self.joined.append(request.after_sequence)
        self.ceilings.append(list(request.tools.allowed))
        if self.asks:
            yield sandbox_service_pb2.RunTurnResponse(waits_for_user=True)
        if self.ran_before or (self.loses_run and request.after_sequence):
            raise RunLost("no such run", turnId=request.turn_id)
        place = request.after_sequence
        while True:
            grown = self.grown
            for event in self.events[place:]:
                yield sandbox_service_pb2.RunTurnResponse(events=[event], waits_for_user=self.asks)
                place += 1
                if self.breaks:
                    raise self.breaks
                if event.WhichOneof("event") in {"completed", "aborted"}:
                    return
                if place == self.cut_after:
                    self.cut_after = 0
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            await grown.wait()

    async def AbortTurn(
        self, request: sandbox_service_pb2.AbortTurnRequest, context: object
    ) -> sandbox_service_pb2.AbortTurnResponse:
        self.aborted.append(request.turn_id)
        self.happen(aborted=turn_event_pb2.TurnAborted())
        return sandbox_service_pb2.AbortTurnResponse()


class Mesh:
    """Api and its peers, the worker's view of them, and a client's."""

    def __init__(
        self, settings: ApiSettings, sandbox: Sandbox, to_api: grpc.aio.Channel, to_sandbox: grpc.aio.Channel
    ) -> None:
        self.settings = settings
        self.sandbox = sandbox
        self.sessions = session_service_pb2_grpc.SessionServiceStub(to_api)
        self.turns = turn_service_pb2_grpc.TurnServiceStub(to_api)
        self.worker = TurnRun(
            turn_log_service_pb2_grpc.TurnLogServiceStub(to_api),
            sandbox_service_pb2_grpc.SandboxServiceStub(to_sandbox),
        )
        self._stop = asyncio.Event()
        self._api: asyncio.Task[None] | None = None

    async def start_api(self) -> None:
        """Start Api."""
        self._stop = asyncio.Event()
        self._api = asyncio.create_task(serve_api(self.settings, self._stop, people(self.settings)))

    async def stop_api(self) -> None:
        """Stop Api."""
        self._stop.set()
        if self._api:
            await self._api

    async def prompt(self) -> str:
        """Say something in a new session."""
        session = await self.sessions.CreateSession(
            session_service_pb2.CreateSessionRequest(), metadata=KEY, wait_for_ready=True
        )
        prompted = await self.sessions.Prompt(
            session_service_pb2.PromptRequest(session_id=session.session_id, text="hello"), metadata=KEY
        )
        return str(prompted.turn_id)

    async def read(self, turn_id: str) -> list[turn_event_pb2.TurnEvent]:
        """The log from the first event to the terminal one."""
        request = turn_service_pb2.StreamTurnEventsRequest(turn_id=turn_id)
        return [event async for event in self.turns.StreamTurnEvents(request, metadata=KEY, wait_for_ready=True)]


@pytest.fixture
async def mesh(database: Callable[..., str]) -> AsyncIterator[Mesh]:
    """A running Api with a sandbox that can be cut."""
    async with _mesh(database("api", "identity")) as made:
        yield made


@asynccontextmanager
async def _mesh(url: str) -> AsyncIterator[Mesh]:
    with tempfile.TemporaryDirectory(prefix="oiab-") as folder:
        settings = ApiSettings(
            home=Path(folder),
            run_dir=Path(folder),
            certificates=certificates("api"),
            **as_settings(url, "api"),  # type: ignore[arg-type]
            ORGINABOX_API_KEY=SecretStr("k"),  # type: ignore[call-arg]
        )
        sandbox, stop = Sandbox(), asyncio.Event()  # type: ignore[abstract]
        peers = [asyncio.create_task(served_peer(name, folder, sandbox, stop)) for name in PEERS]
        worker = identity("worker")
        async with (
            AllowedChannel(settings.address("api"), "api") as to_api,
            connect(settings.address("sandbox"), to="sandbox", identity=worker) as to_sandbox,
        ):
            made = Mesh(settings, sandbox, to_api, to_sandbox)
            await made.start_api()
            yield made
            await made.stop_api()
        stop.set()
        await asyncio.gather(*peers)


def texts(events: list[turn_event_pb2.TurnEvent]) -> list[str]:
    return [event.text_delta.text or event.WhichOneof("event") or "" for event in events]


async def test_a_turn_is_carried_from_its_sandbox_to_its_log(mesh: Mesh) -> None:
    turn_id = await mesh.prompt()
    mesh.sandbox.say("one")
    running = asyncio.create_task(mesh.worker.run(Lease(turn_id, 1, "t")))
    reading = asyncio.create_task(mesh.read(turn_id))
    mesh.sandbox.say("two")
    await asyncio.sleep(0.2)
    mesh.sandbox.happen(completed=turn_event_pb2.TurnCompleted())
    await asyncio.wait_for(running, 10)
    assert texts(await reading) == ["one", "two", "completed"]


async def test_a_trace_shows_how_long_the_sandbox_was_waited_for(mesh: Mesh) -> None:
    turn_id = await mesh.prompt()
    mesh.sandbox.happen(completed=turn_event_pb2.TurnCompleted())
    with recorded_spans() as spans, telemetry.span("job") as job:
        await asyncio.wait_for(mesh.worker.run(Lease(turn_id, 1, "t")), 10)
        (claim,) = named(spans, "sandbox claim")
    assert claim.parent
    assert claim.parent.span_id == job.get_span_context().span_id


async def test_a_cut_run_is_joined_where_the_log_ends(mesh: Mesh) -> None:
    turn_id = await mesh.prompt()
    for number in range(10):
        mesh.sandbox.say(str(number))
    mesh.sandbox.happen(completed=turn_event_pb2.TurnCompleted())
    mesh.sandbox.cut_after = 4
    await asyncio.wait_for(mesh.worker.run(Lease(turn_id, 1, "t")), 20)
    assert mesh.sandbox.joined == [0, 4]
    assert texts(await mesh.read(turn_id)) == [*map(str, range(10)), "completed"]


async def test_a_restarted_api_gets_each_event_once(mesh: Mesh) -> None:
    turn_id = await mesh.prompt()
    running = asyncio.create_task(mesh.worker.run(Lease(turn_id, 1, "t")))
    for number in range(100):
        mesh.sandbox.say(str(number))
        await asyncio.sleep(0.005)
        if number == 50:
            await mesh.stop_api()
            await mesh.start_api()
    mesh.sandbox.happen(completed=turn_event_pb2.TurnCompleted())
    await asyncio.wait_for(running, 30)
    assert texts(await mesh.read(turn_id)) == [*map(str, range(100)), "completed"]


async def test_a_second_worker_goes_on_where_a_killed_one_was(mesh: Mesh) -> None:
    turn_id = await mesh.prompt()
    first = asyncio.create_task(mesh.worker.run(Lease(turn_id, 1, "t1")))
    mesh.sandbox.say("before")
    await asyncio.sleep(0.3)
    first.cancel()
    await asyncio.wait([first])
    mesh.sandbox.say("between")
    second = asyncio.create_task(mesh.worker.run(Lease(turn_id, 2, "t2")))
    await asyncio.sleep(0.2)
    mesh.sandbox.happen(completed=turn_event_pb2.TurnCompleted())
    await asyncio.wait_for(second, 10)
    assert texts(await mesh.read(turn_id)) == ["before", "between", "completed"]
    # The first one's lease is over: it finds the turn ended and leaves it alone.
    await asyncio.wait_for(mesh.worker.run(Lease(turn_id, 1, "t1")), 10)


async def test_a_turn_that_waits_for_its_user_is_parked(mesh: Mesh) -> None:
    """Under the first worker, and under one that joins when the question is in the log already."""
    turn_id = await mesh.prompt()
    places: list[str] = []

    def lease(attempt: int) -> Lease:
        def note(word: str) -> Callable[[], None]:
            return lambda: places.append(f"{attempt} {word}")

        return Lease(turn_id, attempt, f"t{attempt}", note("parks"), note("goes on"))

    first = asyncio.create_task(mesh.worker.run(lease(1)))
    mesh.sandbox.asks = True
    mesh.sandbox.happen(permission_asked=turn_event_pb2.PermissionAsked(permission_id="p"))
    await asyncio.sleep(0.3)
    assert places[-1] == "1 parks"
    first.cancel()
    await asyncio.wait([first])
    second = asyncio.create_task(mesh.worker.run(lease(2)))
    await asyncio.sleep(0.3)
    assert places[-1] == "2 parks"
    mesh.sandbox.asks = False
    mesh.sandbox.happen(permission_replied=turn_event_pb2.PermissionReplied(permission_id="p"))
    await asyncio.sleep(0.2)
    assert places[-1] == "2 goes on"
    mesh.sandbox.happen(completed=turn_event_pb2.TurnCompleted())
    await asyncio.wait_for(second, 10)
    assert texts(await mesh.read(turn_id)) == ["permission_asked", "permission_replied", "completed"]


async def test_a_run_that_was_lost_before_anything_was_logged_ends_honestly(mesh: Mesh) -> None:
    """The log is empty, and the sandbox says that it has run the turn before: it is not run a second time."""
    turn_id = await mesh.prompt()
    mesh.sandbox.ran_before = True
    await asyncio.wait_for(mesh.worker.run(Lease(turn_id, 2, "t")), 20)
    (event,) = await mesh.read(turn_id)
    assert event.failed.reason == error_reason_pb2.ERROR_REASON_RUN_LOST
    assert mesh.sandbox.joined == [0]


async def test_a_lost_run_ends_honestly(mesh: Mesh) -> None:
    turn_id = await mesh.prompt()
    mesh.sandbox.say("the last word")
    mesh.sandbox.cut_after = 1
    mesh.sandbox.loses_run = True
    await asyncio.wait_for(mesh.worker.run(Lease(turn_id, 1, "t")), 20)
    events = await mesh.read(turn_id)
    assert texts(events) == ["the last word", "failed"]
    assert events[-1].failed.reason == error_reason_pb2.ERROR_REASON_RUN_LOST


async def test_a_turn_that_is_given_up_is_stopped_in_its_sandbox(mesh: Mesh) -> None:
    turn_id = await mesh.prompt()
    mesh.sandbox.say("one")
    mesh.sandbox.breaks = NoIsolation("it broke in the middle")
    await asyncio.wait_for(mesh.worker.run(Lease(turn_id, 1, "t")), 20)
    assert texts(await mesh.read(turn_id)) == ["one", "failed"]
    assert mesh.sandbox.aborted == [turn_id]


async def test_a_refused_sandbox_is_the_turns_ending(mesh: Mesh) -> None:
    turn_id = await mesh.prompt()
    mesh.sandbox.refuses = NoIsolation("user namespaces are off; allow them with sysctl")
    await asyncio.wait_for(mesh.worker.run(Lease(turn_id, 1, "t")), 20)
    (event,) = await mesh.read(turn_id)
    assert event.failed.reason == error_reason_pb2.ERROR_REASON_SANDBOX_ISOLATION_UNAVAILABLE
    assert event.failed.message == "user namespaces are off; allow them with sysctl"


async def test_an_abort_before_the_run_exists_is_not_forgotten(mesh: Mesh) -> None:
    turn_id = await mesh.prompt()
    running = asyncio.create_task(mesh.worker.run(Lease(turn_id, 1, "t")))
    mesh.sandbox.say("hm")
    await asyncio.sleep(0.2)
    await mesh.turns.AbortTurn(turn_service_pb2.AbortTurnRequest(turn_id=turn_id), metadata=KEY)
    await asyncio.wait_for(running, 20)
    assert texts(await mesh.read(turn_id))[-1] == "aborted"


async def test_a_run_is_stopped_whose_turn_was_ended_before_there_was_a_run_to_stop(mesh: Mesh) -> None:
    turn_id = await mesh.prompt()
    running = asyncio.create_task(mesh.worker.run(Lease(turn_id, 1, "t")))
    mesh.sandbox.say("before")
    await asyncio.sleep(0.3)
    database = as_administrator(mesh.settings.database_url)
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        await connection.execute(
            "UPDATE api.turn SET state = 'failed', failure_reason = 'USER_SUSPENDED', end_time = now()"
            " WHERE turn_id = %s",
            (turn_id,),
        )
    assert not mesh.sandbox.aborted
    mesh.sandbox.say("after")
    await asyncio.wait_for(running, 10)
    assert mesh.sandbox.aborted == [turn_id]
    assert mesh.sandbox.ceilings == [["*"]]
