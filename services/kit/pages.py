"""Page sizes and page tokens, one way for every list (AIP-158)."""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from services.kit.errors import PageTokenInvalid

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 500
MAX_NUMBER = 2**62

T = TypeVar("T")


def page_size(asked: int) -> int:
    """The number of items to return: 50 when none is asked for, never more than 500."""
    return min(asked or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def page_token(cursor: Mapping[str, str | int], **filters: object) -> str:
    """A token that goes on after the cursor, and only in a list with the same filters."""
    body = json.dumps([dict(cursor), _digest(filters)], separators=(",", ":"))
    return base64.urlsafe_b64encode(body.encode()).decode().rstrip("=")


class Cursor:
    """A place in a list, as a token held it. Tokens are not signed, so each value is read as what it has to be."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def number(self, name: str) -> int:
        """A value that is a place in an order."""
        value = self._read(name, int)
        if not 0 <= value < MAX_NUMBER:
            raise _invalid()
        return value

    def text(self, name: str) -> str:
        """A value that is a text."""
        return self._read(name, str)

    def id(self, name: str) -> UUID:
        """A value that is an id."""
        return self._read(name, UUID)

    def time(self, name: str) -> datetime:
        """A value that is a time with a zone."""
        value = self._read(name, datetime.fromisoformat)
        if value.tzinfo is None:
            raise _invalid()
        return value

    def _read(self, name: str, read: Callable[[Any], T]) -> T:
        try:
            return read(self._values[name])
        except (KeyError, ValueError, TypeError, AttributeError):
            raise _invalid() from None


def page_cursor(token: str, **filters: object) -> Cursor | None:
    """The cursor inside a token, or None for the first page.

    Raises:
        PageTokenInvalid: The token was not made by this list with these filters.
    """
    if not token:
        return None
    try:
        cursor, digest = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (binascii.Error, ValueError, TypeError, RecursionError):
        raise _invalid() from None
    if digest != _digest(filters) or not isinstance(cursor, dict):
        raise _invalid()
    return Cursor(cursor)


def _invalid() -> PageTokenInvalid:
    return PageTokenInvalid("this page token belongs to another list; start again without one")


def _digest(filters: Mapping[str, object]) -> str:
    text = json.dumps({name: str(value) for name, value in filters.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
