"""How long a turn may take, and how long it waits for what before it ends by itself."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """Deadlines of a turn, in seconds."""

    # How long a provider may fail before the turn does.
    retries: float = 120
    # How long nothing at all may happen while no tool runs and no permission is asked.
    silence: float = 600
    # How long a permission is waited for before the agent has to go on without it; 0 means for ever.
    permission: float = 0
    # After how much work the agent is told to wrap up, and after how much the turn is stopped.
    soft_limit: float = 3000
    hard_limit: float = 3600
    # opencode says twice that it is done when something went wrong; the last of the text comes in between.
    settle: float = 0.5
    # How long opencode may take to take a prompt up.
    begin: float = 20
    # How long it may take to stop.
    abort: float = 10


class TurnClock:
    """How long a turn has worked. While it waits for its user the clock stands still."""

    def __init__(self, now: float) -> None:
        self._worked = 0.0
        self._since: float | None = now

    def wait(self, waits: bool, now: float) -> None:
        """Whether the turn waits for its user from now on."""
        if waits and self._since is not None:
            self._worked += now - self._since
            self._since = None
        elif not waits and self._since is None:
            self._since = now

    def worked(self, now: float) -> float:
        """The seconds of work until now."""
        return self._worked + (now - self._since if self._since is not None else 0.0)
