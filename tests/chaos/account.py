"""What jobs were promised and what was seen of them: the rules of the queue, judged from the side of its callers.

Nothing here speaks to anybody, so that each rule can be shown a broken promise.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.chaos.ledger import Ledger

EARLY_SECONDS = 0.05
"""How much two clocks of one machine may differ."""
LATE_SECONDS = 1.5
"""The second that is promised, and half of one for a busy machine."""
HEARTBEAT_SECONDS = 5.0
"""How long a worker may not know that its job was cancelled, while nothing is wrong."""
NEVER = -1


@dataclass
class Account:
    """What was put in, and what became of it.

    Attributes:
        due: When a delayed job may start, by the clock of the wall.
        doomed: Jobs that never leave an effect: they always fail, or run until they are cancelled.
        cancelled: Jobs that were cancelled, with the attempt that was running: a later one must not begin.
        by_key: The jobs of each key in the order in which they were acknowledged.
        started: How often each job has started.
    """

    ledger: Ledger
    concurrency: int
    acknowledged: list[str] = field(default_factory=list)
    due: dict[str, float] = field(default_factory=dict)
    doomed: set[str] = field(default_factory=set)
    cancelled: dict[str, int] = field(default_factory=dict)
    by_key: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    started: Counter[str] = field(default_factory=Counter)
    running: int = 0

    def acknowledge(self, *job_ids: str) -> str:
        """One intent was acknowledged, perhaps several times. Returns its job."""
        if len(set(job_ids)) != 1:
            self.ledger.violated(f"I2: one idempotency key became the jobs {', '.join(job_ids)}")
        self.acknowledged.append(job_ids[0])
        return job_ids[0]

    def cancel(self, job_id: str, *, leased: bool, attempt: int) -> None:
        """A cancellation was acknowledged: before a worker had the job, or while one has it."""
        self.cancelled[job_id] = attempt if leased else NEVER
        if leased:
            self.ledger.counts["jobs cancelled while leased"] += 1
        elif not self.started[job_id]:
            self.ledger.counts["jobs cancelled before their claim"] += 1

    def start(self, job_id: str, attempt: int, now: float | None = None) -> None:
        """A job begins to run."""
        now = time.time() if now is None else now
        if now < self.due.get(job_id, 0) - EARLY_SECONDS:
            self.ledger.violated(f"I8: job {job_id} started before its time")
        if attempt > self.cancelled.get(job_id, attempt) and not self._lost_claims():
            self.ledger.violated(f"I10: job {job_id} ran although it was cancelled")
        self.started[job_id] += 1

    def _lost_claims(self) -> bool:
        """Whether claims that were not on disk yet may just have been undone, with their jobs already on the way."""
        now = time.monotonic()
        return self.ledger.between(now - 5, now, "immediate stop of postgres")

    def run(self) -> None:
        """One more runs now."""
        self.running += 1
        if self.running > self.concurrency:
            self.ledger.violated(f"I11: {self.running} jobs run at once, and {self.concurrency} were asked for")

    def stopped(self, job_id: str, seconds: float, *, told: bool, calm: bool) -> None:
        """A job that was cancelled stopped so long after: its worker was told, or lost the lease.

        While something is wrong that may be so, and may be late.
        """
        self.ledger.counts["workers told of a cancellation"] += told
        if not calm:
            return
        self._slowest("slowest word of a cancellation in calm, ms", seconds)
        if seconds > HEARTBEAT_SECONDS or not told:
            how = "was told to stop" if told else "lost the job, which was cancelled,"
            self.ledger.violated(f"I10: the worker of job {job_id} {how} after {seconds:.1f} s")

    def late(self, job_id: str, seconds: float) -> None:
        """A delayed job started so long after its time, with nothing wrong."""
        self._slowest("slowest start of a delayed job in calm, ms", seconds)
        if seconds > LATE_SECONDS:
            self.ledger.violated(f"I8: job {job_id} started {seconds:.1f} s after its time")

    def stale(self, job_id: str, answer: str) -> None:
        """A worker settled a job by a lease that another has by now."""
        if answer == "lease_ended":
            self.ledger.counts["stale tokens refused"] += 1
        else:
            self.ledger.violated(f"I3: a stale token was answered with {answer}, for job {job_id}")

    def unheard(self, job_id: str) -> None:
        """A job was not done while nobody could send a NOTIFY."""
        self.ledger.violated(f"I12: job {job_id} was not done while NOTIFY was disabled")

    def check(self, effects: Sequence[tuple[str, str]]) -> None:
        """Hold the effects, in their order, against what was acknowledged."""
        done = {job_id for job_id, _ in effects}
        if len(done) != len(effects):
            self.ledger.violated("I5: an effect was left twice")
        if lost := set(self.acknowledged) - self.doomed - self.cancelled.keys() - done:
            self.ledger.violated(f"I1: {len(lost)} acknowledged jobs left no effect, such as {min(lost)}")
        if ghosts := done & self.doomed:
            self.ledger.violated(f"I5: {len(ghosts)} jobs that had to fail left an effect, such as {min(ghosts)}")
        never = {job_id for job_id, attempt in self.cancelled.items() if attempt == NEVER and not self.started[job_id]}
        if ghosts := done & never:
            self.ledger.violated(f"I10: {len(ghosts)} cancelled jobs left an effect, such as {min(ghosts)}")
        for key, jobs in self.by_key.items():
            known = set(jobs)
            if (order := [job_id for job_id, of in effects if of == key and job_id in known]) != jobs:
                self.ledger.violated(f"I4: the jobs of {key} were not done in their order: {order} is not {jobs}")

    def check_ticks(self, name: str, ticks: Iterable[str], fires: Iterable[str], pending: Iterable[str] = ()) -> None:
        """Hold the jobs of a schedule against its ticks. One that has just come may have fired, or not yet."""
        want, have = Counter(ticks), Counter(fires)
        if twice := [tick for tick, count in have.items() if count > 1]:
            self.ledger.violated(f"I9: schedule {name} fired more than once at {', '.join(sorted(twice)[:3])}")
        if missed := want.keys() - have.keys():
            self.ledger.violated(f"I9: schedule {name} did not fire at {', '.join(sorted(missed)[:3])}")
        if extra := have.keys() - want.keys() - set(pending):
            self.ledger.violated(f"I9: schedule {name} fired at {', '.join(sorted(extra)[:3])}, which is no tick")

    def _slowest(self, what: str, seconds: float) -> None:
        self.ledger.counts[what] = max(self.ledger.counts[what], round(seconds * 1000))
