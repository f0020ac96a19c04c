"""The policy of each method, read from the contract."""

from collections.abc import Iterable
from functools import cache

from google.protobuf import descriptor_pool
from orginabox.options.v1 import options_pb2

OPEN_SERVICES = ("grpc.health.v1.", "grpc.reflection.", "envoy.service.auth.v3.")
"""Contracts that are not ours and carry no policy: they tell nothing of a tenant, or check their callers themselves."""


@cache
def policy_of(method: str) -> options_pb2.MethodPolicy | None:
    """The policy of `/package.Service/Method`, or None for a method of somebody else's contract."""
    service, _, name = method.lstrip("/").partition("/")
    if service.startswith(OPEN_SERVICES):
        return None
    descriptor = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    return descriptor.GetOptions().Extensions[options_pb2.policy]


def require_policies(services: Iterable[str]) -> None:
    """Make sure that every method of the services has a policy.

    Raises:
        ValueError: One has none; a server with it must not start.
    """
    for service in services:
        if service.startswith(OPEN_SERVICES):
            continue
        for method in descriptor_pool.Default().FindServiceByName(service).methods:
            policy = method.GetOptions().Extensions[options_pb2.policy]
            if policy.access == options_pb2.ACCESS_UNSPECIFIED:
                raise ValueError(f"{method.full_name} has no policy in the contract")
