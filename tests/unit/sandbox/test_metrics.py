"""A run is measured by its events."""

from uuid import UUID

from prometheus_client import REGISTRY

from services.sandbox import event as events
from services.sandbox.metrics import TurnMeasures
from services.sandbox.run import Run, Turn

NOTHING = UUID(int=0)


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_first_output_permissions_and_end_of_a_turn() -> None:
    now = 100.0
    measures = TurnMeasures(lambda: now)
    before = value("oiab_sandbox_first_output_seconds_sum"), value("oiab_sandbox_turns")
    measures.tell(events.Started("p", "m"))
    now += 2
    measures.tell(events.TextDelta("p", "a"))
    now += 2
    measures.tell(events.TextDelta("p", "b"))
    assert value("oiab_sandbox_first_output_seconds_sum") == before[0] + 2
    asked = events.PermissionAsked("per", "bash", "", (), (), "", "")
    waited = value("oiab_sandbox_permission_wait_seconds_sum", outcome="expired")
    measures.tell(asked)
    now += 5
    measures.tell(events.PermissionExpired("per"))
    assert value("oiab_sandbox_permission_wait_seconds_sum", outcome="expired") == waited + 5
    assert value("oiab_sandbox_turns") == before[1] + 1
    ended = value("oiab_sandbox_turns_ended_total", end="failed", reason="SANDBOX_LOST")
    measures.tell(events.Failed("SANDBOX_LOST", "gone"))
    assert value("oiab_sandbox_turns_ended_total", end="failed", reason="SANDBOX_LOST") == ended + 1
    assert value("oiab_sandbox_turns") == before[1]


def test_what_comes_after_the_end_is_not_measured() -> None:
    run = Run(Turn(NOTHING, NOTHING, NOTHING, NOTHING, ""))
    before = value("oiab_sandbox_turns")
    for event in (events.Started("p", "m"), events.Completed(), events.Failed("INTERNAL", ""), events.Completed()):
        run.append(event)
    assert value("oiab_sandbox_turns") == before
