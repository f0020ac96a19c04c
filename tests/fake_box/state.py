"""What the fake box remembers: sessions, turns with their logs, providers and records."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from google.protobuf.timestamp_pb2 import Timestamp
from orginabox.api.v1 import session_pb2, turn_pb2
from orginabox.audit.v1 import record_pb2
from orginabox.queue.v1 import job_pb2
from orginabox.runtime.v1 import bundle_pb2, model_pb2, provider_pb2
from orginabox.turn.v1 import turn_event_pb2

from services.kit.errors import DomainError, Kind
from services.kit.ids import new_id
from tests.fake_box import script

DEMO = ("demo", "smollm2-135m")
USER = "00000000-0000-7000-8000-000000000002"


class SessionNotFound(DomainError):
    """No such session."""

    kind = Kind.NOT_FOUND
    reason = "SESSION_NOT_FOUND"


class SessionBusy(DomainError):
    """A turn runs."""

    kind = Kind.FAILED_PRECONDITION
    reason = "SESSION_BUSY"


class TurnNotFound(DomainError):
    """No such turn."""

    kind = Kind.NOT_FOUND
    reason = "TURN_NOT_FOUND"


class TurnStarted(DomainError):
    """It runs."""

    kind = Kind.FAILED_PRECONDITION
    reason = "TURN_STARTED"


class JobNotFound(DomainError):
    """No such job."""

    kind = Kind.NOT_FOUND
    reason = "JOB_NOT_FOUND"


class JobState(DomainError):
    """It is not dead."""

    kind = Kind.FAILED_PRECONDITION
    reason = "JOB_STATE"


class PermissionNotFound(DomainError):
    """No such permission."""

    kind = Kind.NOT_FOUND
    reason = "PERMISSION_NOT_FOUND"


class ProviderNotFound(DomainError):
    """No such provider."""

    kind = Kind.NOT_FOUND
    reason = "PROVIDER_NOT_FOUND"


class ProviderExists(DomainError):
    """There is one."""

    kind = Kind.ALREADY_EXISTS
    reason = "PROVIDER_EXISTS"


class ProviderBuiltIn(DomainError):
    """It came with the box."""

    kind = Kind.FAILED_PRECONDITION
    reason = "PROVIDER_BUILT_IN"


def now() -> Timestamp:
    """The time."""
    made = Timestamp()
    made.FromDatetime(datetime.now(UTC))
    return made


@dataclass
class FakeTurn:
    """A turn, its log, and what it waits for."""

    session_id: str
    text: str
    model: tuple[str, str]
    turn_id: str = field(default_factory=lambda: str(new_id()))
    state: int = turn_pb2.TURN_STATE_QUEUED
    log: list[turn_event_pb2.TurnEvent] = field(default_factory=list)
    created: Timestamp = field(default_factory=now)
    streams: list[int] = field(default_factory=list)
    replies: dict[str, asyncio.Future[tuple[Any, str]]] = field(default_factory=dict)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    abort: asyncio.Event = field(default_factory=asyncio.Event)

    OPEN: ClassVar = (turn_pb2.TURN_STATE_QUEUED, turn_pb2.TURN_STATE_RUNNING)

    @property
    def open(self) -> bool:
        """Whether it has yet to end."""
        return self.state in self.OPEN

    @property
    def waits(self) -> bool:
        """Whether it has yet to begin."""
        return self.state == turn_pb2.TURN_STATE_QUEUED

    @property
    def cut_after(self) -> int:
        """After how many events a stream of it ends. 0 means at its end."""
        word, _, rest = self.text.partition(" ")
        return int(rest.split(" ")[0]) if word in {"cut", "hush"} else 0

    def to_proto(self) -> turn_pb2.Turn:
        """As the contract shows it."""
        return turn_pb2.Turn(
            turn_id=self.turn_id,
            session_id=self.session_id,
            state=self.state,  # type: ignore[arg-type]
            text=self.text,
            model=model_pb2.Model(provider_id=self.model[0], model_id=self.model[1]),
            last_sequence=len(self.log),
            create_time=self.created,
        )

    async def append(self, event: turn_event_pb2.TurnEvent) -> None:
        """Number an event and let the readers have it."""
        event.sequence = len(self.log) + 1
        event.turn_id = self.turn_id
        event.create_time.CopyFrom(now())
        async with self.changed:
            self.log.append(event)
            ends = {"completed": 3, "failed": 4, "aborted": 5}
            self.state = ends.get(event.WhichOneof("event") or "", turn_pb2.TURN_STATE_RUNNING)
            self.changed.notify_all()

    async def steer(self, text: str) -> None:
        """Hear something, a moment after it was said."""
        await asyncio.sleep(0.05)
        await self.append(turn_event_pb2.TurnEvent(user_steered=turn_event_pb2.UserSteered(text=text)))

    async def reply(self, permission_id: str) -> tuple[Any, str]:
        """Wait for the answer to a permission."""
        return await self.replies.setdefault(permission_id, asyncio.get_running_loop().create_future())

    async def run(self) -> None:
        """Do what the script says, until the end or the abort."""
        playing = asyncio.create_task(self._play())
        aborting = asyncio.create_task(self.abort.wait())
        await asyncio.wait([playing, aborting], return_when=asyncio.FIRST_COMPLETED)
        for task in (playing, aborting):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if self.open:
            await self.append(turn_event_pb2.TurnEvent(aborted=turn_event_pb2.TurnAborted()))

    async def _play(self) -> None:
        async for event in script.events(self):
            await self.append(event)


@dataclass
class FakeSession:
    """A session and its turns."""

    title: str
    session_id: str = field(default_factory=lambda: str(new_id()))
    turns: list[FakeTurn] = field(default_factory=list)
    created: Timestamp = field(default_factory=now)
    runner: asyncio.Task[None] | None = None
    steering: asyncio.Task[None] | None = None
    busy_policy: int = session_pb2.BUSY_POLICY_QUEUE

    @property
    def open_turns(self) -> list[FakeTurn]:
        """The turns that have yet to end, the next one first."""
        return [turn for turn in self.turns if turn.open]

    def to_proto(self) -> session_pb2.Session:
        """As the contract shows it."""
        waiting = self.open_turns
        return session_pb2.Session(
            session_id=self.session_id,
            title=self.title,
            create_time=self.created,
            update_time=self.turns[-1].created if self.turns else self.created,
            active_turn_id=waiting[0].turn_id if waiting else "",
            busy_policy=self.busy_policy,  # type: ignore[arg-type]
        )

    def prompt(self, text: str, model: tuple[str, str], policy: int) -> tuple[FakeTurn, int]:
        """Take a prompt: into the turn that runs, before all that wait, or after them."""
        policy = policy or self.busy_policy
        position = len(self.open_turns)
        running = next((turn for turn in self.open_turns if not turn.waits), None)
        if running and policy == session_pb2.BUSY_POLICY_STEER:
            self.steering = asyncio.create_task(running.steer(text))
            return running, 0
        turn = FakeTurn(self.session_id, text, model)
        if running and policy == session_pb2.BUSY_POLICY_INTERRUPT:
            running.abort.set()
            position = 1
            self.turns.insert(self.turns.index(running) + 1, turn)
        else:
            self.turns.append(turn)
        self.title = self.title or text[:40]
        if self.runner is None or self.runner.done():
            self.runner = asyncio.create_task(self._run())
        return turn, position

    async def _run(self) -> None:
        while self.open_turns:
            await self.open_turns[0].run()


@dataclass
class FakeBox:
    """All of it."""

    sessions: dict[str, FakeSession] = field(default_factory=dict)
    providers: dict[str, provider_pb2.Provider] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    records: list[record_pb2.Record] = field(default_factory=list)
    applied: list[model_pb2.Model] = field(default_factory=list)
    requests: dict[str, Any] = field(default_factory=dict)
    seen: list[dict[str, str]] = field(default_factory=list)
    checkpoint_seconds: float = 15.0
    paused: bool = False

    def __post_init__(self) -> None:
        self.providers["demo"] = provider_pb2.Provider(
            provider_id="demo", kind=provider_pb2.PROVIDER_KIND_DEMO, models=[DEMO[1]], preferred=True, built_in=True
        )
        self.applied = self.staged()

    def session(self, session_id: str) -> FakeSession:
        """The session of that id."""
        if found := self.sessions.get(session_id):
            return found
        raise SessionNotFound("no session of yours has this id", sessionId=session_id)

    def turn(self, turn_id: str) -> FakeTurn:
        """The turn of that id."""
        for session in self.sessions.values():
            for turn in session.turns:
                if turn.turn_id == turn_id:
                    return turn
        raise TurnNotFound("no turn of yours has this id", turnId=turn_id)

    def jobs(self) -> list[job_pb2.Job]:
        """A job for each turn, with its id."""
        states: dict[int, job_pb2.JobState.ValueType] = {
            turn_pb2.TURN_STATE_QUEUED: job_pb2.JOB_STATE_BLOCKED,
            turn_pb2.TURN_STATE_RUNNING: job_pb2.JOB_STATE_LEASED,
            turn_pb2.TURN_STATE_FAILED: job_pb2.JOB_STATE_DEAD,
            turn_pb2.TURN_STATE_ABORTED: job_pb2.JOB_STATE_CANCELLED,
        }
        return [
            job_pb2.Job(
                job_id=turn.turn_id,
                kind="agent-turn",
                key=f"session:{turn.session_id}",
                state=states.get(turn.state, job_pb2.JOB_STATE_COMPLETED),
                attempt=1,
                max_attempts=20,
                create_time=turn.created,
                last_error="it failed" if turn.state == turn_pb2.TURN_STATE_FAILED else "",
            )
            for session in self.sessions.values()
            for turn in session.turns
        ]

    def provider(self, provider_id: str) -> provider_pb2.Provider:
        """The provider of that id, if it may be changed."""
        found = self.providers.get(provider_id)
        if found is None:
            raise ProviderNotFound(f"there is no provider {provider_id}", providerId=provider_id)
        if found.built_in:
            raise ProviderBuiltIn(f"{provider_id} came with the box and cannot be changed", providerId=provider_id)
        return found

    def staged(self) -> list[model_pb2.Model]:
        """The models of all providers, the default one first."""
        ordered = sorted(self.providers.values(), key=lambda one: (one.built_in, not one.preferred, one.provider_id))
        return [
            model_pb2.Model(provider_id=one.provider_id, model_id=model)
            for one in ordered
            for model in sorted(one.models, key=lambda name, one=one: name != one.default_model)  # type: ignore[misc]
        ]

    def status(self) -> bundle_pb2.RuntimeStatus:
        """How staged and applied stand."""
        staged = self.staged()
        return bundle_pb2.RuntimeStatus(
            staged_revision=_revision(staged),
            applied_revision=_revision(self.applied),
            apply_time=now(),
            in_sync=staged == self.applied,
            default_model=self.applied[0],
            models=self.applied,
            demo=self.applied[0].provider_id == "demo",
        )

    def record(self, action: str, target: str = "", session_id: str = "") -> None:
        """Keep what was done."""
        made = record_pb2.Record(
            record_id=str(new_id()),
            sequence=len(self.records) + 1,
            user_id=USER,
            actor=f"user:{USER}",
            action=action,
            target=target,
            session_id=session_id,
            channel="cli",
            create_time=now(),
        )
        self.records.append(made)


def _revision(models: list[model_pb2.Model]) -> str:
    return f"{abs(hash(tuple((one.provider_id, one.model_id) for one in models))):012x}"[:12]
