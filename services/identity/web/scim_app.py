"""SCIM 2.0 (RFC 7644): a directory brings the users and groups of its tenant."""

import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from scim2_models import (
    AuthenticationScheme,
    Bulk,
    ChangePassword,
    Context,
    Error,
    ETag,
    Filter,
    InvalidSyntaxException,
    ListResponse,
    Meta,
    Patch,
    PatchOp,
    Resource,
    ResourceType,
    Schema,
    SCIMException,
    SearchRequest,
    ServiceProviderConfig,
    Sort,
)
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.identity import scim_operations as operations
from services.identity.scim import LONGEST_PAGE, PAGE, ScimQuery, ScimTokenInvalid
from services.identity.scim_operations import Bringer
from services.identity.store import Store
from services.identity.web import scim_mapping as mapping
from services.identity.web.door import origin_of
from services.identity.web.refusals import STATUSES, RequestTooLarge
from services.identity.web.scim_mapping import TOLERANT, Group, User
from services.kit import telemetry
from services.kit.errors import DomainError, Kind
from services.kit.tenancy import as_tenant

MEDIA_TYPE = "application/scim+json"
CREATED, UNAUTHORIZED = 201, 401
USER_FILTERS = {"userName": "name", "externalId": "external_id", "id": "id", "emails.value": "email", "emails": "email"}
GROUP_FILTERS = {"displayName": "name", "externalId": "external_id", "id": "id"}
_TYPES = {Kind.ALREADY_EXISTS: "uniqueness", Kind.INVALID_ARGUMENT: "invalidValue"}

Answer = Callable[[Request, Bringer], Awaitable[Response]]


def scim_app(store: Store, base: str) -> Starlette:
    """The application.

    Args:
        store: Where users and groups are.
        base: The address of SCIM, as directories are told it.
    """
    scim = Scim(store, base)
    told = scim.told
    return Starlette(
        routes=[
            Route("/Users", told(scim.list_users), methods=["GET"]),
            Route("/Users", told(scim.create_user), methods=["POST"]),
            Route("/Users/{id}", told(scim.get_user), methods=["GET"]),
            Route("/Users/{id}", told(scim.replace_user), methods=["PUT"]),
            Route("/Users/{id}", told(scim.patch_user), methods=["PATCH"]),
            Route("/Users/{id}", told(scim.delete_user), methods=["DELETE"]),
            Route("/Groups", told(scim.list_groups), methods=["GET"]),
            Route("/Groups", told(scim.create_group), methods=["POST"]),
            Route("/Groups/{id}", told(scim.get_group), methods=["GET"]),
            Route("/Groups/{id}", told(scim.replace_group), methods=["PUT"]),
            Route("/Groups/{id}", told(scim.patch_group), methods=["PATCH"]),
            Route("/Groups/{id}", told(scim.delete_group), methods=["DELETE"]),
            Route("/ServiceProviderConfig", told(scim.config), methods=["GET"]),
            Route("/ResourceTypes", told(scim.resource_types), methods=["GET"]),
            Route("/ResourceTypes/{id}", told(scim.resource_types), methods=["GET"]),
            Route("/Schemas", told(scim.schemas), methods=["GET"]),
            Route("/Schemas/{id}", told(scim.schemas), methods=["GET"]),
        ],
        exception_handlers={
            SCIMException: _on_scim,
            ValidationError: _on_invalid,
            DomainError: _on_refusal,
            HTTPException: _on_http,
            Exception: _on_fault,
        },
    )


class Scim:
    """Answers a directory."""

    def __init__(self, store: Store, base: str) -> None:
        self._store = store
        self._base = base

    def told(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint for who comes with a token, in the scope of their tenant."""

        async def endpoint(request: Request) -> Response:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not token:
                raise ScimTokenInvalid("send the SCIM token as `Authorization: Bearer <token>`")
            by = await operations.authenticate(self._store, token.strip()[:200], origin_of(request))
            with as_tenant(by.tenant_id):
                return await answer(request, by)

        return endpoint

    async def list_users(self, request: Request, by: Bringer) -> Response:
        """A page of users."""
        search = _search(request)
        asked = mapping.query_of(search.filter, USER_FILTERS)
        if (wanted := _query(search, asked)) is None:
            return self._page([], 0, search, User)
        found, total = await operations.users(self._store, by, wanted)
        return self._page([mapping.user_to_scim(each, self._base) for each in found], total, search, User)

    async def create_user(self, request: Request, by: Bringer) -> Response:
        """Add a user."""
        said = mapping.plain_user(await _body(request))
        wanted = User.model_validate(said, scim_ctx=Context.RESOURCE_CREATION_REQUEST, scim_policy=TOLERANT)
        made = await operations.create_user(self._store, by, mapping.user_from_scim(wanted, UUID(int=0)))
        return self._one(request, mapping.user_to_scim(made, self._base), CREATED)

    async def get_user(self, request: Request, by: Bringer) -> Response:
        """One user."""
        found = await operations.user(self._store, by, _id(request))
        return self._one(request, mapping.user_to_scim(found, self._base))

    async def replace_user(self, request: Request, by: Bringer) -> Response:
        """Say anew what a user is."""
        said = mapping.plain_user(await _body(request))
        wanted = User.model_validate(said, scim_ctx=Context.RESOURCE_REPLACEMENT_REQUEST, scim_policy=TOLERANT)
        changed = await operations.change_user(
            self._store, by, _id(request), lambda found: mapping.user_from_scim(wanted, found.user_id)
        )
        return self._one(request, mapping.user_to_scim(changed, self._base))

    async def patch_user(self, request: Request, by: Bringer) -> Response:
        """Change a user."""
        patch = _patch(User, await _body(request))
        changed = await operations.change_user(
            self._store, by, _id(request), lambda found: mapping.patched_user(found, patch, self._base)
        )
        return self._one(request, mapping.user_to_scim(changed, self._base))

    async def delete_user(self, request: Request, by: Bringer) -> Response:
        """A user has left."""
        await operations.delete_user(self._store, by, _id(request))
        return Response(status_code=204)

    async def list_groups(self, request: Request, by: Bringer) -> Response:
        """A page of groups."""
        search = _search(request)
        asked = mapping.query_of(search.filter, GROUP_FILTERS)
        if (wanted := _query(search, asked)) is None:
            return self._page([], 0, search, Group)
        members = "members" not in {str(path).lower() for path in search.excluded_attributes or ()}
        found, total = await operations.groups(self._store, by, wanted, members=members)
        return self._page([mapping.group_to_scim(each, self._base) for each in found], total, search, Group)

    async def create_group(self, request: Request, by: Bringer) -> Response:
        """Add a group."""
        wanted = Group.model_validate(
            await _body(request), scim_ctx=Context.RESOURCE_CREATION_REQUEST, scim_policy=TOLERANT
        )
        made = await operations.create_group(self._store, by, mapping.group_from_scim(wanted, UUID(int=0)))
        return self._one(request, mapping.group_to_scim(made, self._base), CREATED)

    async def get_group(self, request: Request, by: Bringer) -> Response:
        """One group."""
        found = await operations.group(self._store, by, _id(request))
        return self._one(request, mapping.group_to_scim(found, self._base))

    async def replace_group(self, request: Request, by: Bringer) -> Response:
        """Say anew what a group is."""
        wanted = Group.model_validate(
            await _body(request), scim_ctx=Context.RESOURCE_REPLACEMENT_REQUEST, scim_policy=TOLERANT
        )
        changed = await operations.change_group(
            self._store, by, _id(request), lambda found: mapping.group_from_scim(wanted, found.group_id)
        )
        return self._one(request, mapping.group_to_scim(changed, self._base))

    async def patch_group(self, request: Request, by: Bringer) -> Response:
        """Change a group."""
        patch = _patch(Group, await _body(request))
        changed = await operations.change_group(
            self._store, by, _id(request), lambda found: mapping.patched_group(found, patch, self._base)
        )
        return self._one(request, mapping.group_to_scim(changed, self._base))

    async def delete_group(self, request: Request, by: Bringer) -> Response:
        """Remove a group."""
        await operations.delete_group(self._store, by, _id(request))
        return Response(status_code=204)

    async def config(self, _: Request, __: Bringer) -> Response:
        """What this service knows."""
        found = ServiceProviderConfig(
            patch=Patch(supported=True),
            bulk=Bulk(supported=False, max_operations=0, max_payload_size=0),
            filter=Filter(supported=True, max_results=LONGEST_PAGE),
            change_password=ChangePassword(supported=False),
            sort=Sort(supported=False),
            etag=ETag(supported=False),
            authentication_schemes=[
                AuthenticationScheme(
                    type=AuthenticationScheme.Type.oauthbearertoken,
                    name="SCIM token",
                    description="The token that `oiab sso scim-token` makes, as a bearer token.",
                    primary=True,
                )
            ],
            meta=_described("ServiceProviderConfig", f"{self._base}/ServiceProviderConfig"),
        )
        return _json(found.model_dump(scim_ctx=Context.RESOURCE_QUERY_RESPONSE))

    async def resource_types(self, request: Request, _: Bringer) -> Response:
        """What it keeps."""
        found = [ResourceType.from_resource(kind) for kind in (User, Group)]
        for each in found:
            each.meta = _described("ResourceType", f"{self._base}/ResourceTypes/{each.id}")
        return self._described(request, found, ResourceType)

    async def schemas(self, request: Request, _: Bringer) -> Response:
        """What it keeps of each."""
        found = [kind.to_schema() for kind in (User, Group)]
        for each in found:
            each.meta = _described("Schema", f"{self._base}/Schemas/{each.id}")
        return self._described(request, found, Schema)

    def _described(self, request: Request, found: list[Any], kind: type[Resource[Any]]) -> Response:
        if "filter" in request.query_params:
            raise HTTPException(403)
        if named := request.path_params.get("id"):
            one = next((each for each in found if str(each.id) == named), None)
            if one is None:
                raise HTTPException(404)
            return _json(one.model_dump(scim_ctx=Context.RESOURCE_QUERY_RESPONSE))
        listed = ListResponse[kind](  # type: ignore[valid-type]
            total_results=len(found), start_index=1, items_per_page=len(found), resources=found
        )
        return _json(listed.model_dump(scim_ctx=Context.RESOURCE_QUERY_RESPONSE))

    def _one(self, request: Request, found: Resource[Any], status: int = 200) -> Response:
        context = Context.RESOURCE_CREATION_RESPONSE if status == CREATED else Context.RESOURCE_QUERY_RESPONSE
        search = _search(request)
        body = found.model_dump(
            scim_ctx=context, attributes=search.attributes, excluded_attributes=search.excluded_attributes
        )
        location = str(found.meta.location) if found.meta else ""
        return _json(body, status, {"location": location} if status == CREATED else {})

    def _page(self, found: list[Any], total: int, search: SearchRequest[Any], kind: type[Resource[Any]]) -> Response:
        listed = ListResponse[kind](  # type: ignore[valid-type]
            total_results=total, start_index=search.start_index or 1, items_per_page=len(found), resources=found
        )
        body = listed.model_dump(
            scim_ctx=Context.RESOURCE_QUERY_RESPONSE,
            attributes=search.attributes,
            excluded_attributes=search.excluded_attributes,
        )
        return _json(body)


def _search(request: Request) -> SearchRequest[Any]:
    known = {"filter", "startIndex", "count", "attributes", "excludedAttributes"}
    said: dict[str, Any] = {name: value for name, value in request.query_params.items() if name in known}
    for name in ("attributes", "excludedAttributes"):
        if name in said:
            said[name] = [each.strip() for each in said[name].split(",") if each.strip()]
    return SearchRequest[Any].model_validate(said, scim_policy=TOLERANT)


def _query(search: SearchRequest[Any], asked: dict[str, Any]) -> ScimQuery | None:
    """What is asked for. None: nothing that can be."""
    if "id" in asked:
        try:
            asked["id"] = UUID(asked["id"])
        except ValueError:
            return None
    size = PAGE if search.count is None else max(0, min(search.count, LONGEST_PAGE))
    return ScimQuery(**asked, skip=min(max(0, (search.start_index or 1) - 1), 2**31 - 1), size=size)


def _patch(kind: type[Resource[Any]], said: Any) -> Any:
    plain = mapping.plain_patch(said)
    return PatchOp[kind].model_validate(  # type: ignore[valid-type]
        plain, scim_ctx=Context.RESOURCE_PATCH_REQUEST, scim_policy=TOLERANT
    )


async def _body(request: Request) -> Any:
    try:
        found = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise InvalidSyntaxException(detail="the body is no JSON") from None
    if not isinstance(found, dict):
        raise InvalidSyntaxException(detail="the body is no object")
    return found


def _id(request: Request) -> UUID:
    try:
        return UUID(request.path_params["id"])
    except ValueError:
        raise HTTPException(404) from None


def _described(kind: str, location: str) -> Meta:
    return Meta(resource_type=kind, location=location)


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(body), status, headers, MEDIA_TYPE)


def _error(status: int, detail: str, scim_type: str = "") -> Response:
    body = Error(status=status, detail=detail, scim_type=scim_type or None).model_dump()
    headers = {"www-authenticate": "Bearer"} if status == UNAUTHORIZED else {}
    return _json(body, status, headers)


async def _on_scim(_: Request, error: Exception) -> Response:
    assert isinstance(error, SCIMException)  # noqa: S101 - it is registered for these
    return _error(error.status, str(error), error.scim_type)


async def _on_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)  # noqa: S101 - the same
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    kind = str(first["type"])
    where = ".".join(str(part) for part in first["loc"])
    scim_type = kind.removeprefix("scim_") if kind.startswith("scim_") and kind != "scim_error" else "invalidValue"
    return _error(400, f"{where}: {first['msg']}" if where else first["msg"], scim_type)


async def _on_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, DomainError)  # noqa: S101 - the same
    status = 413 if isinstance(error, RequestTooLarge) else int(STATUSES[error.kind])
    return _error(status, error.message, _TYPES.get(error.kind, ""))


async def _on_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - the same
    details = {403: "this cannot be filtered", 404: "there is no such resource", 405: "this cannot be done here"}
    return _error(error.status_code, details.get(error.status_code, "the request cannot be read"))


async def _on_fault(request: Request, error: Exception) -> Response:
    telemetry.log().error("SCIM failed", path=request.url.path, exc_info=error)
    return _error(500, "something went wrong on our side")
