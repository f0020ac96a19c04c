"""The chat: a conversation on a screen, with slash commands."""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from orginabox_sdk.orginabox.api.v1 import BusyPolicy, ListSessionsRequest, Message, Role
from orginabox_sdk.orginabox.runtime.v1 import Model, RuntimeStatus
from rich.console import Group, RenderableType
from rich.text import Text as Styled

from gateways.chat import history, words
from gateways.chat.cli.runtime import DEMO, model_name
from gateways.chat.commands import Commands
from gateways.chat.conversation import Conversation
from gateways.chat.permission import read_answer
from gateways.chat.place import Place
from gateways.chat.refusals import Exit, refusal
from gateways.chat.render import SPINNER, Renderer, you
from gateways.chat.screen import Screen
from gateways.chat.slash import SlashCompleter
from gateways.chat.view import Item, Tool
from gateways.sdk import ApiError, Client

SHOWN_MESSAGES = 20


@dataclass(frozen=True)
class Start:
    """How to begin: a session to go on with, or the last one, or a new one."""

    session_id: str = ""
    resume: bool = False
    model: Model | None = None


async def talk(client: Client, place: Place, start: Start) -> Exit:
    """Chat until the user leaves."""
    status = (await client.providers.get_runtime_status()).status or RuntimeStatus()
    chat = Chat(client, place, status, start.model)
    await chat.run(await _first_session(client, start))
    return Exit.COMPLETED


async def _first_session(client: Client, start: Start) -> str:
    if not start.resume:
        return start.session_id
    found = (await client.sessions.list_sessions(ListSessionsRequest(page_size=1))).sessions
    return found[0].session_id if found else ""


class Chat:
    """A conversation on a screen."""

    def __init__(self, client: Client, place: Place, status: RuntimeStatus, model: Model | None) -> None:
        self.client = client
        self.place = place
        self.runtime = status
        self.tools: list[Tool] = []
        self._settling: list[Item] = []
        self._errands: set[asyncio.Task[None]] = set()
        self._following: asyncio.Task[None] | None = None
        self.conversation = Conversation(client, self, model)
        completer = SlashCompleter()
        self._screen = Screen(place.home / "chat_history", completer, self._live, self._status)
        self._screen.on_text = self._typed
        self._screen.on_interrupt = self._interrupted
        self._screen.on_expand = lambda: self._errand(self._commands.expand(""))
        self._renderer = Renderer(self._screen.colors)
        self._commands = Commands(self)
        completer.commands = self._commands.table

    async def run(self, session_id: str) -> None:
        """Show it until the user leaves."""
        await self.say(self._banner())
        await self.turn_to(session_id)
        try:
            await self._screen.run()
        finally:
            farewell = self._farewell()
            await self._stop_following()
            for errand in self._errands:
                errand.cancel()
        await self.say(farewell)

    # What the conversation tells its stage.

    async def began(self, text: str) -> None:
        """A turn begins."""
        await self.say(you(text))

    async def settled(self, items: Sequence[Item]) -> None:
        """Items are final: they go into the scrollback."""
        numbers = []
        for item in items:
            if isinstance(item, Tool):
                self.tools.append(item)
                numbers.append(len(self.tools))
        # Until they are printed they are drawn as if they were live, so that nothing vanishes for a moment.
        self._settling = list(items)

        def make() -> str:
            self._settling = []
            return self._renderer.settled(items, numbers, self._screen.width)

        await self._screen.print(make)

    async def refused(self, error: ApiError) -> None:
        """The box refused something."""
        await self.say(Styled(refusal(error, self.place).text, style="red"))

    def changed(self) -> None:
        """Something has changed: draw again."""
        self._screen.busy = self.conversation.busy
        self._screen.ask(self.conversation.asked is not None)
        self._screen.changed()

    # What the screen asks for.

    def _live(self, tick: int, width: int) -> str:
        return self._renderer.live([*self._settling, *self.conversation.view.live], tick, width)

    def _status(self, tick: int) -> str:
        """One line above the input: what goes on, and what waits."""
        talk = self.conversation
        model = model_name(talk.model or self.runtime.default_model)
        if talk.current is None:
            about = [model, *([talk.title] if talk.title else [])]
            return f"\x1b[2m{words.one_line(' · '.join(about), self._screen.width - 1)}\x1b[0m"
        doing = "aborting…" if talk.aborting else "working…"
        doing = doing if talk.linked else "reconnecting…"
        if talk.asked:
            doing = "waits for your answer"
        lines = [f"\x1b[36m{SPINNER[tick % len(SPINNER)]}\x1b[0m \x1b[2m{doing} · Ctrl-C aborts\x1b[0m"]
        for index, waiting in enumerate(talk.waiting, 1):
            lines.append(
                f"\x1b[2m  in line, {index} before it: {words.one_line(waiting.text, self._screen.width - 28)}\x1b[0m"
            )
        return "\n".join(lines)

    def _typed(self, text: str) -> None:
        if text.startswith("/") and not text.startswith("//"):
            self._errand(self._commands.run(text))
        elif self.conversation.asked:
            self._reply(text)
        else:
            self._errand(self.prompt(text.removeprefix("/")))

    def _reply(self, text: str) -> None:
        answer = read_answer(text)
        if answer is None:
            self._screen.hint("\x1b[33mPlease answer y, a or n.\x1b[0m")
        else:
            self._errand(self.conversation.answer(answer))

    async def prompt(self, text: str, policy: BusyPolicy = BusyPolicy.UNSPECIFIED, typed: str = "") -> None:
        """Say something to the agent; what was typed comes back when it could not be sent."""
        try:
            await self.conversation.say(text, policy)
        except ApiError:
            self._screen.give_back(typed or text)
            raise

    def offer(self, text: str) -> None:
        """Put something into the input line, to be changed and sent."""
        self._screen.give_back(text)

    def _interrupted(self) -> bool:
        if self.conversation.current is None:
            return False
        self._errand(self.conversation.abort())
        return True

    def _errand(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the drawing, and say so when the box refuses it."""

        async def said_plainly() -> None:
            try:
                await work
            except ApiError as error:
                await self.refused(error)
            self.changed()

        task = asyncio.create_task(said_plainly())
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def say(self, thing: RenderableType) -> None:
        """Put something into the scrollback."""
        await self._screen.print(lambda: self._renderer.apart(thing, self._screen.width))

    # Sessions.

    async def turn_to(self, session_id: str) -> None:
        """Go on with a session, or, where none is named, with a new one."""
        await self._stop_following()
        self.conversation = Conversation(self.client, self, self.conversation.model)
        try:
            if session_id:
                await self._resume(session_id)
        finally:
            self._following = asyncio.create_task(self.conversation.follow())

    def leave(self) -> None:
        """End the chat."""
        self._screen.leave()

    async def _stop_following(self) -> None:
        if self._following:
            self._following.cancel()
            with suppress(asyncio.CancelledError):
                await self._following

    async def _resume(self, session_id: str) -> None:
        """Go on with a session: show what was said in it, and follow what runs."""
        messages = await self.conversation.open(session_id)
        await self.say(Styled(f"Session: {self.conversation.title or '(untitled)'}", style="bold"))
        if len(messages) > SHOWN_MESSAGES:
            more = f"… {len(messages) - SHOWN_MESSAGES} earlier messages: oiab sessions show {session_id}"
            await self.say(Styled(more, style="dim"))
        for message in messages[-SHOWN_MESSAGES:]:
            await self._show(message)

    async def _show(self, message: Message) -> None:
        if message.role == Role.USER:
            await self.say(you(history.said(message)))
        else:
            await self.settled(list(history.items(message)))

    # The first and the last words.

    def _banner(self) -> RenderableType:
        model = model_name(self.conversation.model or self.runtime.default_model)
        first = Styled.assemble(("Org in a Box", "bold"), (f" · {model} · /help", "dim"))
        uses_demo = self.runtime.demo and self.conversation.model is None
        return Group(first, Styled(DEMO, style="yellow")) if uses_demo else first

    def _farewell(self) -> RenderableType:
        talk = self.conversation
        if not talk.session_id:
            return Styled("Nothing was said.", style="dim")
        runs = "What runs goes on in the box. " if talk.busy else ""
        return Styled(f"{runs}Go on with it: oiab chat --session {talk.session_id}", style="dim")
