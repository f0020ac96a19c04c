"""What wakes the loops of this process at once. Each of them also looks by itself once a second."""

import asyncio
from collections.abc import Iterable

from services.queue.heads import Heads, Place


class Bell:
    """Rung after a commit, by whoever made it.

    Attributes:
        work: Jobs may be ready, or a worker can take more.
        due: A job waits for a time that may be sooner than all others.
        deadline: A job has a deadline that may be sooner than all others.
        stops: A job that a worker has was cancelled.
        others: The other Queue processes should hear of it.
        arrivals: Counts the rings for ready jobs, so that a claim that found none knows whether that still holds.
        heads: Where claims begin.
    """

    def __init__(self) -> None:
        self.heads = Heads()
        self.work = asyncio.Event()
        self.due = asyncio.Event()
        self.deadline = asyncio.Event()
        self.stops = asyncio.Event()
        self.others = asyncio.Event()
        self.arrivals = 0

    def ready(self, places: Iterable[Place] | None = None, *, here_only: bool = False) -> None:
        """Jobs may be ready: these, or nobody knows which."""
        if places is None:
            self.heads.forget()
        else:
            self.heads.came(places)
        self.arrivals += 1
        self.work.set()
        if not here_only:
            self.others.set()

    def delayed(self) -> None:
        """A job waits for a time, or has a deadline."""
        self.due.set()
        self.deadline.set()

    def cancelled(self) -> None:
        """A job that a worker has was cancelled."""
        self.stops.set()
        self.others.set()

    def look(self) -> None:
        """A second has gone by, and hints may have been lost."""
        self.ready((), here_only=True)
        self.stops.set()
        self.delayed()

    def told(self) -> None:
        """Another Queue process rang, for ready jobs or for a cancelled one."""
        self.ready(here_only=True)
        self.stops.set()
        self.delayed()
