"""What Worker measures."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge, Histogram

from services.kit.metrics import SECONDS

TURNS = Gauge("oiab_worker_turns", "Turns in the hands of this worker, parked ones included.")
PARKED = Gauge("oiab_worker_parked_turns", "Turns that wait for their user, and hold no place.")
CLAIM_TIME = Histogram(
    "oiab_worker_claim_seconds", "How long it takes to get a turn's sandbox, a cold start included.", buckets=SECONDS
)
CUTS = Counter("oiab_worker_cuts", "Cuts between a run and its log, after which they were joined again.", ["code"])
LEFT = Counter(
    "oiab_worker_turns_left", "Turns that left this worker: `done`, `elsewhere`, `given_back` or `stopped`.", ["how"]
)


class TurnMeasure:
    """One turn in the hands of this worker."""

    def __init__(self) -> None:
        self.how = "given_back"
        self._parked = False

    def parking(self, park: Callable[[], None]) -> Callable[[], None]:
        """The same, measured."""

        def measured_park() -> None:
            self._be_parked(parked=True)
            park()

        return measured_park

    def unparking(self, unpark: Callable[[], None]) -> Callable[[], None]:
        """The same, measured."""

        def measured_unpark() -> None:
            self._be_parked(parked=False)
            unpark()

        return measured_unpark

    def end(self) -> None:
        """The turn has left."""
        self._be_parked(parked=False)
        LEFT.labels(self.how).inc()

    def _be_parked(self, *, parked: bool) -> None:
        PARKED.inc(parked - self._parked)
        self._parked = parked


@contextmanager
def measured() -> Iterator[TurnMeasure]:
    """Measure a turn as long as the block lasts. Whoever knows how it left says so in `how`."""
    turn = TurnMeasure()
    try:
        with TURNS.track_inprogress():
            yield turn
    except asyncio.CancelledError:
        turn.how = "stopped"
        raise
    finally:
        turn.end()
