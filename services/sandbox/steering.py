"""What is said into a running turn: the agent has it once, the log has it once, and it is answered before the end."""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.kit import telemetry
from services.kit.errors import ServiceUnavailable
from services.sandbox import agent_events as said_by
from services.sandbox.agent_events import AgentEvent
from services.sandbox.event import UserSteered, WrapUpAsked
from services.sandbox.opencode import Opencode, OpencodeError
from services.sandbox.run import Model, Run, TurnEnded
from services.sandbox.translate import Translator

_MOST_REPEATS = 3


@dataclass(frozen=True)
class Voice:
    """How one session of an agent is spoken to."""

    agent: Opencode
    session_id: str
    model: Model
    agent_name: str
    switches: Mapping[str, bool] = field(default_factory=dict)

    async def say(self, message_id: str, text: str) -> None:
        """Say something in the session."""
        await self.agent.prompt(self.session_id, message_id, text, self.model, self.agent_name, self.switches)


@dataclass
class _Words:
    """One message, and what the log says of it."""

    text: str
    event: UserSteered | WrapUpAsked
    told: bool = False


class Steering:
    """What is said into one turn.

    opencode reads a message that comes while it works with its next model call, and says once for all that it is done.
    One that comes when it is about to end may get an end of its own, or lie there: then it is said again.
    """

    def __init__(self, run: Run, voice: Voice, translator: Translator) -> None:
        self._run = run
        self._voice = voice
        self._translator = translator
        self._words: dict[str, _Words] = {}
        self._repeats = 0
        # The agent was done before it had read everything.
        self._stalled_time: float | None = None
        # Held while something is on its way to the agent.
        self.lock = asyncio.Lock()

    async def say(self, message_id: str, text: str, event: UserSteered | WrapUpAsked) -> None:
        """Say something into the turn. The lock is held.

        Raises:
            TurnEnded: The turn ended before the agent had it.
            ServiceUnavailable: The agent did not take it.
        """
        words = self._words[message_id] = _Words(text, event)
        self._translator.expect(message_id)
        try:
            await self._voice.say(message_id, text)
        except OpencodeError as error:
            if not words.told:
                self._translator.unexpect(message_id)
                if self._run.ended:
                    raise TurnEnded("the turn has ended", turnId=self._run.turn.id) from error
                raise ServiceUnavailable("the agent did not take what it was told; say it again") from error
        self._tell(words)
        if not words.told:
            raise TurnEnded("the turn has ended", turnId=self._run.turn.id)

    def hear(self, said: AgentEvent) -> None:
        """Log what was said before anything that the agent makes of it."""
        if not isinstance(said, said_by.MessageChanged):
            return
        if words := self._words.get(said.info.id):
            self._tell(words)
        if said.info.role == "assistant":
            # It works again, so it had not ended.
            self._stalled_time = None

    def holds_end(self) -> bool:
        """Whether the agent has said that it is done, but not read everything. Then that was not the end."""
        if self._translator.unanswered:
            self._stalled_time = self._stalled_time or time.monotonic()
            return True
        return False

    async def look_at_clock(self, settle: float) -> None:
        """Say again what lies there unread while the agent does nothing."""
        waiting = self._translator.unanswered
        if self._stalled_time is None or self.lock.locked() or time.monotonic() - self._stalled_time < settle:
            return
        self._stalled_time = time.monotonic()
        # An agent that does not answer is asked again a moment later.
        with contextlib.suppress(OpencodeError):
            if waiting and self._voice.session_id not in await self._voice.agent.busy_sessions():
                await self._say_again(waiting)

    async def _say_again(self, waiting: Sequence[str]) -> None:
        self._repeats += 1
        telemetry.log().info("said again what was not read", turn_id=str(self._run.turn.id), messages=len(waiting))
        for message_id in waiting:
            if self._repeats > _MOST_REPEATS:
                self._translator.unexpect(message_id)
            else:
                await self._voice.say(message_id, self._words[message_id].text)

    def ended_meanwhile(self) -> bool:
        """Whether the agent was done, and nothing is left that it could still read."""
        if self._stalled_time is None or self._translator.unanswered:
            return False
        self._stalled_time = None
        return True

    def _tell(self, words: _Words) -> None:
        if not words.told and not self._run.ended:
            words.told = True
            self._run.append(words.event)
