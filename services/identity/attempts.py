"""How guessing is slowed: exponential waits per account and address, and no lock that an outsider could turn for ever.

Three counters stand before the check of a password. Each attempt is counted as a failure before its password is looked
at, so that many at once gain nothing, and taken back when it was right.

- the account from this address: the guesser, and the user who mistypes;
- the address: one guesser, many accounts;
- the account from anywhere: many addresses, one account. Its waits are short, and an address from which the user has
  signed in before does not wait for it, so that strangers cannot keep a user out.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address
from uuid import UUID

from services.kit.errors import DomainError, Kind

FORGET_AFTER = timedelta(hours=24)
IPV6_SITE = 64


class TooManyAttempts(DomainError):
    """There were too many failures for this account or from this address."""

    kind = Kind.RESOURCE_EXHAUSTED
    reason = "TOO_MANY_ATTEMPTS"


@dataclass(frozen=True)
class Brake:
    """How one counter slows: so many failures are free, then the wait doubles up to the longest."""

    free: int
    longest: timedelta

    def wait(self, failures: int) -> timedelta:
        """How long the next attempt has to wait after so many failures."""
        over = failures - self.free
        if over < 0:
            return timedelta()
        return min(timedelta(seconds=2 ** min(over, 30)), self.longest)


PAIR = Brake(5, timedelta(minutes=15))
ADDRESS = Brake(50, timedelta(minutes=15))
ACCOUNT = Brake(20, timedelta(seconds=30))


@dataclass(frozen=True)
class Counter:
    """One counter, by the name under which it is kept."""

    subject: str
    brake: Brake
    resets: bool
    """Whether a right password forgets it. An address may have guessed at others before."""
    stranger_only: bool = False


def counters(tenant_id: UUID, account: str, address: str) -> tuple[Counter, ...]:
    """The counters that an attempt stands before. An account that does not exist has some, too."""
    who = _digest(f"{tenant_id}/{account}")
    found = [Counter(f"account:{who}", ACCOUNT, resets=True, stranger_only=True)]
    if site := site_of(address):
        found += [
            Counter(f"pair:{who}/{site}", PAIR, resets=True),
            Counter(f"address:{site}", ADDRESS, resets=False),
        ]
    else:
        found.append(Counter(f"pair:{who}/", PAIR, resets=True))
    return tuple(found)


def site_of(address: str) -> str:
    """What counts as one address: for IPv6 the whole network of a site. Empty when it is not known."""
    try:
        found = ip_address(address)
    except ValueError:
        return ""
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return found.exploded[: IPV6_SITE // 4 + 3]
    return str(found)


def refuse_early(wait_until: datetime | None, now: datetime) -> None:
    """Refuse an attempt before its time.

    Raises:
        TooManyAttempts: It has to wait.
    """
    if wait_until is not None and wait_until > now:
        seconds = max(1, round((wait_until - now).total_seconds()))
        raise TooManyAttempts(
            f"there were too many failures; try again in {seconds} seconds", retryAfterSeconds=seconds
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
