"""The domain on the wire, field by field."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from orginabox.api.v1 import (
    api_token_service_pb2,
    auth_service_pb2,
    role_pb2,
    tenant_service_pb2,
    user_pb2,
)

from services.identity.api_token import ApiToken
from services.identity.permissions import GROUPS, Permissions
from services.identity.role import Role
from services.identity.sign_in import SignIn, TokenPair
from services.identity.tenant import GroupRole, Tenant, TenantStatus
from services.identity.user import User, UserInvalid, UserStatus
from services.kit.ids import DEFAULT_TENANT

USER_STATUSES = {
    UserStatus.ACTIVE: user_pb2.USER_STATUS_ACTIVE,
    UserStatus.SUSPENDED: user_pb2.USER_STATUS_SUSPENDED,
    UserStatus.DEACTIVATED: user_pb2.USER_STATUS_DEACTIVATED,
}
TENANT_STATUSES = {
    TenantStatus.ACTIVE: tenant_service_pb2.TENANT_STATUS_ACTIVE,
    TenantStatus.SUSPENDED: tenant_service_pb2.TENANT_STATUS_SUSPENDED,
}
_USER_STATUSES_BY_WIRE = {wire: status for status, wire in USER_STATUSES.items()}


def user_to_proto(user: User) -> user_pb2.User:
    """A user."""
    return user_pb2.User(
        user_id=str(user.user_id),
        handle=user.handle,
        email=user.email,
        display_name=user.display_name,
        status=USER_STATUSES[user.status],
        roles=user.roles,
        identity_provider=user.identity_provider,
        sign_in_time=_time(user.sign_in_time),
        create_time=_time(user.create_time),
        update_time=_time(user.update_time),
    )


def user_from_proto(user: user_pb2.User, mask: tuple[str, ...]) -> User:
    """What somebody says of a user; only the values that can be changed count.

    Raises:
        UserInvalid: The status is to be changed, and none is named.
    """
    status = _USER_STATUSES_BY_WIRE.get(user.status)
    if status is None and ("status" in mask or user.status):
        raise UserInvalid("the new status is needed", field="user.status")
    return User(
        user_id=DEFAULT_TENANT,
        tenant_id=DEFAULT_TENANT,
        handle=user.handle,
        email=user.email,
        display_name=user.display_name,
        status=status or UserStatus.ACTIVE,
    )


def role_to_proto(role: Role) -> role_pb2.UserRole:
    """A role."""
    return role_pb2.UserRole(
        role_id=str(role.role_id),
        name=role.name,
        description=role.description,
        permissions=permissions_to_proto(role.permissions),
        built_in=role.built_in,
        create_time=_time(role.create_time),
        update_time=_time(role.update_time),
    )


def role_from_proto(role: role_pb2.UserRole) -> Role:
    """What somebody says of a role; only the values that can be changed count."""
    return Role(
        role_id=DEFAULT_TENANT,
        tenant_id=DEFAULT_TENANT,
        name=role.name,
        description=role.description,
        permissions=permissions_from_proto(role.permissions),
    )


def permissions_to_proto(permissions: Permissions) -> role_pb2.Permissions:
    """What somebody may do."""
    found = role_pb2.Permissions(
        agents=role_pb2.AgentPermissions(use_templates=sorted(permissions.templates)),
        memory=role_pb2.MemoryPermissions(),
        tools=role_pb2.ToolPermissions(
            allowed=sorted(permissions.tools_allowed), denied=sorted(permissions.tools_denied)
        ),
        admin=role_pb2.AdminPermissions(),
        cost=role_pb2.CostLimits(
            monthly_limit_usd=permissions.monthly_limit_usd,
            per_request_limit_usd=permissions.per_request_limit_usd,
        ),
    )
    for flag in permissions.flags:
        group, _, name = flag.partition(".")
        setattr(getattr(found, group), name, True)
    return found


def permissions_from_proto(permissions: role_pb2.Permissions) -> Permissions:
    """What somebody may do."""
    cost = permissions.cost
    return Permissions(
        flags=frozenset(
            f"{group}.{name}"
            for group, names in GROUPS.items()
            for name in names
            if getattr(getattr(permissions, group), name)
        ),
        templates=frozenset(permissions.agents.use_templates),
        tools_allowed=frozenset(permissions.tools.allowed),
        tools_denied=frozenset(permissions.tools.denied),
        monthly_limit_usd=cost.monthly_limit_usd if cost.HasField("monthly_limit_usd") else None,
        per_request_limit_usd=cost.per_request_limit_usd if cost.HasField("per_request_limit_usd") else None,
    )


def tenant_to_proto(tenant: Tenant) -> tenant_service_pb2.Tenant:
    """A tenant."""
    return tenant_service_pb2.Tenant(
        tenant_id=str(tenant.tenant_id),
        slug=tenant.slug,
        name=tenant.name,
        status=TENANT_STATUSES[tenant.status],
        default_role=tenant.default_role,
        group_roles=[tenant_service_pb2.GroupRole(group=each.group, role=each.role) for each in tenant.group_roles],
        create_time=_time(tenant.create_time),
    )


def tenant_from_proto(tenant: tenant_service_pb2.Tenant) -> Tenant:
    """What somebody says of a tenant; only the values that can be changed count."""
    return Tenant(
        tenant_id=DEFAULT_TENANT,
        slug="",
        name=tenant.name,
        default_role=tenant.default_role,
        group_roles=tuple(dict.fromkeys(GroupRole(each.group, each.role) for each in tenant.group_roles)),
    )


def pair_to_proto(pair: TokenPair) -> auth_service_pb2.TokenPair:
    """What a signed-in client holds."""
    return auth_service_pb2.TokenPair(
        access_token=pair.access_token,
        access_expire_time=_time(pair.access_expire_time),
        refresh_token=pair.refresh_token,
        refresh_expire_time=_time(pair.refresh_expire_time),
    )


def sign_in_to_proto(sign_in: SignIn, *, current: bool) -> auth_service_pb2.SignInRecord:
    """A sign-in."""
    return auth_service_pb2.SignInRecord(
        sign_in_id=str(sign_in.sign_in_id),
        device=sign_in.device,
        ip_address=sign_in.ip_address,
        identity_provider=sign_in.identity_provider,
        create_time=_time(sign_in.create_time),
        refresh_time=_time(sign_in.refresh_time),
        expire_time=_time(sign_in.expire_time),
        current=current,
    )


def api_token_to_proto(token: ApiToken) -> api_token_service_pb2.ApiToken:
    """An API token, without the token."""
    return api_token_service_pb2.ApiToken(
        api_token_id=str(token.api_token_id),
        name=token.name,
        scopes=sorted(token.scopes),
        prefix=token.prefix,
        create_time=_time(token.create_time),
        expire_time=_time(token.expire_time),
        last_use_time=_time(token.last_use_time),
    )


def time_from_proto(stamp: Timestamp) -> datetime:
    """A time.

    Raises:
        UserInvalid: It is outside of what a calendar knows.
    """
    try:
        return stamp.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise UserInvalid("this is no time", field="expire_time") from None


def _time(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
