"""Rows of the tables as nouns."""

from services.api.session import BusyPolicy, ModelRef, Session
from services.api.turn import Turn, TurnState
from services.kit.postgres import Row


def session_of(row: Row) -> Session:
    """The session in a row."""
    return Session(
        id=row["session_id"],
        tenant_id=row["tenant_id"],
        user_id=row["user_id"],
        title=row["title"],
        model=ModelRef.from_columns(row["provider_id"], row["model_id"]),
        create_time=row["create_time"],
        update_time=row["update_time"],
        busy_policy=BusyPolicy(row["busy_policy"]),
        active_turn_id=row["active_turn_id"],
    )


def turn_of(row: Row) -> Turn:
    """The turn in a row."""
    return Turn(
        id=row["turn_id"],
        ordinal=row["ordinal"],
        tenant_id=row["tenant_id"],
        user_id=row["user_id"],
        session_id=row["session_id"],
        state=TurnState(row["state"]),
        text=row["text"],
        model=ModelRef.from_columns(row["provider_id"], row["model_id"]),
        last_sequence=row["last_sequence"],
        attempt=row["attempt"],
        lease_token=row["lease_token"],
        job_id=row["job_id"],
        abort_requested=row["abort_requested"],
        failure_reason=row["failure_reason"],
        failure_message=row["failure_message"],
        create_time=row["create_time"],
        start_time=row["start_time"],
        end_time=row["end_time"],
        reworded=row["reworded"],
    )
