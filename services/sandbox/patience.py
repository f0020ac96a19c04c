"""How long a turn waits for what, before it ends by itself."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """Deadlines of a turn, in seconds."""

    # How long a provider may fail before the turn does.
    retries: float = 120
    # How long nothing at all may happen while no tool runs and no permission is asked.
    silence: float = 600
    # How long a permission is waited for before it is refused.
    permission: float = 1800
    # opencode says twice that it is done when something went wrong; the last of the text comes in between.
    settle: float = 0.5
    # How long opencode may take to take a prompt up.
    begin: float = 20
    # How long it may take to stop.
    abort: float = 10
