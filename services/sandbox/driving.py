"""Drives one turn through opencode: prompts, follows the events, and ends it whatever happens."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from services.kit import telemetry
from services.sandbox import agent_events as said_by
from services.sandbox import translate
from services.sandbox.agent_events import AgentEvent
from services.sandbox.event import Aborted, Completed, Failed, Reply, Retrying, Terminal
from services.sandbox.hub import Feed, Hub
from services.sandbox.opencode import Opencode, OpencodeError
from services.sandbox.patience import Patience
from services.sandbox.run import Model, PermissionNotFound, Run
from services.sandbox.translate import Translator

_TICK = 0.25

LOST = Failed("SANDBOX_LOST", "The sandbox ended while the turn ran. The session and its files are kept: ask again.")
_NEVER_BEGAN = Failed("AGENT_ERROR", "The agent did not take up the turn.")
_NOBODY_READ = Failed("AGENT_ERROR", "The turn said more than fits, and nobody read it.")
_NOBODY_ANSWERED = "Nobody answered in time. Go on without it, or end with a question."


class TurnDriver:
    """Drives one run.

    Args:
        run: Where the events go.
        agent: The opencode server of the sandbox.
        hub: Its events.
        session_id: The session in opencode's words.
        message_id: The message that begins the turn, in opencode's words.
        patience: The deadlines.
    """

    def __init__(
        self, run: Run, agent: Opencode, hub: Hub, session_id: str, message_id: str, patience: Patience
    ) -> None:
        self._run = run
        self._agent = agent
        self._hub = hub
        self._session_id = session_id
        self._message_id = message_id
        self._patience = patience
        self._translator = Translator(session_id, message_id)
        self._abort_time: float | None = None
        self._abort_calls = 0
        self._heard_time = 0.0
        # A catch-up failed and has to be tried again.
        self._behind = False
        self._idle_time: float | None = None
        self._retry_time: float | None = None
        self._rate_limited = False
        self._asked_times: dict[str, float] = {}
        self._replies: dict[str, Reply] = {}
        # A repeated answer waits for the first to take effect.
        self._replying = asyncio.Lock()

    async def drive(self, model: Model, agent: str) -> None:
        """Run the turn to its terminal event."""
        try:
            terminal = await self._turn(model, agent)
        except OpencodeError as error:
            telemetry.log().warning("agent refused", turn_id=str(self._run.turn.id), status=error.status)
            await self._give_up()
            terminal = _NEVER_BEGAN if error.status else LOST
        except Exception:  # noqa: BLE001 - a turn always ends with an event, whatever broke
            telemetry.log().exception("turn broke", turn_id=str(self._run.turn.id))
            await self._give_up()
            terminal = Failed("INTERNAL", "Something went wrong in the box. The logs of the sandbox service say what.")
        self._run.append(terminal)

    async def abort(self) -> None:
        """Stop the turn. Asking twice is the same as asking once."""
        if self._abort_time is None:
            self._abort_time = time.monotonic()
            await self._stop_agent()

    async def reply(self, permission_id: str, reply: Reply, message: str) -> None:
        """Answer a permission. The same answer twice is the same as once.

        Raises:
            PermissionNotFound: The turn does not wait for it.
        """
        async with self._replying:
            if self._run.replies.get(permission_id) is reply:
                return
            if self._run.ended or permission_id not in self._translator.pending_permissions:
                raise PermissionNotFound("the turn does not wait for this permission", permissionId=permission_id)
            await self._answer(permission_id, reply, message)
            self._run.replies[permission_id] = reply

    async def _turn(self, model: Model, agent: str) -> Terminal:
        with self._hub.feed(self._session_id) as feed:
            await self._hub.connected()
            if self._run.abort_requested:
                return Aborted()
            self._heard_time = time.monotonic()
            await self._agent.prompt(self._session_id, self._message_id, self._run.turn.text, model, agent)
            while (terminal := self._end()) is None:
                await self._step(feed)
            if self._translator.has_gap:
                await self._catch_up()
            if not self._translator.idle:
                await self._stop_agent()
            return terminal

    async def _step(self, feed: Feed) -> None:
        """Take in what came, or after a moment without anything look at the clocks."""
        try:
            said = feed.get_nowait() if not feed.empty() else await asyncio.wait_for(feed.get(), _TICK)
        except TimeoutError:
            await self._look_at_clocks()
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
                self._rate_limited = translate.is_rate_limit(status.message)
        for event in self._translator.feed(said):
            self._run.append(event)
            if isinstance(event, Retrying):
                self._expect_retry(event)
        if not self._translator.retrying:
            self._retry_time = None
        if self._translator.idle and self._idle_time is None:
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
            return translate.RATE_LIMITED if self._rate_limited else translate.UNAVAILABLE
        return self._end_of_silence(now - self._heard_time)

    def _end_when_idle(self, since: float) -> Terminal | None:
        error = self._translator.error
        if error is None and self._abort_time is None:
            return Completed()
        if self._translator.idle < 2 and since < self._patience.settle:  # noqa: PLR2004 - idle comes twice
            return None
        if self._abort_time is not None and (error is None or error.name == "MessageAbortedError"):
            return Aborted()
        return translate.failure(error) if error else Completed()

    def _end_of_silence(self, silence: float) -> Terminal | None:
        if not self._translator.begun:
            return _NEVER_BEGAN if silence > self._patience.begin else None
        waits_for_model = not self._translator.tool_runs and not self._translator.pending_permissions
        return translate.UNAVAILABLE if waits_for_model and silence > self._patience.silence else None

    async def _look_at_clocks(self) -> None:
        now = time.monotonic()
        for event in self._translator.release():
            self._run.append(event)
        if self._behind:
            await self._catch_up()
        if self._abort_time is not None and self._idle_time is None and now - self._abort_time > self._abort_calls:
            # An abort that came before the agent had begun did nothing.
            await self._stop_agent()
        for permission in self._translator.pending_permissions:
            if now - self._asked_times.setdefault(permission, now) > self._patience.permission:
                self._asked_times[permission] = now
                await self._answer(permission, Reply.REJECT, _NOBODY_ANSWERED)

    async def _answer(self, permission_id: str, reply: Reply, message: str) -> None:
        try:
            await self._agent.reply_permission(permission_id, reply, message)
        except OpencodeError as error:
            if not error.status:
                raise
            raise PermissionNotFound(
                "the turn does not wait for this permission", permissionId=permission_id
            ) from error
        self._replies[permission_id] = reply

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
            messages = await self._agent.messages(self._session_id)
            asked = await self._agent.permissions()
            busy = await self._agent.busy_sessions()
        except OpencodeError as error:
            telemetry.log().info("agent could not be asked", status=error.status)
            self._behind = True
            return
        self._behind = False
        with self._translator.catching_up():
            for message in messages:
                await self._hear(said_by.MessageChanged(info=message.info))
                for part in message.parts:
                    await self._hear(said_by.PartChanged(part=part))
        await self._catch_up_permissions(asked)
        if self._session_id not in busy and self._translator.begun:
            await self._hear(said_by.SessionIdle(sessionID=self._session_id))

    async def _catch_up_permissions(self, asked: Sequence[said_by.PermissionRequested]) -> None:
        for permission in asked:
            await self._hear(permission)
        for gone in set(self._translator.pending_permissions) - {permission.id for permission in asked}:
            reply = self._replies.get(gone, Reply.REJECT)
            await self._hear(said_by.PermissionAnswered(sessionID=self._session_id, requestID=gone, reply=reply.value))
