"""The client: every public service, and the two things that everybody needs, `follow` and `ask`."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import grpc
from orginabox_sdk.orginabox.api.v1 import (
    ApiTokenServiceStub,
    AuditServiceStub,
    AuthServiceStub,
    BusyPolicy,
    GetTurnRequest,
    HealthServiceStub,
    IdentityProviderServiceStub,
    JobServiceStub,
    KeyringServiceStub,
    PromptRequest,
    PromptResponse,
    ProviderServiceStub,
    RoleServiceStub,
    SessionServiceStub,
    StreamTurnEventsRequest,
    TenantServiceStub,
    TurnServiceStub,
    TurnState,
    UserServiceStub,
)
from orginabox_sdk.orginabox.runtime.v1 import Model
from orginabox_sdk.orginabox.turn.v1 import TurnEvent

from gateways.sdk.channel import DEADLINE_SECONDS, Bearer, Channel
from gateways.sdk.errors import ApiError, Unavailable

PATIENCE_SECONDS = 300.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0
_LATE_LOOKS = 20
_LATE_PAUSE = 0.2


class Client:
    """A client of the box. Make it where an event loop runs, and close it: `async with` does.

    `sessions`, `turns`, `providers`, `jobs`, `keyring`, `audit`, `health`, `auth`, `users`, `roles`, `api_tokens`,
    `tenants` and `identity_providers` are the stubs of the contract. Each call takes its request message, and
    `timeout`, `deadline` and `metadata`.

    Args:
        target: Where the box is, such as `http://127.0.0.1:8787`.
        api_key: The key that opens it, or an API token.
        bearer: Asked for the token of each call instead, such as a `SharedSignIn`.
        timeout: Seconds that a call may take when it does not say otherwise.
        root_certificates: PEM certificates to trust for `https` instead of the system's.
        user_agent: What the program calls itself.
        metadata: What to send along with every call.

    Example:
        ```python
        async with Client("http://127.0.0.1:8787", api_key=key) as client:
            page = await client.sessions.list_sessions(ListSessionsRequest(page_size=10), timeout=5)
            for session in page.sessions:
                print(session.session_id, session.title)
        ```
    """

    def __init__(
        self,
        target: str,
        *,
        api_key: str = "",
        bearer: Bearer | None = None,
        timeout: float = DEADLINE_SECONDS,
        root_certificates: bytes | None = None,
        user_agent: str = "orginabox-sdk",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self._channel = Channel(
            target,
            api_key=api_key,
            bearer=bearer,
            timeout=timeout,
            root_certificates=root_certificates,
            user_agent=user_agent,
            metadata=metadata,
        )
        stub_channel: Any = self._channel  # the stubs ask for grpclib's class, and use only what ours has too
        self.sessions = SessionServiceStub(stub_channel)
        self.turns = TurnServiceStub(stub_channel)
        self.providers = ProviderServiceStub(stub_channel)
        self.jobs = JobServiceStub(stub_channel)
        self.keyring = KeyringServiceStub(stub_channel)
        self.audit = AuditServiceStub(stub_channel)
        self.health = HealthServiceStub(stub_channel)
        self.auth = AuthServiceStub(stub_channel)
        self.users = UserServiceStub(stub_channel)
        self.roles = RoleServiceStub(stub_channel)
        self.api_tokens = ApiTokenServiceStub(stub_channel)
        self.tenants = TenantServiceStub(stub_channel)
        self.identity_providers = IdentityProviderServiceStub(stub_channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls that run are cancelled."""
        await self._channel.close()

    async def ask(
        self,
        session_id: str,
        text: str,
        *,
        model: Model | None = None,
        busy_policy: BusyPolicy = BusyPolicy.UNSPECIFIED,
    ) -> AsyncGenerator[TurnEvent, None]:
        """Say something to the agent and follow what comes of it.

        Args:
            session_id: The session to say it in.
            text: What to say.
            model: The model of this turn. None means the session's.
            busy_policy: What it does when a turn runs. Unspecified means what the session says.

        Yields:
            The events of the turn, the terminal one last. When it is said into a turn that runs: what follows in that
            one; and when that one ends before the agent has it, the events of the turn that it becomes.
        """
        request = PromptRequest(
            session_id=session_id, text=text, model=model, busy_policy=busy_policy, request_id=str(uuid4())
        )
        taken: PromptResponse | None = await self.sessions.prompt(request)
        while taken is not None:
            into = is_steered(taken, text)
            heard = not into
            begin = taken.turn.last_sequence if into and taken.turn is not None else 0
            async with aclosing(self.follow(taken.turn_id, begin)) as events:
                async for event in events:
                    heard = heard or event.user_steered is not None
                    yield event
            taken = None if heard else await self.late_turn(request, taken.turn_id)

    async def late_turn(self, request: PromptRequest, turn_id: str) -> PromptResponse | None:
        """The turn that a prompt has become which was said into another, when that one ended before the agent had it.

        Args:
            request: The prompt as it was sent, with its request id.
            turn_id: The turn that it was said into.

        Returns:
            None when the prompt was heard in that turn after all.
        """
        for _ in range(_LATE_LOOKS):
            taken = await self.sessions.prompt(request)
            if taken.turn_id != turn_id:
                return taken
            await asyncio.sleep(_LATE_PAUSE)
        return None

    async def follow(
        self,
        turn_id: str,
        from_sequence: int = 0,
        *,
        patience: float = PATIENCE_SECONDS,
        on_link: Callable[[bool], None] | None = None,
    ) -> AsyncGenerator[TurnEvent, None]:
        """Follow a turn to its end: every event once and in order, whatever happens to the connection.

        Args:
            turn_id: The turn.
            from_sequence: The number of the last event that you have. 0 means from the first.
            patience: Seconds to go on trying while nothing is heard, before the last error is raised.
            on_link: Told False when the connection is cut, and True when the box answers again.

        Yields:
            The events after `from_sequence`, and the terminal one last in any case. Checkpoints are left out.

        Raises:
            ApiError: The box refused, or was not heard of for too long.

        Example:
            ```python
            async for event in client.follow(turn_id, from_sequence=seen):
                seen = event.sequence
            ```
        """
        seen, cuts, heard, linked = from_sequence, 0, time.monotonic(), True
        while True:
            error: ApiError = Unavailable(grpc.StatusCode.UNAVAILABLE, "the stream ended before the turn did")
            try:
                if cuts:
                    await self.turns.get_turn(GetTurnRequest(turn_id=turn_id))
                    linked = _tell(on_link, linked, now=True)
                request = StreamTurnEventsRequest(turn_id=turn_id, from_sequence=seen)
                async with aclosing(_closable(self.turns.stream_turn_events(request))) as events:
                    async for event in events:
                        cuts, heard = 0, time.monotonic()
                        # The end of a turn is told whatever its number: whoever has it all asks for it again, and a
                        # log that lost its last words in a crash ends before what was seen.
                        if event.checkpoint is not None or (event.sequence <= seen and not is_terminal(event)):
                            continue
                        seen = event.sequence
                        yield event
                        if is_terminal(event):
                            return
            except ApiError as raised:
                error = raised
            if not error.passing or time.monotonic() - heard > patience:
                raise error
            linked = _tell(on_link, linked, now=False)
            await asyncio.sleep(_pause(cuts))
            cuts += 1


def is_steered(taken: PromptResponse, text: str) -> bool:
    """Whether a prompt was said into a turn that ran, instead of beginning one of its own."""
    return taken.turn is not None and taken.turn.state != TurnState.QUEUED and taken.turn.text != text


def is_terminal(event: TurnEvent) -> bool:
    """Whether the event is the last of its turn."""
    # Not by truth: a message without a field that differs from its default is false.
    return event.completed is not None or event.failed is not None or event.aborted is not None


def _closable(stream: Any) -> Any:
    """The stream of a stub: an async generator, which its annotation hides."""
    return stream


def _pause(cuts: int) -> float:
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(cuts, 10))
    return longest * random.uniform(0.5, 1)  # noqa: S311 - spreads load, is no secret


def _tell(on_link: Callable[[bool], None] | None, linked: bool, *, now: bool) -> bool:
    """Tell a change of the connection, and return how it stands."""
    if on_link is not None and linked is not now:
        on_link(now)
    return now
