"""Who calls: the caller of the current call."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from uuid import UUID

from services.kit.errors import PermissionDenied


@dataclass(frozen=True)
class Caller:
    """A user who has proved an identity, what they may do now, and by which way the call came.

    Attributes:
        tenant_id: The tenant of the user.
        user_id: The user.
        permissions: The names of what they may do, such as `agents.run`; no more than what they came with allows.
        sign_in_id: The sign-in or the API token that they came with. None for the operator of the box.
        agent_session: The session whose agent acts on the user's behalf. Empty when the user acts.
        channel: By which way: `rest`, `grpc`, `cli`, `slack`, `teams`, `email`. Empty when it is not known.
        ip_address: The address of the client. Empty when it is not known.
        user_agent: The client's program in its own words. Empty when it is not known.
    """

    tenant_id: UUID
    user_id: UUID
    permissions: frozenset[str] = field(default=frozenset(), repr=False)
    sign_in_id: UUID | None = None
    agent_session: str = ""
    channel: str = ""
    ip_address: str = ""
    user_agent: str = ""

    @property
    def actor(self) -> str:
        """The caller as the audit log names them."""
        return f"agent:{self.agent_session}" if self.agent_session else f"user:{self.user_id}"

    def may(self, permission: str) -> bool:
        """Whether the caller may do what the permission names. Empty names what everybody may."""
        return not permission or permission in self.permissions


_CURRENT: ContextVar[Caller] = ContextVar("caller")


def caller() -> Caller:
    """The caller of the current call.

    Raises:
        PermissionDenied: There is none: the method is not for users.
    """
    if found := current():
        return found
    raise PermissionDenied("this method is not for users", permission="")


def current() -> Caller | None:
    """The caller of the current call, or None when no user is behind it."""
    return _CURRENT.get(None)


def enter(current: Caller) -> Token[Caller]:
    """Make somebody the caller of the current call."""
    return _CURRENT.set(current)


def leave(token: Token[Caller]) -> None:
    """Forget the caller. A cut stream is closed from another context, which never knew of them."""
    try:
        _CURRENT.reset(token)
    except ValueError:
        return


@contextmanager
def as_caller(somebody: Caller) -> Iterator[None]:
    """Run a block as somebody."""
    token = enter(somebody)
    try:
        yield
    finally:
        leave(token)
