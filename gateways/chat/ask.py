"""One turn at the command line: the answer goes to stdout as it comes, all else to stderr."""

import asyncio
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TextIO
from uuid import uuid4

from betterproto2 import which_one_of
from orginabox_sdk.orginabox.api.v1 import (
    AbortTurnRequest,
    BusyPolicy,
    CreateSessionRequest,
    PromptRequest,
    PromptResponse,
    ReplyPermissionRequest,
)
from orginabox_sdk.orginabox.runtime.v1 import Model
from orginabox_sdk.orginabox.turn.v1 import (
    PartsVoided,
    PermissionAsked,
    PermissionExpired,
    PermissionReplied,
    Retrying,
    TextDelta,
    ToolFinished,
    ToolOutcome,
    ToolStarted,
    TurnEvent,
    TurnStarted,
    UserSteered,
    WrapUpAsked,
)

from gateways.chat import permission
from gateways.chat.history import YOU
from gateways.chat.jsonform import plain
from gateways.chat.permission import Answer
from gateways.chat.refusals import Exit, with_remedy
from gateways.chat.tools import ended_line, tool_title
from gateways.chat.view import TurnView, spent_line, wrap_up_line
from gateways.chat.words import clean, one_line, sentence
from gateways.sdk import ApiError, Client, is_steered, is_terminal

DEMO_PROVIDER = "demo"
DEMO_HINT = "The demo model answers: it is small, and has no tools. A real one: oiab provider add anthropic"


@dataclass(frozen=True)
class Question:
    """What to ask, and how."""

    text: str
    session_id: str = ""
    model: Model | None = None
    as_json: bool = False
    yes: bool = False
    policy: BusyPolicy = BusyPolicy.UNSPECIFIED


async def ask(client: Client, question: Question) -> Exit:
    """Ask, and tell what comes of it, to the end of the turn."""
    session_id = question.session_id or (await client.sessions.create_session(CreateSessionRequest())).session_id
    prompt = PromptRequest(
        session_id=session_id,
        text=question.text,
        model=question.model,
        busy_policy=question.policy,
        request_id=str(uuid4()),
    )
    taken = await client.sessions.prompt(prompt)
    teller = JsonTeller(sys.stdout) if question.as_json else Teller(sys.stdout, sys.stderr)
    if taken.position:
        teller.beside(f"{taken.position} before it in this session; it waits for its turn.")
    heard, last = await _follow(client, question, taken, teller)
    if not heard and (own := await client.late_turn(prompt, taken.turn_id)):
        teller.beside("The turn ended before the agent had it; it is a turn of its own now.")
        _, last = await _follow(client, question, own, teller)
    if question.session_id == "" and sys.stderr.isatty():
        teller.beside(f'Go on with it: oiab ask --session {session_id} "..."')
    return _exit_of(last, teller)


async def _follow(
    client: Client, question: Question, taken: PromptResponse, teller: "Teller"
) -> tuple[bool, TurnEvent]:
    """Tell a turn to its end; whether what was said was heard in it, and its last event."""
    into = is_steered(taken, question.text)
    heard, last = not into, TurnEvent()
    asking = Asking(client, taken.turn_id, yes=question.yes)
    begin = taken.turn.last_sequence if into and taken.turn is not None else 0
    with aborting(client, taken.turn_id, teller):
        async for event in client.follow(taken.turn_id, begin, on_link=teller.link):
            teller.tell(event)
            asking.hear(event)
            heard = heard or event.user_steered is not None
            last = event
    return heard, last


def _exit_of(last: TurnEvent, teller: "Teller") -> Exit:
    if last.failed is not None:
        teller.beside(with_remedy(last.failed.message, str(last.failed.reason)))
        return Exit.FAILED
    if last.aborted is not None:
        teller.beside("Aborted.")
        return Exit.ABORTED
    return Exit.COMPLETED


class Teller:
    """Tells the events of a turn.

    Args:
        out: Takes the answer and nothing else.
        err: Takes all that goes on beside it.
    """

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err
        self._part = ""
        self._line_open = False
        self._last_started = ""
        self._titles: dict[str, str] = {}
        self._view = TurnView()

    def tell(self, event: TurnEvent) -> None:
        """Tell one event."""
        self._view.apply(event)
        match which_one_of(event, "event")[1]:
            case TextDelta() as delta:
                self._text(delta)
            case TurnStarted(provider_id=provider) if provider == DEMO_PROVIDER:
                self.beside(DEMO_HINT)
            case ToolStarted() as started:
                self._titles[started.call_id] = tool_title(started)
                self.beside(f"· {started.tool} {tool_title(started)}".rstrip())
                self._last_started = started.call_id
            case ToolFinished() as finished:
                mark = "✓" if finished.outcome == ToolOutcome.COMPLETED else "✗"
                self._replace(
                    finished.call_id, f"{mark} {ended_line(finished, self._titles.get(finished.call_id, ''))}"
                )
            case PartsVoided():
                self.amid("What was said last is void; the answer begins again.")
            case Retrying() as retrying:
                self.amid(f"The model call failed and is tried again. {sentence(retrying.message)}")
            case _ if is_terminal(event):
                self._end_line()
                if self._err.isatty():
                    self.beside(f"\x1b[2m{spent_line(self._view.spent)}\x1b[0m")
            case what:
                self._tell_aside(what)

    def _tell_aside(self, what: object) -> None:
        """Tell what comes from outside the turn."""
        match what:
            case UserSteered(text=text):
                self.beside(f"{YOU} {one_line(text, 200)}")
            case WrapUpAsked() as asked:
                self.amid(sentence(wrap_up_line(asked)))
            case PermissionExpired():
                self.amid("Nobody answered in time; the agent goes on without it.")
            case _:
                pass

    def beside(self, line: str) -> None:
        """Say something that is not part of the answer, where a part of it has ended."""
        self._end_line()
        self._last_started = ""
        print(line, file=self._err, flush=True)

    def amid(self, line: str) -> None:
        """Say something that is not part of the answer, in the middle of it: the answer itself stays as it is."""
        begin = "\n" if self._line_open and self._out.isatty() else ""
        self._last_started = ""
        print(f"{begin}{line}", file=self._err, flush=True)

    def link(self, linked: bool) -> None:
        """Say that the connection was cut. That it is back, the next words say."""
        if not linked:
            self.amid("reconnecting…")

    def _text(self, delta: TextDelta) -> None:
        if self._part and delta.part_id != self._part:
            self._end_line()
            self._out.write("\n")
        self._part = delta.part_id
        self._last_started = ""
        said = clean(delta.text) if self._out.isatty() else delta.text
        self._out.write(said)
        self._out.flush()
        self._line_open = not said.endswith("\n")

    def _replace(self, call_id: str, line: str) -> None:
        """Tell the end of a tool; in a terminal in place of its start, where that is the line above."""
        if self._last_started == call_id and self._err.isatty():
            self._err.write("\x1b[1A\x1b[2K")
        self.beside(line)

    def _end_line(self) -> None:
        if self._line_open:
            self._out.write("\n")
            self._out.flush()
            self._line_open = False


class JsonTeller(Teller):
    """Tells each event as a line of JSON, and nothing beside it but failures."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(out, sys.stderr)

    def tell(self, event: TurnEvent) -> None:
        """Tell one event."""
        print(json.dumps(plain(event), ensure_ascii=False), file=self._out, flush=True)


class Asking:
    """Answers the permissions of a turn: by the person at the terminal, else by what was said in advance."""

    def __init__(self, client: Client, turn_id: str, *, yes: bool) -> None:
        self._client = client
        self._turn_id = turn_id
        self._yes = yes
        self._open: dict[str, asyncio.Task[None]] = {}

    def hear(self, event: TurnEvent) -> None:
        """Ask when an event asks; stop asking when somebody has answered, or the turn has ended."""
        match which_one_of(event, "event")[1]:
            case PermissionAsked() as asked:
                self._open[asked.permission_id] = asyncio.create_task(self._answer(asked))
            case PermissionReplied(permission_id=name) | PermissionExpired(permission_id=name) if name in self._open:
                self._open.pop(name).cancel()
            case _ if is_terminal(event):
                for task in self._open.values():
                    task.cancel()

    async def _answer(self, asked: PermissionAsked) -> None:
        answer = await self._decide(asked)
        request = ReplyPermissionRequest(
            turn_id=self._turn_id,
            permission_id=asked.permission_id,
            reply=answer.reply,
            message=answer.message,
        )
        with suppress(ApiError):  # somebody else was faster, or the turn has ended: the events tell
            await self._client.turns.reply_permission(request)

    async def _decide(self, asked: PermissionAsked) -> Answer:
        if self._yes:
            return permission.ONCE
        if sys.stdin.isatty() and sys.stderr.isatty():
            return await ask_person(asked)
        print(f"{permission.question(asked)}. Refused: nobody to ask. --yes permits.", file=sys.stderr, flush=True)
        return permission.REFUSED


async def ask_person(asked: PermissionAsked) -> Answer:
    """Ask the person at the terminal until the answer is one."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.output import create_output

    session: PromptSession[str] = PromptSession(output=create_output(stdout=sys.stderr))
    lines = [permission.question(asked), permission.always(asked), permission.HINT]
    print("\n".join(filter(None, lines)), file=sys.stderr, flush=True)
    while True:
        try:
            typed = await session.prompt_async("permit? ", handle_sigint=False)
        except (KeyboardInterrupt, EOFError):
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()  # until the turn has ended
        if answer := permission.read_answer(typed):
            return answer


@contextmanager
def aborting(client: Client, turn_id: str, teller: Teller) -> Iterator[None]:
    """Let the first Ctrl-C abort the turn, and the second leave at once."""
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()
    begun: list[asyncio.Task[object]] = []

    def interrupted() -> None:
        if begun and main:
            main.cancel()
            return
        teller.amid("Aborting. Ctrl-C again leaves at once.")
        begun.append(loop.create_task(client.turns.abort_turn(AbortTurnRequest(turn_id=turn_id))))

    loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        yield
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        loop.remove_signal_handler(signal.SIGINT)
