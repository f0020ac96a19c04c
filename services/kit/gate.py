"""Lets calls in by the policy of their method: who may call at all, who the user is, and whether they may do this.

The contract decides, nothing else does: a method that has no rule does not exist for a caller. What comes from the edge
is for people; what comes from a service of the mesh is for the services that the method names.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from services.kit import caller as callers
from services.kit.caller import Caller
from services.kit.errors import DomainError, PermissionDenied, Unauthenticated
from services.kit.outbox import ANONYMOUS, Who
from services.kit.policy import Access, Rule

EDGE = "envoy"
"""The only service through which people come in. What it says of a client, such as its address, is believed."""


CLIENTS = frozenset({"cli", "web"})
"""What clients may call themselves on record. Other channels, such as `slack`, are a gateway's to name."""


@dataclass(frozen=True)
class Call:
    """A call on its way to the handler.

    Attributes:
        rule: The policy of its method.
        method: The method, `/package.Service/Method`.
        metadata: What came with it, without binary values.
        peer: The service at the other end, as its certificate names it. Empty when it has none.
        context: gRPC's own view of the call.
    """

    rule: Rule
    method: str
    metadata: Mapping[str, str]
    peer: str
    context: grpc.aio.ServicerContext[Any, Any]


Identify = Callable[[Call], Awaitable[Caller]]
"""Finds out which user calls. Raises a DomainError, such as Unauthenticated, when nobody is known."""


Again = Callable[[Caller], Awaitable[Caller]]
"""How a caller stands now. Raises a DomainError, such as Unauthenticated, when they are none any more."""


class Recorder(Protocol):
    """Puts refusals on record."""

    async def denied(self, target: str, reason: str, *, who: Who | None = None) -> None:
        """Put on record that somebody, else the caller, was refused what the target names, and why."""


class Gate:
    """Lets the calls of one server in.

    Args:
        identify: How the users of public methods are known. None: this server has no public methods.
        hand_over: How the user behind a call of another service is known; None when the call carries none.
        recorder: Where refusals are put on record. None: they are only logged.
        again: How it is known whether the user of a stream may still have it. None: they may to its end.
    """

    def __init__(
        self,
        identify: Identify | None = None,
        hand_over: Callable[[Call], Caller | None] = lambda _: None,
        recorder: Recorder | None = None,
        again: Again | None = None,
    ) -> None:
        self._identify = identify
        self._hand_over = hand_over
        self._recorder = recorder
        self._again = again

    @asynccontextmanager
    async def admitted(self, call: Call) -> AsyncIterator[None]:
        """Let a call in for as long as the block runs, with its user as the caller.

        Raises:
            Unauthenticated: The method is for users, and nobody is known.
            PermissionDenied: The peer or the user may not call it.
        """
        somebody = await self._who(call)
        token = callers.enter(somebody) if somebody else None
        try:
            await self._refuse_without(call, somebody)
            yield
        finally:
            if token:
                callers.leave(token)

    async def still(self, call: Call, somebody: Caller) -> None:
        """Make sure that a user whose stream goes on may still have it.

        Raises:
            Unauthenticated: Their sign-in was ended.
            PermissionDenied: They may not any more.
        """
        if self._again is not None:
            await self._refuse_without(call, await self._again(somebody))

    async def _who(self, call: Call) -> Caller | None:
        match call.rule.access:
            case Access.PUBLIC:
                return None
            case Access.INTERNAL:
                if call.peer not in call.rule.callers:
                    await self._record(call, PermissionDenied.reason)
                    raise PermissionDenied(f"{call.peer or 'this peer'} may not call this method", permission="")
                return self._hand_over(call)
        if call.peer != EDGE or self._identify is None:
            raise Unauthenticated("this method is for users; call it through the address of the box")
        try:
            return await self._identify(call)
        except DomainError as refusal:
            await self._record(call, refusal.reason)
            raise

    async def _refuse_without(self, call: Call, somebody: Caller | None) -> None:
        """Refuse a caller without the permission that the method needs."""
        needed = call.rule.permission
        if not needed or (somebody is not None and somebody.may(needed)):
            return
        await self._record(call, PermissionDenied.reason)
        raise PermissionDenied(
            f"this needs the permission {needed}; an administrator of your organisation can give you a role with it",
            permission=needed,
        )

    async def _record(self, call: Call, reason: str) -> None:
        if self._recorder is not None:
            who = None if callers.current() else _stranger(call)
            await self._recorder.denied(f"method:{call.method.lstrip('/')}", reason, who=who)


def _stranger(call: Call) -> Who:
    """Who is refused and is no user: somebody at the edge, or a service of the mesh."""
    if call.peer != EDGE:
        return Who(actor=f"service:{call.peer}" if call.peer else ANONYMOUS)
    return Who(
        actor=ANONYMOUS,
        channel=channel_of(call.metadata),
        ip_address=address_of(call.metadata),
        user_agent=call.metadata.get("user-agent", "")[:200],
    )


def channel_of(metadata: Mapping[str, str]) -> str:
    """By which way a call came. What a client says of itself counts only where it is the name of a client of ours."""
    if (said := metadata.get("x-oiab-channel", "")) in CLIENTS:
        return said
    return "rest" if "x-envoy-original-path" in metadata else "grpc"


def address_of(metadata: Mapping[str, str]) -> str:
    """The address of the client: the last of `x-forwarded-for`, which the edge has set. Empty when it is not known."""
    return metadata.get("x-forwarded-for", "").rpartition(",")[2].strip()[:64]
