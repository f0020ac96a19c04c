"""Ids: UUIDs of version 7, which sort by the time they were made (RFC 9562)."""

import uuid

import uuid_utils.compat

DEFAULT_TENANT = uuid.UUID("00000000-0000-7000-8000-000000000001")
OPERATOR = uuid.UUID("00000000-0000-7000-8000-000000000002")


def new_id() -> uuid.UUID:
    """A new id."""
    return uuid_utils.compat.uuid7()
