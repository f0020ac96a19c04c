"""Page sizes and page tokens, one way for every list (AIP-158)."""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping

from services.kit.errors import PageTokenInvalid

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 500


def page_size(asked: int) -> int:
    """The number of items to return: 50 when none is asked for, never more than 500."""
    return min(asked or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def page_token(cursor: Mapping[str, str | int], **filters: object) -> str:
    """A token that goes on after the cursor, and only in a list with the same filters."""
    body = json.dumps([dict(cursor), _digest(filters)], separators=(",", ":"))
    return base64.urlsafe_b64encode(body.encode()).decode().rstrip("=")


def page_cursor(token: str, **filters: object) -> dict[str, str | int] | None:
    """The cursor inside a token, or None for the first page.

    Raises:
        PageTokenInvalid: The token was not made by this list with these filters.
    """
    if not token:
        return None
    try:
        cursor, digest = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        fits = digest == _digest(filters) and isinstance(cursor, dict)
    except (binascii.Error, ValueError, TypeError):
        fits = False
    if not fits:
        raise PageTokenInvalid("this page token belongs to another list; start again without one")
    return {str(name): value for name, value in cursor.items() if isinstance(value, str | int)}


def _digest(filters: Mapping[str, object]) -> str:
    text = json.dumps({name: str(value) for name, value in filters.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
