"""What the queue tells Prometheus of itself."""

from collections.abc import Collection, Iterable
from datetime import datetime

from prometheus_client import Counter, Gauge, Histogram

from services.kit.metrics import POWERS, SECONDS
from services.queue.job import JobState, KindStats, LeasedJob

JOBS = Gauge("oiab_queue_jobs", "Jobs that live, and dead ones, by kind and state.", ["kind", "state"])
OLDEST = Gauge("oiab_queue_oldest_ready_seconds", "How long the oldest ready job of a kind has waited.", ["kind"])
PAUSED = Gauge("oiab_queue_paused", "Whether a kind is paused.", ["kind"])
WORKERS = Gauge("oiab_queue_worker_streams", "Streams of workers that are open on this process.")

ENQUEUED = Histogram("oiab_queue_enqueue_jobs", "Jobs that shared one commit on their way in.", buckets=POWERS)
CLAIMED = Histogram("oiab_queue_claim_jobs", "Jobs that one claim took.", buckets=POWERS)
CLAIM_SECONDS = Histogram("oiab_queue_claim_seconds", "How long a claim takes.", buckets=SECONDS)
SETTLED = Histogram("oiab_queue_settle_jobs", "Settlements that shared one commit.", buckets=POWERS)
WAITED_SECONDS = Histogram(
    "oiab_queue_wait_seconds",
    "From the time at which a job could start to its lease: of the first job of each claim.",
    buckets=SECONDS,
)
ENDED = Counter("oiab_queue_ended", "Jobs that have ended or will be tried again, by what became of them.", ["state"])
LEASES_LOST = Counter("oiab_queue_leases_lost", "Leases that ended without a word of their worker.", ["how"])

STATES = ("ready", "blocked", "delayed", "leased", "dead")


def tell_stats(kinds: Iterable[KindStats]) -> None:
    """Tell how the queue stands. Kinds that are gone are forgotten."""
    JOBS.clear()
    OLDEST.clear()
    PAUSED.clear()
    for stats in kinds:
        for state in STATES:
            JOBS.labels(stats.kind, state).set(getattr(stats, state))
        OLDEST.labels(stats.kind).set(stats.oldest_age.total_seconds() if stats.oldest_age else 0)
        PAUSED.labels(stats.kind).set(stats.paused)


def tell_claim(jobs: Collection[LeasedJob], now: datetime) -> None:
    """Tell of jobs that were claimed together. The first is measured for all: there may be thousands a second."""
    CLAIMED.observe(len(jobs))
    for since in (job.waited_since for job in jobs if job.waited_since):
        WAITED_SECONDS.observe(max((now - since).total_seconds(), 0))


def tell_outcomes(states: Iterable[JobState]) -> None:
    """Tell what became of leases: the retries and the dead are among them."""
    counts: dict[JobState, int] = {}
    for state in states:
        counts[state] = counts.get(state, 0) + 1
    for state, count in counts.items():
        ENDED.labels(state.value).inc(count)
