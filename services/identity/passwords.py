"""Passwords: which are good enough, and how they are kept (argon2id) and checked."""

import asyncio
import unicodedata
from functools import partial
from itertools import pairwise
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from services.kit.errors import DomainError, Kind

LEAST = 12
AT_ONCE = 2
"""How many passwords are hashed at a time: each takes 64 MiB and a core for some 50 ms."""

_COMMON = frozenset(Path(__file__).with_name("common_passwords.txt").read_text().split())
"""What is tried first, without the digits and signs that people put around it."""


class PasswordRefused(DomainError):
    """The new password is too easy to guess."""

    kind = Kind.INVALID_ARGUMENT
    reason = "PASSWORD_REFUSED"


class CredentialsRefused(DomainError):
    """The handle or the password is wrong."""

    kind = Kind.UNAUTHENTICATED
    reason = "CREDENTIALS_REFUSED"


def refuse_weak(password: str, *names: str) -> None:
    """Refuse a password that is guessed first. Length counts, signs of some kind do not (NIST SP 800-63B).

    Args:
        password: The password.
        names: What everybody knows of its user: their handle, their mail address.

    Raises:
        PasswordRefused: It is too easy.
    """
    text = _normal(password)
    if len(text) < LEAST:
        raise PasswordRefused(f"a password has at least {LEAST} characters; take a sentence that nobody else says")
    if _bare(text) in {_bare(_normal(part)) for name in names for part in (name, name.partition("@")[0]) if part}:
        raise PasswordRefused("the password must not be the name of its user")
    if _repeats(text) or _runs(text) or _bare(text) in _COMMON:
        raise PasswordRefused("this password is among the first that are tried; take a sentence that nobody else says")


def _normal(password: str) -> str:
    return unicodedata.normalize("NFKC", password).casefold()


def _bare(text: str) -> str:
    """The text without what people put around a word to make it longer."""
    return text.strip("0123456789!?.,;:-_+*#$%&@ ") or text


def _repeats(text: str) -> bool:
    """Whether a short piece makes the whole text, again and again."""
    return any(text == (text[:size] * len(text))[: len(text)] for size in range(1, 5))


def _runs(text: str) -> bool:
    """Whether the text counts up or down."""
    steps = {ord(after) - ord(before) for before, after in pairwise(text)}
    # 1234567890 goes on with 0 after 9.
    return steps <= {1, -9} or steps <= {-1, 9}


class Passwords:
    """Hashes and checks passwords, off the event loop and a few at a time.

    Args:
        hasher: How. None means argon2id with the defaults of its library.
    """

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._turn = asyncio.Semaphore(AT_ONCE)
        # Who does not exist takes as long as who does.
        self._nobody = self._hasher.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        """What is stored of a password."""
        async with self._turn:
            return await asyncio.to_thread(self._hasher.hash, unicodedata.normalize("NFKC", password))

    async def check(self, stored: str, password: str) -> bool:
        """Whether a password is the one that was stored. Nothing stored takes as long, and is never right."""
        async with self._turn:
            right = await asyncio.to_thread(partial(self._check, stored or self._nobody, password))
        return right and bool(stored)

    def outdated(self, stored: str) -> bool:
        """Whether a password has to be hashed again, because the parameters are others now."""
        return self._hasher.check_needs_rehash(stored)

    def _check(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, unicodedata.normalize("NFKC", password))
        except (VerificationError, InvalidHashError):
            return False
