"""What others have to be told: messages written in the transaction of the change that they tell of."""

from dataclasses import dataclass
from enum import Enum
from typing import Any
from uuid import UUID

from services.api.turn import Turn


class Receiver(Enum):
    """Who has to be told.

    What the sandbox has to be told of turns that run is kept in a table of its own, and so is what Audit has.
    """

    QUEUE = "queue"
    SANDBOX = "sandbox"
    AGENT = "agent"


@dataclass(frozen=True)
class Outgoing:
    """A message to one receiver. Its number is its place in the outbox, 0 before it has one."""

    tenant_id: UUID
    receiver: Receiver
    message: dict[str, Any]
    number: int = 0


def turn_job(turn: Turn, trace_parent: str) -> Outgoing:
    """Tell the queue of a turn to run: one at a time per session, in the order of the prompts."""
    return Outgoing(
        turn.tenant_id,
        Receiver.QUEUE,
        {"turn_id": str(turn.id), "session_id": str(turn.session_id), "trace_parent": trace_parent},
    )


def forget(tenant_id: UUID, session_id: UUID) -> Outgoing:
    """Tell the sandbox to delete what the agent keeps of a session that was deleted."""
    return Outgoing(tenant_id, Receiver.AGENT, {"session_id": str(session_id)})
