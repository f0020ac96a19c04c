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
    BusyPolicy,
    CreateSessionRequest,
    GetSessionRequest,
    ListInboxRequest,
    ListMessagesRequest,
    Message,
    PromptRequest,
    ReplyPermissionRequest,
    Turn,
    UpdateTurnRequest,
)
from orginabox_sdk.orginabox.runtime.v1 import Model

from gateways.chat.permission import Answer
from gateways.chat.view import Asked, Item, TurnView
from gateways.sdk import ApiError, Client

PAGE = 200
LATE_LOOKS = 15
LATE_PAUSE = 0.2


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
        self._followed: set[str] = set()
        # What was said into the turn that runs, and was not heard in it yet.
        self._unheard = 0
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
        running = await self._inbox(session_id)
        messages = await self._messages(session_id)
        self.session_id = session_id
        self.title = session.title if session else ""
        self.waiting = [Waiting(turn.turn_id, turn.text) for turn in running]
        self._more.set()
        open_turns = {turn.turn_id for turn in running}
        return [message for message in messages if message.turn_id not in open_turns]

    async def say(self, text: str, policy: BusyPolicy = BusyPolicy.UNSPECIFIED) -> None:
        """Say something: as a turn of its own, which is followed in its place, or into the one that runs."""
        async with self._saying:
            if not self.session_id:
                made = await self._client.sessions.create_session(CreateSessionRequest(model=self.model))
                self.session_id, self.title = made.session_id, ""
            request = PromptRequest(session_id=self.session_id, text=text, model=self.model, busy_policy=policy)
            taken = await self._client.sessions.prompt(request)
            if taken.turn_id in self._followed | {waiting.turn_id for waiting in self.waiting}:
                self._unheard += 1
            else:
                place = taken.position - (1 if self.current else 0)
                self.waiting.insert(max(0, place), Waiting(taken.turn_id, text))
            self._more.set()
        self._stage.changed()

    async def refresh(self) -> None:
        """Learn what waits, and in which order: others may have said, moved, reworded or removed something."""
        async with self._saying:
            if not self.session_id:
                return
            listed = [turn for turn in await self._inbox(self.session_id) if turn.turn_id not in self._followed]
            known = {turn.turn_id for turn in listed}
            # What is not listed any more has ended already, and comes before all that waits.
            ended = [turn for turn in self.waiting if turn.turn_id not in known]
            self.waiting = ended + [Waiting(turn.turn_id, turn.text) for turn in listed]
            self._more.set()
        self._stage.changed()

    async def reword(self, turn: Waiting, text: str) -> None:
        """Say something that waits in other words."""
        await self._client.turns.update_turn(UpdateTurnRequest(turn_id=turn.turn_id, text=text))
        await self.refresh()

    async def remove(self, turn: Waiting) -> None:
        """Take something back that waits."""
        await self._client.turns.abort_turn(AbortTurnRequest(turn_id=turn.turn_id))
        if turn != self.current:
            self._followed.add(turn.turn_id)
            self.waiting = [waiting for waiting in self.waiting if waiting.turn_id != turn.turn_id]
        await self.refresh()

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
        self.current, self.view, self.aborting, self._unheard = turn, TurnView(), False, 0
        self._followed.add(turn.turn_id)
        try:
            await self._stage.began(turn.text)
            async for event in self._client.follow(turn.turn_id, patience=math.inf, on_link=self._link):
                self._unheard -= event.user_steered is not None
                settled = self.view.apply(event)
                if settled:
                    await self._stage.settled(settled)
                self._stage.changed()
        except ApiError as error:
            await self._stage.refused(error)
        finally:
            self.current, self.view, self.linked = None, TurnView(), True
            self._stage.changed()
        await self._look_for_late()
        if not self.title:
            await self._learn_title()

    async def _look_for_late(self) -> None:
        """Learn what waits now. What the turn did not hear before it ended becomes a turn of its own in a moment."""
        for look in range(LATE_LOOKS if self._unheard > 0 else 1):
            await asyncio.sleep(LATE_PAUSE if look else 0)
            known = len(self.waiting)
            with suppress(ApiError):
                await self.refresh()
            if len(self.waiting) > known:
                return

    async def _learn_title(self) -> None:
        """The first prompt gives a session its title."""
        with suppress(ApiError):
            found = await self._client.sessions.get_session(GetSessionRequest(session_id=self.session_id))
            self.title = found.session.title if found.session else ""

    async def _inbox(self, session_id: str) -> list[Turn]:
        request = ListInboxRequest(session_id=session_id, page_size=PAGE)
        return (await self._client.sessions.list_inbox(request)).turns

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
