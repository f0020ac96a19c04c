"""The single-operator mode: one key opens everything, and its holder is the operator."""

import hmac

from services.kit.caller import Caller
from services.kit.errors import Unauthenticated
from services.kit.gate import Call, Identify
from services.kit.ids import DEFAULT_TENANT, OPERATOR
from services.kit.policy import permissions


def single_operator(api_key: str) -> Identify:
    """Knows the operator by the key of the box, and nobody else.

    Args:
        api_key: The key that callers bring as `Authorization: Bearer <key>`.
    """
    expected = f"Bearer {api_key}".encode()

    async def identify(call: Call) -> Caller:
        given = call.metadata.get("authorization", "")
        if not given:
            raise Unauthenticated(
                "send the key of this box as `Authorization: Bearer <key>`; `oiab status` says where it is"
            )
        if not hmac.compare_digest(given.encode(), expected):
            raise Unauthenticated("this is not the key of this box; `oiab status` says where it is")
        return operator(call)

    return identify


def operator(call: Call) -> Caller:
    """The operator of the box as the caller of a call."""
    return Caller(
        tenant_id=DEFAULT_TENANT,
        user_id=OPERATOR,
        permissions=permissions(),
        channel=channel_of(call),
        ip_address=address_of(call),
        user_agent=call.metadata.get("user-agent", "")[:200],
    )


def channel_of(call: Call) -> str:
    """By which way a call came."""
    said = call.metadata.get("x-oiab-channel", "rest" if "x-envoy-original-path" in call.metadata else "grpc")
    return said[:32]


def address_of(call: Call) -> str:
    """The address of the client, as the edge says it. Empty when it is not known."""
    return call.metadata.get("x-forwarded-for", "").split(",", maxsplit=1)[0].strip()[:64]
