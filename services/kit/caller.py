"""Who calls: the caller of the current call."""

from contextvars import ContextVar, Token
from dataclasses import dataclass
from uuid import UUID

from services.kit.errors import PermissionDenied


@dataclass(frozen=True)
class Caller:
    """A user who has proved an identity, and by which way the call came."""

    tenant_id: UUID
    user_id: UUID
    channel: str = ""
    ip_address: str = ""
    user_agent: str = ""

    @property
    def actor(self) -> str:
        """The caller as the audit log names them."""
        return f"user:{self.user_id}"


_CURRENT: ContextVar[Caller] = ContextVar("caller")


def caller() -> Caller:
    """The caller of the current call.

    Raises:
        PermissionDenied: There is none: the method is not for users.
    """
    try:
        return _CURRENT.get()
    except LookupError:
        raise PermissionDenied("this method is not for users", permission="") from None


def enter(current: Caller) -> Token[Caller]:
    """Make somebody the caller of the current call."""
    return _CURRENT.set(current)


def leave(token: Token[Caller]) -> None:
    """Forget the caller. A cut stream is closed from another context, which never knew of them."""
    try:
        _CURRENT.reset(token)
    except ValueError:
        return
