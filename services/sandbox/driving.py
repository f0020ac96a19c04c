"""Drives one turn through opencode: prompts, follows the events, and ends it whatever happens."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from services.kit import telemetry
from services.kit.errors import DomainError, PermissionDenied
from services.sandbox import agent_events as said_by
from services.sandbox import failures
from services.sandbox.agent_events import AgentEvent
from services.sandbox.agent_ids import message_id, said_message_id
from services.sandbox.ceiling import EVERYTHING, Ceiling
from services.sandbox.event import (
    Aborted,
    Completed,
    Event,
    Failed,
    Reply,
    Retrying,
    Terminal,
    UserSteered,
    WrapUpAsked,
)
from services.sandbox.hub import Feed, Hub
from services.sandbox.opencode import AgentUnreadable, OpencodeError
from services.sandbox.patience import Patience, TurnClock
from services.sandbox.run import Run, TurnEnded
from services.sandbox.spans import TurnSpans
from services.sandbox.steering import Steering, Voice
from services.sandbox.translate import Translator

_TICK = 0.25
_MOMENTS = (0, 0.1, 0.3)
_MOST_UNREADABLE = 3

LOST = Failed("SANDBOX_LOST", "The sandbox ended while the turn ran. The session and its files are kept: ask again.")
_NEVER_BEGAN = Failed("AGENT_ERROR", "The agent did not take up the turn.")
_UNREADABLE = Failed(
    "AGENT_ERROR",
    "The agent gives answers that cannot be read. What it did is kept: ask again.",
)
_NOBODY_READ = Failed("AGENT_ERROR", "The turn said more than fits, and nobody read it.")
_TOOK_TOO_LONG = Failed(
    "TURN_TIME_EXCEEDED",
    "The turn took longer than a turn may, and was stopped. What it did is kept: ask for the rest.",
)
_NOBODY_ANSWERED = (
    "Nobody answered in time whether this may be done. It was not refused by the user. Go on without it, "
    "or end and say what is needed."
)
_WRAP_UP = (
    "This turn nears its time limit. Stop starting new work, bring what you do to a good end, then say what is done "
    "and what is left. This note was not written by the user."
)


class TurnDriver:
    """Drives one run.

    Args:
        run: Where the events go.
        voice: The agent's session that it runs in.
        hub: The events of the agent.
        patience: The deadlines.
    """

    def __init__(self, run: Run, voice: Voice, hub: Hub, patience: Patience) -> None:
        self._run = run
        self._voice = voice
        self._agent = voice.agent
        self._session_id = voice.session_id
        self._hub = hub
        self._patience = patience
        self._message_id = message_id(run.turn.id)
        self._translator = Translator(voice.session_id, self._message_id)
        self._spans = TurnSpans(self._translator)
        self._steering = Steering(run, voice, self._translator)
        # The agent has the turn's first message, or never gets it.
        self._prompted = asyncio.Event()
        # How the turn ends is decided.
        self._closing = False
        self._clock = TurnClock(time.monotonic())
        self._clocks_time = 0.0
        self._wrap_up_asked = False
        self._abort_time: float | None = None
        self._abort_calls = 0
        self._heard_time = 0.0
        # A catch-up failed and has to be tried again.
        self._behind = False
        self._unreadable = 0
        self._idle_time: float | None = None
        self._retry_time: float | None = None
        self._rate_limited = False
        self._asked_times: dict[str, float] = {}
        self._replies: dict[str, Reply] = {}
        # A repeated answer waits for the first to take effect.
        self._replying = asyncio.Lock()

    async def drive(self) -> None:
        """Run the turn to its terminal event."""
        with telemetry.span("turn run", turn_id=str(self._run.turn.id)):
            try:
                await self._drive()
            finally:
                self._spans.end()

    async def _drive(self) -> None:
        try:
            terminal = await self._turn()
        except OpencodeError as error:
            telemetry.log().warning("agent refused", turn_id=str(self._run.turn.id), status=error.status)
            await self._give_up()
            terminal = _UNREADABLE if isinstance(error, AgentUnreadable) else _NEVER_BEGAN if error.status else LOST
        except Exception:  # noqa: BLE001 - a turn always ends with an event, whatever broke
            telemetry.log().exception("turn broke", turn_id=str(self._run.turn.id))
            await self._give_up()
            terminal = Failed("INTERNAL", "Something went wrong in the box. The logs of the sandbox service say what.")
        finally:
            self._prompted.set()
        self._run.append(terminal)

    async def abort(self) -> None:
        """Stop the turn. Asking twice is the same as asking once."""
        if self._abort_time is None:
            self._abort_time = time.monotonic()
            await self._stop_agent()

    async def steer(self, request_id: UUID, text: str) -> None:
        """Say something into the turn. What was taken is part of the turn: the agent reads it before the end.

        Raises:
            TurnEnded: It is too late.
            ServiceUnavailable: The agent did not take it.
        """
        await self._prompted.wait()
        async with self._steering.lock:
            if request_id in self._run.steered:
                return
            if self._ends:
                raise TurnEnded("the turn has ended", turnId=self._run.turn.id)
            await self._steering.say(said_message_id(request_id), text, UserSteered(text))
            self._run.steered.add(request_id)

    @property
    def _ends(self) -> bool:
        """Whether nothing that is said now can be part of the turn."""
        return self._run.ended or self._closing or self._abort_time is not None or self._idle_time is not None

    async def reply(self, permission_id: str, reply: Reply, message: str, ceiling: Ceiling = EVERYTHING) -> None:
        """Answer a permission. The same answer twice is the same as once.

        Raises:
            PermissionDenied: It would allow what the user may not use now, or when the turn began.
            PermissionNotFound: The turn does not wait for it.
            PermissionTimeout: It did, for too long.
        """
        async with self._replying:
            if self._run.replies.get(permission_id) is reply:
                return
            if self._run.ended or permission_id not in self._translator.pending_permissions:
                raise self._run.no_such_permission(permission_id)
            if reply is not Reply.REJECT:
                self._check(permission_id, ceiling)
            await self._answer(permission_id, reply, message)
            self._run.replies[permission_id] = reply

    def _check(self, permission_id: str, ceiling: Ceiling) -> None:
        """Refuse to allow what is above a ceiling."""
        for tool in sorted(self._translator.needed_for(permission_id)):
            if not (ceiling.permits(tool) and self._run.turn.ceiling.permits(tool)):
                raise PermissionDenied(
                    "your roles do not allow this tool; refuse it, or ask an administrator for a role that has it",
                    permission="tools.allowed",
                    tool=tool,
                )

    async def _turn(self) -> Terminal:
        with self._hub.feed(self._session_id) as feed:
            await self._hub.connected()
            if self._run.abort_requested:
                return Aborted()
            self._heard_time = time.monotonic()
            await self._voice.say(self._message_id, self._run.turn.text)
            self._prompted.set()
            while (terminal := self._end()) is None:
                await self._step(feed)
            self._closing = True
            if self._translator.has_gap:
                await self._catch_up()
            await self._quieten_agent()
            return terminal

    async def _quieten_agent(self) -> None:
        """Let nothing of the turn go on after its end."""
        async with self._steering.lock:
            if not self._translator.idle:
                await self._stop_agent()
            if self._translator.unanswered:
                # opencode may take up what was just said a moment after it was told to stop.
                for moment in _MOMENTS:
                    await asyncio.sleep(moment)
                    await self._stop_agent()

    async def _step(self, feed: Feed) -> None:
        """Take in what came; now and then, and whenever nothing came for a moment, look at the clocks."""
        if time.monotonic() - self._clocks_time > _TICK:
            self._clocks_time = time.monotonic()
            await self._look_at_clocks()
        try:
            said = feed.get_nowait() if not feed.empty() else await asyncio.wait_for(feed.get(), _TICK)
        except TimeoutError:
            return
        if isinstance(said, said_by.Connected):
            self._translator.stream_was_cut()
            await self._catch_up()
        else:
            await self._hear(said)

    async def _hear(self, said: AgentEvent) -> None:
        self._heard_time = time.monotonic()
        match said:
            case said_by.QuestionAsked(id=question_id):
                # Nobody can answer one yet, and the turn would wait for ever.
                await self._agent.reject_question(question_id)
            case said_by.StatusChanged(status=status) if status.type == "retry":
                self._rate_limited = failures.is_rate_limit(status.message)
        self._steering.hear(said)
        for event in self._translator.feed(said):
            self._tell(event)
            if isinstance(event, Retrying):
                self._expect_retry(event)
        self._spans.hear(said)
        if not self._translator.retrying:
            self._retry_time = None
        self._clock.wait(bool(self._translator.pending_permissions), self._heard_time)
        if self._translator.idle and self._idle_time is None:
            self._hear_idle()

    def _tell(self, event: Event) -> None:
        self._spans.tell(event)
        self._run.append(event)

    def _hear_idle(self) -> None:
        """The agent says that it is done. It is not while it has something to read, unless it was stopped."""
        stopped = self._translator.error is not None or self._abort_time is not None
        if not stopped and self._steering.holds_end():
            self._translator.idle = 0
        else:
            self._idle_time = self._heard_time

    def _expect_retry(self, event: Retrying) -> None:
        """Count from the first failure in a row. A provider that wants more time than we have gets none."""
        now = time.monotonic()
        self._retry_time = self._retry_time or now
        wait = (event.next_time - datetime.now(UTC)).total_seconds()
        if now + wait - self._retry_time > self._patience.retries:
            self._retry_time = now - self._patience.retries

    def _end(self) -> Terminal | None:
        """How the turn has ended, or None while it goes on."""
        now = time.monotonic()
        if self._run.full:
            return _NOBODY_READ
        if self._idle_time is not None:
            return self._end_when_idle(now - self._idle_time)
        if self._abort_time is not None:
            return Aborted() if now - self._abort_time > self._patience.abort else None
        if self._retry_time is not None and now - self._retry_time >= self._patience.retries:
            return failures.RATE_LIMITED if self._rate_limited else failures.UNAVAILABLE
        if self._clock.worked(now) > self._patience.hard_limit:
            return _TOOK_TOO_LONG
        return self._end_of_silence(now - self._heard_time)

    def _end_when_idle(self, since: float) -> Terminal | None:
        error = self._translator.error
        if error is None and self._abort_time is None:
            return Completed()
        if self._translator.idle < 2 and since < self._patience.settle:  # noqa: PLR2004 - idle comes twice
            return None
        if self._abort_time is not None and (error is None or error.name == "MessageAbortedError"):
            return Aborted()
        return failures.failure(error) if error else Completed()

    def _end_of_silence(self, silence: float) -> Terminal | None:
        if not self._translator.begun:
            return _NEVER_BEGAN if silence > self._patience.begin else None
        waits_for_model = not self._translator.tool_runs and not self._translator.pending_permissions
        return failures.UNAVAILABLE if waits_for_model and silence > self._patience.silence else None

    async def _look_at_clocks(self) -> None:
        now = time.monotonic()
        for event in self._translator.release():
            self._tell(event)
        await self._steering.look_at_clock(self._patience.settle)
        if self._idle_time is None and self._steering.ended_meanwhile():
            self._idle_time = now
        if not self._wrap_up_asked and not self._ends and self._clock.worked(now) > self._patience.soft_limit:
            await self._ask_to_wrap_up(now)
        if self._behind:
            await self._catch_up()
        if self._abort_time is not None and self._idle_time is None and now - self._abort_time > self._abort_calls:
            # An abort that came before the agent had begun did nothing.
            await self._stop_agent()
        if self._patience.permission:
            for permission in self._translator.pending_permissions:
                asked_time = self._asked_times.setdefault(permission, now)
                if now - asked_time > self._patience.permission and permission not in self._replies:
                    await self._expire(permission)

    async def _ask_to_wrap_up(self, now: float) -> None:
        left = timedelta(seconds=max(0.0, self._patience.hard_limit - self._clock.worked(now)))
        asked = WrapUpAsked(datetime.now(UTC) + left)
        async with self._steering.lock:
            try:
                await self._steering.say(said_message_id(self._run.turn.id), _WRAP_UP, asked)
            except DomainError as error:
                telemetry.log().warning("turn not told to wrap up", turn_id=str(self._run.turn.id), reason=error.reason)
            else:
                self._wrap_up_asked = True

    async def _expire(self, permission_id: str) -> None:
        """Nobody answered. The agent is told so; it is no refusal by the user, and nobody is told that it were one."""
        for event in self._translator.expire(permission_id):
            self._tell(event)
        try:
            await self._agent.reply_permission(permission_id, Reply.REJECT, _NOBODY_ANSWERED)
        except OpencodeError as error:
            if not error.status:
                raise
            telemetry.log().info("permission was gone when it expired", turn_id=str(self._run.turn.id))

    async def _answer(self, permission_id: str, reply: Reply, message: str) -> None:
        # Noted first: while the answer is on its way the permission does not expire.
        before, self._replies[permission_id] = self._replies.get(permission_id), reply
        try:
            await self._agent.reply_permission(permission_id, reply, message)
        except OpencodeError as error:
            if before is None:
                del self._replies[permission_id]
            if not error.status:
                raise
            raise self._run.no_such_permission(permission_id) from error

    async def _stop_agent(self) -> None:
        self._abort_calls += 1
        with contextlib.suppress(OpencodeError):
            await self._agent.abort(self._session_id)

    async def _give_up(self) -> None:
        """Stop an agent that may still work, or the next turn of the session would meet it at work."""
        try:
            async with asyncio.timeout(self._patience.abort):
                await self._stop_agent()
        except Exception:  # noqa: BLE001 - it is broken already, and has to end with an event
            telemetry.log().exception("agent was not stopped", turn_id=str(self._run.turn.id))

    async def _catch_up(self) -> None:
        """Learn by REST what a cut stream did not tell. It is told as events, which the translator has seen or not."""
        try:
            # In this order: what an agent that is done has said is all in what is read after it.
            busy = await self._agent.busy_sessions()
            asked = await self._agent.permissions()
            messages = await self._agent.messages(self._session_id)
        except OpencodeError as error:
            telemetry.log().info("agent could not be asked", status=error.status, cause=str(error))
            self._behind = True
            self._count_unreadable(error)
            return
        self._behind, self._unreadable = False, 0
        with self._translator.catching_up():
            for message in messages:
                await self._hear(said_by.MessageChanged(info=message.info))
                for part in message.parts:
                    await self._hear(said_by.PartChanged(part=part))
        await self._catch_up_permissions(asked)
        if self._session_id not in busy and self._translator.begun:
            await self._hear(said_by.SessionIdle(sessionID=self._session_id))

    def _count_unreadable(self, error: OpencodeError) -> None:
        """An agent that cannot be reached may come back. One whose answers cannot be read will not get better."""
        if isinstance(error, AgentUnreadable):
            self._unreadable += 1
            if self._unreadable > _MOST_UNREADABLE:
                raise error

    async def _catch_up_permissions(self, asked: Sequence[said_by.PermissionRequested]) -> None:
        for permission in asked:
            await self._hear(permission)
        for gone in set(self._translator.pending_permissions) - {permission.id for permission in asked}:
            reply = self._replies.get(gone, Reply.REJECT)
            await self._hear(said_by.PermissionAnswered(sessionID=self._session_id, requestID=gone, reply=reply.value))
