"""How the places of a master key are asked over the network: in a thread, within a deadline, saying little of failures.

The SDKs block, and they try again by themselves. What they raise may hold what was sent to them, so of a failure only
its kind and its code are told.
"""

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from services.kit import telemetry
from services.kit.errors import DomainError
from services.kit.keyring.errors import KeyringDenied, KeyringMismatch, KeyringUnavailable

T = TypeVar("T")

CONNECT_SECONDS = 3.0
READ_SECONDS = 5.0
TRIES = 3
DEADLINE_SECONDS = 20.0
"""Longer than all tries together, in which the SDK gives up by itself and says why."""

_WORKERS = 4
_CODE = re.compile(r"[A-Za-z0-9_. -]{1,64}")


class Remote:
    """One place of master keys, asked a few calls at a time."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self._threads = ThreadPoolExecutor(_WORKERS, thread_name_prefix=f"keyring-{backend}")

    async def ask(self, call: Callable[[], T]) -> T:
        """Make a blocking call.

        Raises:
            KeyringUnavailable: It did not end in time.
        """
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except TimeoutError:
            raise self.refusal(KeyringUnavailable, "timeout") from None

    def refusal(self, kind: type[DomainError], code: str) -> DomainError:
        """What a failure means here, without what the SDK said of it.

        Args:
            kind: What it means.
            code: The vendor's name for it.
        """
        code = code if _CODE.fullmatch(code) else "unknown"
        telemetry.log().warning("the master key was not used", backend=self.backend, reason=kind.reason, code=code)
        return kind(_SENTENCES[kind].format(backend=self.backend, code=code), backend=self.backend, code=code)


_SENTENCES: dict[type[DomainError], str] = {
    KeyringUnavailable: "the service that holds the master key ({backend}) does not answer ({code}); try again",
    KeyringDenied: "the service that holds the master key ({backend}) refuses to use it ({code}); "
    "see that the key is there and enabled, and that this process may use it",
    KeyringMismatch: "the service that holds the master key ({backend}) cannot open a data key ({code}); "
    "it was wrapped by another key or for another record, or was changed",
}
