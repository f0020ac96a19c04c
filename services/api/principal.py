"""For whom an agent acts: what its user may do now, which the agent never exceeds."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from services.api.turn import Ending, TurnState


@dataclass(frozen=True)
class ToolCeiling:
    """The tools that an agent may use at most, by name; `*` means all, and deny wins."""

    allowed: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Principal:
    """The user of a turn, as they stand now.

    Attributes:
        tools: The tools that they may have an agent use.
        refusal: How each of their turns ends, or None when they may have agents run.
    """

    tools: ToolCeiling
    refusal: Ending | None = None


FindPrincipal = Callable[[UUID, UUID], Awaitable[Principal]]
"""Finds how a user of a tenant stands now. Identity answers it: what it keeps of people is its own business."""


def suspended(message: str) -> Principal:
    """A user who may not use the box."""
    return Principal(ToolCeiling(), Ending(TurnState.FAILED, "USER_SUSPENDED", message))


def allowed(tools: ToolCeiling, *, may_run: bool) -> Principal:
    """A user who may use the box, and perhaps agents."""
    refusal = Ending(
        TurnState.FAILED,
        "PERMISSION_DENIED",
        "you may not have an agent run any more (agents.run); ask an administrator for a role that has it",
    )
    return Principal(tools, None if may_run else refusal)
