"""Fairness: the virtual time at which each job is to be served, by the weight of its tenant.

A tenant's jobs are one step apart, and never earlier than what is served now. So whoever has waited for nothing comes
next, however much another has put in before, and nobody saves up for later. The steps of a tenant with twice the weight
are half as long.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from services.queue.job import NewJob

STEP = 1_000_000
NOBODY = UUID(int=0)

Stride = tuple[str, int]
"""Kind and priority: what is in one order of virtual times."""


@dataclass(frozen=True, slots=True)
class TenantShare:
    """What a tenant gets of the queue.

    Attributes:
        weight: How much it gets beside others.
        max_in_flight: How many of its jobs may run at once; 0 means without limit.
        lane: The number under which its jobs wait while it has a limit.
    """

    tenant_id: UUID
    weight: int = 1
    max_in_flight: int = 0
    lane: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a tenant has come; nobody's mark is what is served now."""

    kind: str
    priority: int
    tenant_id: UUID
    vt: int


class Pace:
    """The virtual times as this process knows them."""

    def __init__(self) -> None:
        self._now: dict[Stride, int] = {}
        self._last: dict[tuple[Stride, UUID], int] = {}
        self._moved: set[tuple[Stride, UUID]] = set()
        self._steps: dict[UUID, int] = {}
        self.lanes: frozenset[int] = frozenset()

    def share(self, shares: Iterable[TenantShare]) -> None:
        """Take the shares of the tenants in."""
        known = list(shares)
        self._steps = {share.tenant_id: STEP // share.weight for share in known}
        self.lanes = frozenset(share.lane for share in known if share.max_in_flight)

    def stamp(self, job: NewJob) -> int:
        """The time at which a new job is to be served."""
        stride = (job.kind, job.priority)
        place = (stride, job.tenant_id)
        vt = max(self._now.get(stride, 0), self._last.get(place, 0)) + self._steps.get(job.tenant_id, STEP)
        self._last[place] = vt
        self._moved.add(place)
        return vt

    def served(self, served: Mapping[Stride, int]) -> None:
        """Jobs up to these virtual times are served now."""
        for stride, vt in served.items():
            if vt > self._now.get(stride, 0):
                self._now[stride] = vt
                self._moved.add((stride, NOBODY))

    def moved(self) -> list[Mark]:
        """What has moved since the last call."""
        moved = [self._mark(stride, tenant_id) for stride, tenant_id in self._moved]
        self._moved.clear()
        return moved

    def heard(self, marks: Collection[Mark]) -> None:
        """Take in how far other processes have come, or an earlier life of this one. Forgets what is behind."""
        for mark in marks:
            stride = (mark.kind, mark.priority)
            if mark.tenant_id == NOBODY:
                self._now[stride] = max(self._now.get(stride, 0), mark.vt)
            else:
                place = (stride, mark.tenant_id)
                self._last[place] = max(self._last.get(place, 0), mark.vt)
        for place in [place for place, vt in self._last.items() if vt <= self._now.get(place[0], 0)]:
            del self._last[place]

    def _mark(self, stride: Stride, tenant_id: UUID) -> Mark:
        vt = self._now.get(stride, 0) if tenant_id == NOBODY else self._last.get((stride, tenant_id), 0)
        return Mark(*stride, tenant_id, vt)
