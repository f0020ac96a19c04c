"""The policy of each method, read from the contract: who may call, what they need, what goes on record."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache
from types import MappingProxyType

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from orginabox.options.v1 import options_pb2

PERMISSIONS = "orginabox.api.v1.Permissions"
"""The message whose flags are the permissions."""


class Access(Enum):
    """Who may call a method at all."""

    PUBLIC = options_pb2.ACCESS_PUBLIC
    USER = options_pb2.ACCESS_USER
    INTERNAL = options_pb2.ACCESS_INTERNAL


@dataclass(frozen=True)
class Rule:
    """The policy of one method.

    Attributes:
        method: The method as it stands on the wire, `/package.Service/Method`.
        access: Who may call at all.
        permission: What the calling user needs. Empty: being signed in is enough.
        audit_action: The action under which a call stands on the audit record. Empty: it is not recorded.
        callers: For an internal method, the services that may call.
        names_tenant: Whether the request says in which tenant it acts.
    """

    method: str
    access: Access
    permission: str = ""
    audit_action: str = ""
    callers: frozenset[str] = frozenset()
    names_tenant: bool = False


OTHERS = MappingProxyType(
    {
        # Contracts that are not ours. The first two tell nothing of a tenant.
        "grpc.health.v1.": Rule("", Access.PUBLIC),
        "grpc.reflection.": Rule("", Access.PUBLIC),
        "envoy.service.auth.v3.": Rule("", Access.INTERNAL, callers=frozenset({"envoy"})),
    }
)


@cache
def rule_of(method: str) -> Rule:
    """The policy of `/package.Service/Method`.

    Raises:
        ValueError: It has none.
    """
    service, _, name = method.lstrip("/").partition("/")
    for package, rule in OTHERS.items():
        if service.startswith(package):
            return rule
    return _read(descriptor_pool.Default().FindServiceByName(service).methods_by_name[name])


@cache
def changes_something(method: str) -> bool:
    """Whether a call of `/package.Service/Method` may change something. One that is not known may."""
    service, _, name = method.lstrip("/").partition("/")
    try:
        found = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    except KeyError:
        return True
    return found.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS


def require_policies(services: Iterable[str]) -> None:
    """Make sure that every method of the services has a policy that can be kept.

    Raises:
        ValueError: One has none, or it makes no sense; a server with it must not start.
    """
    known = permissions()
    for service in services:
        if service.startswith(tuple(OTHERS)):
            continue
        for method in descriptor_pool.Default().FindServiceByName(service).methods:
            rule = _read(method)
            if rule.permission and rule.permission not in known:
                raise ValueError(f"{method.full_name} needs {rule.permission}, which no role can give")
            if (rule.access is Access.INTERNAL) != bool(rule.callers):
                raise ValueError(f"{method.full_name} names its callers if, and only if, it is internal")


@cache
def permissions() -> frozenset[str]:
    """The names of all permissions: the flags of the contract's `Permissions`, such as `agents.run`."""
    import orginabox.api.v1.role_pb2  # noqa: F401 - it brings the message into the pool

    return frozenset(_flags(descriptor_pool.Default().FindMessageTypeByName(PERMISSIONS)))


@cache
def sensitive_fields(message: Descriptor) -> frozenset[str]:
    """The names of a message's own fields that the contract calls secret or personal."""
    return frozenset(field.name for field in message.fields if field.GetOptions().Extensions[options_pb2.sensitive])


def _read(method: MethodDescriptor) -> Rule:
    policy = method.GetOptions().Extensions[options_pb2.policy]
    if policy.access == options_pb2.ACCESS_UNSPECIFIED:
        raise ValueError(f"{method.full_name} has no policy in the contract")
    return Rule(
        method=f"/{method.containing_service.full_name}/{method.name}",
        access=Access(policy.access),
        permission=policy.permission,
        audit_action=policy.audit_action,
        callers=frozenset(policy.callers),
        names_tenant="tenant_id" in method.input_type.fields_by_name,
    )


def _flags(message: Descriptor, path: str = "") -> Iterator[str]:
    for field in message.fields:
        if field.type == FieldDescriptor.TYPE_BOOL:
            yield f"{path}{field.name}"
        elif field.message_type is not None:
            yield from _flags(field.message_type, f"{path}{field.name}.")
