"""The load of turns: people who talk in several sessions at once, read along, lose the line, and come back."""

import asyncio
import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx

from tests.chaos.ledger import Ledger, Seen, Turn
from tests.e2e.mesh import Box
from tests.model_server.script import Script, Step, ToolCall, scenario

PATIENCE_SECONDS = 150.0
"""How long a client tries again before it calls something lost. Restarts and leases are over long before."""
PAUSE_SECONDS = 0.15
EFFECTS = "effects.txt"

PASSING = frozenset({408, 429, 500, 502, 503, 504})


class Lost(Exception):
    """What was asked for did not come, however often it was asked for."""


@dataclass
class Line:
    """How clients reach the box."""

    http: httpx.AsyncClient
    ledger: Ledger
    rng: random.Random

    async def post(self, path: str, body: dict[str, object], *, fine: tuple[int, ...] = ()) -> dict[str, str]:
        """Post until it is answered. `fine` are refusals that are an answer too."""
        end = time.monotonic() + PATIENCE_SECONDS
        said = ""
        while time.monotonic() < end:
            try:
                answer = await self.http.post(path, json=body)
            except httpx.HTTPError as error:
                self.ledger.counts["requests cut"] += 1
                said = repr(error)
            else:
                if answer.is_success or answer.status_code in fine:
                    found: dict[str, str] = answer.json()
                    return found
                said = f"{answer.status_code} {answer.text}"
                if answer.status_code not in PASSING:
                    raise Lost(f"POST {path} was refused: {said}")
                self.ledger.counts["requests refused for now"] += 1
                if answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
                    self.ledger.violated(f"POST {path} was answered with a fault: {said}")
            await asyncio.sleep(PAUSE_SECONDS)
        raise Lost(f"POST {path} had no answer: {said}")

    async def session(self) -> str:
        """A new session."""
        made = await self.post("/v1/sessions", {"requestId": str(uuid.uuid4())})
        self.ledger.sessions.append(made["sessionId"])
        return made["sessionId"]

    async def prompt(self, session_id: str, said: str, **known: object) -> Turn:
        """Say something, and sometimes say it again with the same request id, as a client does that lost the answer."""
        request_id = str(uuid.uuid4())
        path, body = f"/v1/sessions/{session_id}/prompt", {"text": said, "requestId": request_id}
        answer = await self.post(path, dict(body))
        turn = Turn(answer["turnId"], session_id, request_id, **known)  # type: ignore[arg-type]
        self.ledger.turns.append(turn)
        if self.rng.random() < 0.25:
            again = await self.post(path, dict(body))
            self.ledger.counts["prompts repeated"] += 1
            if again["turnId"] != turn.turn_id:
                self.ledger.violated(f"a repeated prompt became two turns, {turn.turn_id} and {again['turnId']}")
        return turn

    async def follow(self, turn: Turn, seen: Seen, *, answers: bool, cuts: bool = True) -> None:
        """Follow a turn to its end, over any number of cut lines, each time after the last number seen."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not seen.ended:
            if time.monotonic() > end:
                raise Lost(f"turn {turn.turn_id} has no end after {seen.last} events: {seen.events[-1:]}")
            most = self.rng.randint(1, 40) if cuts and self.rng.random() < 0.5 else 10**9
            before = seen.last
            try:
                async for line in self._lines(turn.turn_id, seen.last):
                    event = self.see(turn, seen, line)
                    if answers:
                        await self._answer(turn, event)
                    if seen.last - before >= most:
                        self.ledger.counts["readers cut"] += 1
                        break
            except (httpx.HTTPError, json.JSONDecodeError):
                self.ledger.counts["streams cut"] += 1
            if seen.last > before:
                end = time.monotonic() + PATIENCE_SECONDS
            if not seen.ended:
                await asyncio.sleep(PAUSE_SECONDS)
        turn.ended = turn.ended or time.monotonic()

    async def _lines(self, turn_id: str, after: int) -> AsyncIterator[str]:
        headers = {"last-event-id": str(after)} if after else {}
        async with self.http.stream("GET", f"/v1/turns/{turn_id}/events", headers=headers) as answer:
            if answer.status_code == httpx.codes.NOT_FOUND:
                raise Lost(f"the acknowledged turn {turn_id} is not known")
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    yield line.removeprefix("data:").strip()

    def see(self, turn: Turn, seen: Seen, line: str) -> dict[str, Any]:
        """Take in what a reader was sent. A checkpoint is no event."""
        event: dict[str, Any] = json.loads(line)
        if "checkpoint" in event:
            return event
        if int(event["sequence"]) != seen.last + 1:
            self.ledger.violated(f"I13: turn {turn.turn_id}: a reader saw {event['sequence']} after {seen.last}")
        if seen.ended:
            self.ledger.violated(f"I13: turn {turn.turn_id}: an event came after the terminal one: {line}")
        seen.lines.append(json.dumps(event, sort_keys=True))  # keys of a map have no order in protobuf
        seen.events.append(event)
        self.ledger.counts["events read"] += 1
        return event

    async def _answer(self, turn: Turn, event: dict[str, Any]) -> None:
        """Allow what a tool asks for. The turn may be over by then, or the agent that asked be gone."""
        if asked := event.get("permissionAsked"):
            path = f"/v1/turns/{turn.turn_id}/permissions/{asked['permissionId']}:reply"
            await self.post(path, {"reply": "PERMISSION_REPLY_ONCE"}, fine=(400, 404, 409))
            self.ledger.counts["permissions answered"] += 1

    async def run_turn(self, turn: Turn) -> None:
        """Read a turn with one reader or two, and abort it if that was the plan."""
        turn.readers += [Seen() for _ in range(self.rng.choice((1, 1, 2)))]
        work = [self.follow(turn, seen, answers=not n) for n, seen in enumerate(turn.readers)]
        await asyncio.gather(*work, *([self._abort(turn)] if turn.may_abort else []))

    async def _abort(self, turn: Turn) -> None:
        await asyncio.sleep(self.rng.uniform(0.2, 2.0))
        await self.post(f"/v1/turns/{turn.turn_id}:abort", {}, fine=(400, 404, 409))
        self.ledger.counts["aborts asked"] += 1


class Talker:
    """Somebody who talks in one session until told to stop."""

    def __init__(self, line: Line, session_id: str) -> None:
        self._line = line
        self._rng = line.rng
        self._session_id = session_id

    async def talk(self, stop: asyncio.Event) -> None:
        """Talk. Sometimes several prompts are sent before the first is answered."""
        while not stop.is_set():
            try:
                turns = [await self._say() for _ in range(self._rng.choice((1, 1, 1, 2, 3)))]
                await asyncio.gather(*map(self._line.run_turn, turns))
            except Lost as lost:
                self._line.ledger.violated(f"session {self._session_id}: {lost}")
                return
            await asyncio.sleep(self._rng.uniform(0.0, 0.5))

    async def usable(self) -> None:
        """Make sure that the session answers."""
        text = f"Here I am, {self._rng.random()}."
        try:
            turn = await self._line.prompt(self._session_id, scenario("say", text=text), text=text)
            await self._line.run_turn(turn)
        except Lost as lost:
            self._line.ledger.violated(f"session {self._session_id} is of no use: {lost}")
        else:
            if turn.ending != "completed":
                self._line.ledger.violated(f"session {self._session_id} is of no use: {turn.events[-1:]}")

    async def _say(self) -> Turn:
        makes: tuple[tuple[Callable[[], Script], float], ...] = (
            (self._text, 0.45),
            (self._tool, 0.3),
            (self._looking, 0.1),
            (self._thinking, 0.05),
            (self._long, 0.1),
        )
        make = self._rng.choices([made for made, _ in makes], [weight for _, weight in makes])[0]
        script = make()
        command = next((str(tool.arguments["command"]) for step in script.steps for tool in step.tools), "").split()
        return await self._line.prompt(
            self._session_id,
            script.prompt(),
            text="".join(step.text for step in script.steps),
            mark=command[1] if EFFECTS + ";" in command else "",
            may_abort=make == self._long,
        )

    def _text(self) -> Script:
        deltas = self._rng.randint(20, 80)
        text = "".join(f"word{n} " for n in range(deltas))
        return Script([Step(text=text, deltas=deltas, interval=self._rng.choice((0.01, 0.03, 0.05)))])

    def _long(self) -> Script:
        return Script([Step(text="on and on " * 100, deltas=200, interval=0.05)])

    def _thinking(self) -> Script:
        return Script([Step(text="So it is.", reasoning="Let me think. " * 5)])

    def _tool(self) -> Script:
        """A tool that asks first, with an effect that a second run would double."""
        return self._bash(f"echo {uuid.uuid4().hex} >> {EFFECTS}; sleep {self._rng.uniform(0, 1):.2f}")

    def _looking(self) -> Script:
        """A tool that need not ask."""
        return self._bash("ls -la")

    def _bash(self, command: str) -> Script:
        call = ToolCall("bash", {"command": command, "description": "Leave a mark"})
        return Script([Step(text="Calling. ", tools=[call]), Step(text="Done, and that was it.", deltas=5)])


def effects_of(box: Box) -> list[str]:
    """The marks that tools have left, in every workspace."""
    return [mark for path in (box.home / "sandboxes").rglob(EFFECTS) for mark in path.read_text().split()]
