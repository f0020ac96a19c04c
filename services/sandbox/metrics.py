"""What Sandbox measures: sandboxes, and what becomes of turns in them."""

import time
from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

from services.kit.metrics import SECONDS
from services.sandbox import event as events
from services.sandbox.event import Event

SANDBOXES = Gauge("oiab_sandbox_sandboxes", "Sandboxes that run.")
START_SECONDS = Histogram("oiab_sandbox_start_seconds", "How long a sandbox takes to come up.", buckets=SECONDS)
STARTS_FAILED = Counter("oiab_sandbox_failed_starts", "Sandboxes that did not come up.")
TURNS = Gauge("oiab_sandbox_turns", "Turns that run, those included that wait for their user.")
FIRST_SECONDS = Histogram(
    "oiab_sandbox_first_output_seconds",
    "From the start of a turn to the first text, thought or tool of the agent.",
    buckets=SECONDS,
)
ENDED = Counter("oiab_sandbox_turns_ended", "Turns by their end; the reason is that of a failure.", ["end", "reason"])
TOOLS = Counter("oiab_sandbox_tool_calls", "Tool calls that have ended.", ["outcome"])
PERMISSION_SECONDS = Histogram(
    "oiab_sandbox_permission_wait_seconds", "How long turns waited for a permission.", ["outcome"], buckets=SECONDS
)
RETRIES = Counter("oiab_sandbox_model_retries", "Model calls that a provider failed and the agent tried again.")


class TurnMeasures:
    """Measures one run by its events.

    Args:
        clock: Seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started: float | None = None
        self._silent = True
        self._asked: dict[str, float] = {}

    def tell(self, event: Event) -> None:
        """Measure what happened."""
        match event:
            case events.Started():
                self._started = self._clock()
                TURNS.inc()
            case events.TextDelta() | events.ReasoningDelta() | events.ToolStarted():
                self._output()
            case events.ToolFinished():
                TOOLS.labels("completed" if event.error is None else "error").inc()
            case events.PermissionAsked():
                self._asked[event.permission_id] = self._clock()
            case events.PermissionReplied():
                self._answered(event.permission_id, event.reply.value)
            case events.PermissionExpired():
                self._answered(event.permission_id, "expired")
            case events.Retrying():
                RETRIES.inc()
            case events.Completed() | events.Failed() | events.Aborted():
                self._end(type(event).__name__.lower(), event.reason if isinstance(event, events.Failed) else "")

    def _output(self) -> None:
        if self._silent and self._started is not None:
            FIRST_SECONDS.observe(self._clock() - self._started)
        self._silent = False

    def _answered(self, permission_id: str, outcome: str) -> None:
        if (asked := self._asked.pop(permission_id, None)) is not None:
            PERMISSION_SECONDS.labels(outcome).observe(self._clock() - asked)

    def _end(self, end: str, reason: str) -> None:
        ENDED.labels(end, reason).inc()
        if self._started is not None:
            TURNS.dec()
