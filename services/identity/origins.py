"""From where a call comes, as its metadata tell."""

from collections.abc import Mapping

from services.identity.sign_in import Origin
from services.kit.gate import address_of, channel_of
from services.kit.interceptor import Context


def origin_of(metadata: Mapping[str, str]) -> Origin:
    """From where a call comes.

    The address is `x-forwarded-for` as the edge sets it. Should a client's words ever stand in it, they come first.
    """
    return Origin(
        channel=channel_of(metadata),
        ip_address=address_of(metadata),
        user_agent=metadata.get("user-agent", "")[:200],
    )


def origin_of_context(context: Context) -> Origin:
    """From where the call of a public method comes, which has no caller."""
    return origin_of({key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)})
