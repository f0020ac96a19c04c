"""Finds out who calls."""

import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orginabox.options.v1 import options_pb2

from services.kit.caller import Caller, enter, leave
from services.kit.errors import Unauthenticated
from services.kit.ids import DEFAULT_TENANT, OPERATOR
from services.kit.interceptor import Call, Layer


def single_operator(api_key: str) -> Layer:
    """The layer of the single-operator mode: one key opens everything, and its holder is the operator.

    Args:
        api_key: The key that callers bring as `Authorization: Bearer <key>`.
    """
    expected = f"Bearer {api_key}".encode()

    @asynccontextmanager
    async def layer(call: Call) -> AsyncIterator[None]:
        if call.policy is None or call.policy.access != options_pb2.ACCESS_USER:
            yield
            return
        given = call.metadata.get("authorization", "")
        if not given:
            raise Unauthenticated(
                "send the key of this box as `Authorization: Bearer <key>`; `oiab status` says where it is"
            )
        if not hmac.compare_digest(given.encode(), expected):
            raise Unauthenticated("this is not the key of this box; `oiab status` says where it is")
        token = enter(_operator(call.metadata))
        try:
            yield
        finally:
            leave(token)

    return layer


def _operator(metadata: dict[str, str]) -> Caller:
    return Caller(
        tenant_id=DEFAULT_TENANT,
        user_id=OPERATOR,
        channel=metadata.get("x-oiab-channel", "rest" if "x-envoy-original-path" in metadata else "grpc")[:32],
        ip_address=metadata.get("x-forwarded-for", "").split(",", maxsplit=1)[0].strip()[:64],
        user_agent=metadata.get("user-agent", "")[:200],
    )
