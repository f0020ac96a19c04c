"""A conversation: what is said in one session, and the turns that come of it, followed one after the other.

It knows the box and not the terminal: what there is to show it hands to a `Stage`.
"""

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from orginabox_sdk.orginabox.api.v1 import (
    AbortTurnRequest,
    CreateSessionRequest,
    GetSessionRequest,
    ListMessagesRequest,
    ListTurnsRequest,
    Message,
    PromptRequest,
    ReplyPermissionRequest,
    TurnState,
)
from orginabox_sdk.orginabox.runtime.v1 import Model

from gateways.chat.permission import Answer
from gateways.chat.view import Asked, Item, TurnView
from gateways.sdk import ApiError, Client

OPEN = (TurnState.QUEUED, TurnState.RUNNING)
PAGE = 200


class Stage(Protocol):
    """Where a conversation is shown."""

    async def began(self, text: str) -> None:
        """A turn begins: this is what the user said."""

    async def settled(self, items: Sequence[Item]) -> None:
        """These items are final."""

    async def refused(self, error: ApiError) -> None:
        """The box refused something."""

    def changed(self) -> None:
        """Something that is live has changed."""


@dataclass(frozen=True)
class Waiting:
    """A turn that has yet to be followed."""

    turn_id: str
    text: str


class Conversation:
    """One session at a time, and its turns.

    Args:
        client: A client of the box.
        stage: Where to show what happens.
        model: The model for what is said from now on. None means the session's.
    """

    def __init__(self, client: Client, stage: Stage, model: Model | None = None) -> None:
        self._client = client
        self._stage = stage
        self._more = asyncio.Event()
        self._saying = asyncio.Lock()
        self.model = model
        self.session_id = ""
        self.title = ""
        self.waiting: list[Waiting] = []
        self.current: Waiting | None = None
        self.view = TurnView()
        self.linked = True
        self.aborting = False

    @property
    def asked(self) -> Asked | None:
        """The permission that waits for an answer."""
        return self.view.asked if self.current else None

    @property
    def busy(self) -> bool:
        """Whether a turn runs or waits."""
        return self.current is not None or bool(self.waiting)

    async def open(self, session_id: str) -> list[Message]:
        """Go on with a session: follow what runs and waits in it, and return what was said before that."""
        session = (await self._client.sessions.get_session(GetSessionRequest(session_id=session_id))).session
        page = await self._client.turns.list_turns(ListTurnsRequest(session_id=session_id, page_size=PAGE))
        running = [turn for turn in reversed(page.turns) if turn.state in OPEN]
        messages = await self._messages(session_id)
        self.session_id = session_id
        self.title = session.title if session else ""
        self.waiting = [Waiting(turn.turn_id, turn.text) for turn in running]
        self._more.set()
        open_turns = {turn.turn_id for turn in running}
        return [message for message in messages if message.turn_id not in open_turns]

    async def say(self, text: str) -> None:
        """Say something; its turn is followed after those before it."""
        async with self._saying:
            if not self.session_id:
                made = await self._client.sessions.create_session(CreateSessionRequest(model=self.model))
                self.session_id, self.title = made.session_id, ""
            request = PromptRequest(session_id=self.session_id, text=text, model=self.model)
            taken = await self._client.sessions.prompt(request)
            self.waiting.append(Waiting(taken.turn_id, text))
            self._more.set()
        self._stage.changed()

    async def answer(self, answer: Answer) -> None:
        """Answer the permission that waits."""
        if self.current is None or self.asked is None or self.asked.asked is None:
            return
        request = ReplyPermissionRequest(
            turn_id=self.current.turn_id,
            permission_id=self.asked.asked.permission_id,
            reply=answer.reply,
            message=answer.message,
        )
        await self._client.turns.reply_permission(request)

    async def abort(self) -> None:
        """Stop the turn that runs."""
        if self.current:
            self.aborting = True
            self._stage.changed()
            try:
                await self._client.turns.abort_turn(AbortTurnRequest(turn_id=self.current.turn_id))
            except ApiError:
                self.aborting = False
                raise

    async def follow(self) -> None:
        """Follow the turns, one after the other, until cancelled."""
        while True:
            await self._more.wait()
            self._more.clear()
            while self.waiting:
                await self._follow_one(self.waiting.pop(0))

    async def _follow_one(self, turn: Waiting) -> None:
        self.current, self.view, self.aborting = turn, TurnView(), False
        try:
            await self._stage.began(turn.text)
            async for event in self._client.follow(turn.turn_id, patience=math.inf, on_link=self._link):
                settled = self.view.apply(event)
                if settled:
                    await self._stage.settled(settled)
                self._stage.changed()
        except ApiError as error:
            await self._stage.refused(error)
        finally:
            self.current, self.view, self.linked = None, TurnView(), True
            self._stage.changed()
        if not self.title:
            await self._learn_title()

    async def _learn_title(self) -> None:
        """The first prompt gives a session its title."""
        with suppress(ApiError):
            found = await self._client.sessions.get_session(GetSessionRequest(session_id=self.session_id))
            self.title = found.session.title if found.session else ""

    async def _messages(self, session_id: str) -> list[Message]:
        messages: list[Message] = []
        token = ""
        while True:
            request = ListMessagesRequest(session_id=session_id, page_size=PAGE, page_token=token)
            page = await self._client.sessions.list_messages(request)
            messages += page.messages
            token = page.next_page_token
            if not token:
                return messages

    def _link(self, linked: bool) -> None:
        self.linked = linked
        self._stage.changed()
