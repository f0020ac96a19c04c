"""Users and groups on SCIM's wire (RFC 7643), and the dialects of Entra ID and Okta."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field
from scim2_models import (
    URN,
    CaseExact,
    ComplexAttribute,
    ExtensibleStringEnum,
    InvalidFilterException,
    InvalidValueException,
    Meta,
    Mutability,
    PatchOp,
    Reference,
    Required,
    Resource,
    Returned,
    ScimFilter,
    ScimPolicy,
    Uniqueness,
)
from scim2_models.path.expressions import (
    CompareOperator,
    Comparison,
    FilterNode,
    LogicalExpr,
    LogicalOperator,
    ValuePath,
)

from services.identity.scim import ScimGroup, ScimMember, ScimUser

TOLERANT = ScimPolicy(
    unknown=ScimPolicy.Unknown.ignore,  # directories send whatever they have been told to
    remove_value_as_filter=ScimPolicy.RemoveValue.apply,  # Entra ID
    unmatched_path_filter=ScimPolicy.UnmatchedPathFilter.create,  # Entra ID
)
MOST_TERMS = 8


class Email(ComplexAttribute):
    """A mail address. One is kept, and it is that of work."""

    class Type(ExtensibleStringEnum):
        """What it is for."""

        work = "work"

    value: Annotated[str | None, Required.true] = None
    type: Type | None = None


class Membership(ComplexAttribute):
    """A group that a user is in."""

    value: Annotated[str | None, Mutability.read_only] = None
    display: Annotated[str | None, Mutability.read_only] = None


class Member(ComplexAttribute):
    """A user who is in a group."""

    value: Annotated[str | None, Mutability.immutable, CaseExact.true] = None
    ref: Annotated[Reference["User"] | None, Mutability.immutable] = Field(
        None, serialization_alias="$ref", validation_alias="$ref"
    )


class User(Resource[Any]):
    """A user, with what is kept of them."""

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:User")

    user_name: Annotated[str | None, Uniqueness.server, Required.true, Returned.always] = None
    display_name: str | None = None
    emails: list[Email] | None = None
    active: Annotated[bool | None, Required.true] = None
    groups: Annotated[list[Membership] | None, Mutability.read_only] = None


class Group(Resource[Any]):
    """A group."""

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:Group")

    display_name: Annotated[str | None, Required.true, Uniqueness.server] = None
    members: list[Member] | None = None


def user_to_scim(user: ScimUser, base: str) -> User:
    """A user."""
    return User(
        id=str(user.user_id),
        external_id=user.external_id or None,
        user_name=user.handle,
        display_name=user.display_name if user.display_name != user.handle else None,
        emails=[Email(value=user.email, type=Email.Type.work)] if user.email else None,
        active=user.active,
        groups=[Membership(value=str(each.id), display=each.name) for each in user.groups] or None,
        meta=_meta("User", f"{base}/Users/{user.user_id}", user.create_time, user.update_time),
    )


def user_from_scim(user: User, user_id: UUID) -> ScimUser:
    """What is said of a user."""
    mail = next((each.value for each in user.emails or () if each.value), None)
    return ScimUser(
        user_id=user_id,
        handle=(user.user_name or "").strip().lower(),
        email=mail or "",
        display_name=(user.display_name or "").strip(),
        active=user.active is not False,
        external_id=user.external_id or "",
    )


def group_to_scim(group: ScimGroup, base: str) -> Group:
    """A group."""
    return Group(
        id=str(group.group_id),
        external_id=group.external_id or None,
        display_name=group.name,
        members=[Member(value=str(each.id), ref=Reference["User"](f"{base}/Users/{each.id}")) for each in group.members]
        or None,
        meta=_meta("Group", f"{base}/Groups/{group.group_id}", group.create_time, group.update_time),
    )


def group_from_scim(group: Group, group_id: UUID) -> ScimGroup:
    """What is said of a group."""
    return ScimGroup(
        group_id=group_id,
        name=(group.display_name or "").strip(),
        external_id=group.external_id or "",
        members=tuple(ScimMember(_member_id(each)) for each in group.members or ()),
    )


def patched_user(user: ScimUser, patch: PatchOp[User], base: str) -> ScimUser:
    """A user after a PATCH."""
    resource = user_to_scim(user, base)
    patch.patch(resource, TOLERANT)
    return user_from_scim(resource, user.user_id)


def patched_group(group: ScimGroup, patch: PatchOp[Group], base: str) -> ScimGroup:
    """A group after a PATCH."""
    resource = group_to_scim(group, base)
    patch.patch(resource, TOLERANT)
    return group_from_scim(resource, group.group_id)


def whole_user(said: Any) -> Any:
    """What a directory says of a user, who is active unless it says otherwise."""
    if isinstance(said, dict):
        active = _member(said, "active")
        said = {name: value for name, value in said.items() if name.lower() != "active"}
        said["active"] = True if active is None else _truth(active)
    return plain_user(said)


def says_active(said: Any) -> bool:
    """Whether a directory says if a user is active."""
    return isinstance(said, dict) and _member(said, "active") is not None


def plain_user(said: Any) -> Any:
    """What a directory says of a user, with the name to show where we look for it, and the first mail address first."""
    if isinstance(said, dict) and isinstance(mails := _member(said, "emails"), list):
        first = sorted(mails, key=lambda each: not (isinstance(each, dict) and _member(each, "primary") is True))
        said = {name: first if name.lower() == "emails" else value for name, value in said.items()}
    if isinstance(said, dict) and not _member(said, "displayName") and isinstance(name := _member(said, "name"), dict):
        parts = [_member(name, "givenName"), _member(name, "familyName")]
        shown = _member(name, "formatted") or " ".join(part for part in parts if isinstance(part, str))
        return {**said, "displayName": shown} if shown else said
    return said


def plain_patch(said: Any) -> Any:
    """A PATCH as the standard has it, of what Entra ID and Okta send.

    Entra ID writes truth as the words "True" and "False"; both name attributes that we do not keep.
    """
    operations = _member(said, "Operations") if isinstance(said, dict) else None
    if not isinstance(operations, list):
        return said
    found = [_plain_operation(each) for each in operations]
    kept = {name: value for name, value in said.items() if name.lower() != "operations"}
    return {**kept, "Operations": [each for each in found if each is not None]}


def query_of(filters: ScimFilter[Any] | None, names: Mapping[str, str]) -> dict[str, Any]:
    """What a filter asks for, by the fields of a query.

    Args:
        filters: The filter.
        names: Which attribute is which field.

    Raises:
        InvalidFilterException: It asks for something else.
    """
    if filters is None:
        return {}
    found: dict[str, Any] = {}
    fields = {name.lower(): field for name, field in names.items()}
    for path, value in _terms(filters.ast, 0):
        field = fields.get(path.lower())
        if field is None or not isinstance(value, str) or field in found:
            raise InvalidFilterException(detail=f"filter by {', '.join(names)} with eq, joined by and")
        found[field] = value
    return found


def _terms(node: FilterNode, depth: int, prefix: str = "") -> list[tuple[str, Any]]:
    match node:
        case Comparison() if node.op is CompareOperator.eq:
            path = node.attr_path
            return [(f"{prefix}{path.attr}" + (f".{path.sub_attr}" if path.sub_attr else ""), node.value)]
        case LogicalExpr() if node.op is LogicalOperator.and_ and depth < MOST_TERMS:
            return [term for each in node.terms for term in _terms(each, depth + 1, prefix)]
        case ValuePath() if depth < MOST_TERMS:
            inner = _terms(node.val_filter, depth + 1, f"{node.attr_path.attr}.")
            return [term for term in inner if (term[0].lower(), term[1]) != ("emails.type", "work")]
    raise InvalidFilterException(detail="only eq can be asked for, joined by and")


def _plain_operation(said: Any) -> Any:
    if not isinstance(said, dict):
        return said
    path, value = _member(said, "path"), _member(said, "value")
    if isinstance(path, str) and path.lower() == "active":
        return _with_value(said, _truth(value))
    if isinstance(path, str) and path.lower() == "name.formatted":
        return {**_with_value(said, value), "path": "displayName"}
    if isinstance(value, dict) and not path:
        plain = plain_user({name: _truth(each) if name.lower() == "active" else each for name, each in value.items()})
        return _with_value(said, plain)
    return said


def _with_value(said: dict[str, Any], value: Any) -> dict[str, Any]:
    return {name: value if name.lower() == "value" else each for name, each in said.items()}


def _truth(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 1:
        value = value[0].get("value") if isinstance(value[0], dict) else value[0]
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    return value


def _member(said: dict[str, Any], name: str) -> Any:
    return next((value for each, value in said.items() if each.lower() == name.lower()), None)


def _member_id(member: Member) -> UUID:
    named = member.value or str(member.ref or "").rpartition("/")[2]
    try:
        return UUID(named)
    except ValueError:
        raise InvalidValueException(detail="a member is named by the id of a user") from None


def _meta(kind: str, location: str, made: datetime | None, changed: datetime | None) -> Meta:
    return Meta(resource_type=kind, created=made, last_modified=changed, location=location)
