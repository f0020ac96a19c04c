"""What a user says into a turn that runs."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True)
class Steer:
    """Something said into a turn.

    Attributes:
        id: By it the sandbox knows a repeat.
        turn_id: The turn that ran when it was said.
        became_turn_id: The turn that it became, when that one had ended before the agent had it.
        late: Whether that turn has ended.
    """

    id: UUID
    tenant_id: UUID
    turn_id: UUID
    session_id: UUID
    request_id: UUID | None
    text: str
    trace_parent: str
    became_turn_id: UUID | None = None
    late: bool = False
