"""What the load was promised and what it saw: the side of the clients, to be held against the box."""

import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

TERMINAL = frozenset({"completed", "failed", "aborted"})


@dataclass(eq=False)
class Seen:
    """What one reader saw of a turn, in the order in which it came. The lines have their keys in order."""

    lines: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def last(self) -> int:
        """The number of the last event."""
        return len(self.lines)

    @property
    def ended(self) -> bool:
        """Whether the terminal event was seen."""
        return bool(self.events) and bool(TERMINAL & set(self.events[-1]))


@dataclass(eq=False)
class Turn:
    """A prompt that was acknowledged.

    Attributes:
        text: What the agent says in the end when all goes well; empty when the load does not know.
        mark: What its tool leaves in the ledger of effects; empty when it runs none.
        may_abort: Whether the load asked for an abort.
    """

    turn_id: str
    session_id: str
    request_id: str
    text: str = ""
    mark: str = ""
    may_abort: bool = False
    acknowledged: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    readers: list[Seen] = field(default_factory=list)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events, from the reader that saw most."""
        return max(self.readers, key=lambda seen: seen.last).events if self.readers else []

    @property
    def ending(self) -> str:
        """How it ended: the name of the terminal event, with the reason of a failure; empty while there is none."""
        last = self.events[-1] if self.events else {}
        if "failed" in last:
            return str(last["failed"]["reason"]).removeprefix("ERROR_REASON_")
        return next(iter(TERMINAL & set(last)), "")


@dataclass
class Ledger:
    """All of it.

    Attributes:
        faults: When each kind of fault was injected.
        counts: What else is worth counting.
        violations: What should never have happened, as sentences.
    """

    turns: list[Turn] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    faults: list[tuple[float, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def fault(self, kind: str) -> None:
        """Note that a fault was injected now."""
        self.faults.append((time.monotonic(), kind))
        print(f"{datetime.now(UTC):%H:%M:%S} {kind}", flush=True)

    def between(self, began: float, ended: float, *kinds: str) -> bool:
        """Whether a fault of one of the kinds, or of any when none is named, was injected in that span."""
        return any(began <= at <= ended and (not kinds or kind in kinds) for at, kind in self.faults)

    def violated(self, sentence: str) -> None:
        """Note that a promise was broken."""
        self.violations.append(sentence)
        print(f"VIOLATION: {sentence}", flush=True)

    def faults_by_kind(self) -> dict[str, int]:
        """How often each kind of fault was injected."""
        return dict(sorted(Counter(kind for _, kind in self.faults).items()))
