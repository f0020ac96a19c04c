"""SCIM 2.0 (RFC 7644): a directory brings the users and groups of its tenant."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from scim2_models import (
    AuthenticationScheme,
    Bulk,
    ChangePassword,
    Context,
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
from services.identity.scim import LONGEST_PAGE, PAGE, ScimQuery, ScimTokenInvalid, ScimUser
from services.identity.scim_operations import Bringer
from services.identity.store import Store
from services.identity.web import scim_mapping as mapping
from services.identity.web.door import origin_of
from services.identity.web.scim_mapping import TOLERANT, Group, User
from services.identity.web.scim_refusals import on_fault, on_http, on_invalid, on_refusal, on_scim, scim_json
from services.kit.errors import DomainError
from services.kit.tenancy import as_tenant

CREATED = 201
USER_FILTERS = {"userName": "name", "externalId": "external_id", "id": "id", "emails.value": "email", "emails": "email"}
GROUP_FILTERS = {"displayName": "name", "externalId": "external_id", "id": "id"}

FOREIGN = "foreign"
Names = Mapping[str, str]
NONE: Names = {}
Search = SearchRequest[Any]
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
            Route("/.search", told(scim.search), methods=["POST"]),
            Route("/Users", told(scim.list_users), methods=["GET"]),
            Route("/Users", told(scim.create_user), methods=["POST"]),
            Route("/Users/.search", told(scim.list_users), methods=["POST"]),
            Route("/Users/{id}", told(scim.get_user), methods=["GET"]),
            Route("/Users/{id}", told(scim.replace_user), methods=["PUT"]),
            Route("/Users/{id}", told(scim.patch_user), methods=["PATCH"]),
            Route("/Users/{id}", told(scim.delete_user), methods=["DELETE"]),
            Route("/Groups", told(scim.list_groups), methods=["GET"]),
            Route("/Groups", told(scim.create_group), methods=["POST"]),
            Route("/Groups/.search", told(scim.list_groups), methods=["POST"]),
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
            SCIMException: on_scim,
            ValidationError: on_invalid,
            DomainError: on_refusal,
            HTTPException: on_http,
            Exception: on_fault,
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

    async def search(self, request: Request, by: Bringer) -> Response:
        """A page of users and, after them, groups. An attribute that a kind has not is true of none of that kind."""
        search = await _asked(request)
        users = await self._users(by, search, foreign=GROUP_FILTERS)
        start = max(1, search.start_index or 1)
        rest = search.model_copy(update={"start_index": max(1, start - users[1])})
        left = (PAGE if search.count is None else search.count) - len(users[0])
        groups = await self._groups(by, rest.model_copy(update={"count": max(0, left)}), foreign=USER_FILTERS)
        return self._page([*users[0], *groups[0]], users[1] + groups[1], search, User | Group)

    async def list_users(self, request: Request, by: Bringer) -> Response:
        """A page of users."""
        search = await _asked(request)
        found, total = await self._users(by, search)
        return self._page(found, total, search, User)

    async def create_user(self, request: Request, by: Bringer) -> Response:
        """Add a user."""
        said = mapping.whole_user(await _body(request))
        wanted = User.model_validate(said, scim_ctx=Context.RESOURCE_CREATION_REQUEST, scim_policy=TOLERANT)
        made = await operations.create_user(self._store, by, mapping.user_from_scim(wanted, UUID(int=0)))
        return self._one(request, mapping.user_to_scim(made, self._base), CREATED)

    async def get_user(self, request: Request, by: Bringer) -> Response:
        """One user."""
        found = await operations.user(self._store, by, _id(request))
        return self._one(request, mapping.user_to_scim(found, self._base))

    async def replace_user(self, request: Request, by: Bringer) -> Response:
        """Say anew what a user is."""
        said = await _body(request)
        wanted = User.model_validate(
            mapping.whole_user(said), scim_ctx=Context.RESOURCE_REPLACEMENT_REQUEST, scim_policy=TOLERANT
        )

        def change(found: ScimUser) -> ScimUser:
            after = mapping.user_from_scim(wanted, found.user_id)
            # Who was turned off is not turned on by a program that does not speak of it.
            return after if mapping.says_active(said) else replace(after, active=found.active)

        changed = await operations.change_user(self._store, by, _id(request), change)
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
        search = await _asked(request)
        found, total = await self._groups(by, search)
        return self._page(found, total, search, Group)

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
        return scim_json(found.model_dump(scim_ctx=Context.RESOURCE_QUERY_RESPONSE))

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

    async def _users(self, by: Bringer, search: Search, foreign: Names = NONE) -> tuple[list[User], int]:
        wanted = _query(search, USER_FILTERS, foreign)
        found, total = await operations.users(self._store, by, wanted) if wanted else ([], 0)
        return [mapping.user_to_scim(each, self._base) for each in found], total

    async def _groups(self, by: Bringer, search: Search, foreign: Names = NONE) -> tuple[list[Group], int]:
        wanted = _query(search, GROUP_FILTERS, foreign)
        members = "members" not in {str(path).lower() for path in search.excluded_attributes or ()}
        found, total = await operations.groups(self._store, by, wanted, members=members) if wanted else ([], 0)
        return [mapping.group_to_scim(each, self._base) for each in found], total

    def _described(self, request: Request, found: list[Any], kind: type[Resource[Any]]) -> Response:
        if "filter" in request.query_params:
            raise HTTPException(403)
        if named := request.path_params.get("id"):
            one = next((each for each in found if str(each.id) == named), None)
            if one is None:
                raise HTTPException(404)
            return scim_json(one.model_dump(scim_ctx=Context.RESOURCE_QUERY_RESPONSE))
        listed = ListResponse[kind](  # type: ignore[valid-type]
            total_results=len(found), start_index=1, items_per_page=len(found), resources=found
        )
        return scim_json(listed.model_dump(scim_ctx=Context.RESOURCE_QUERY_RESPONSE))

    def _one(self, request: Request, found: Resource[Any], status: int = 200) -> Response:
        context = Context.RESOURCE_CREATION_RESPONSE if status == CREATED else Context.RESOURCE_QUERY_RESPONSE
        search = _search(request)
        body = found.model_dump(scim_ctx=context, response_parameters=search)
        location = str(found.meta.location) if found.meta else ""
        return scim_json(body, status, {"location": location} if status == CREATED else {})

    def _page(self, found: list[Any], total: int, search: Search, kind: Any) -> Response:
        listed = ListResponse[kind](
            total_results=total, start_index=search.start_index or 1, items_per_page=len(found), resources=found
        )
        body = listed.model_dump(scim_ctx=Context.RESOURCE_QUERY_RESPONSE, response_parameters=search)
        return scim_json(body)


def _search(request: Request) -> SearchRequest[Any]:
    known = {"filter", "startIndex", "count", "attributes", "excludedAttributes"}
    said: dict[str, Any] = {name: value for name, value in request.query_params.items() if name in known}
    for name in ("attributes", "excludedAttributes"):
        if name in said:
            said[name] = [each.strip() for each in said[name].split(",") if each.strip()]
    return SearchRequest[Any].model_validate(said, scim_policy=TOLERANT)


async def _asked(request: Request) -> SearchRequest[Any]:
    """What is searched for, by the address or, where that would be too long, by the body."""
    if request.method == "GET":
        return _search(request)
    return SearchRequest[Any].model_validate(
        await _body(request), scim_ctx=Context.SEARCH_REQUEST, scim_policy=TOLERANT
    )


def _query(search: Search, names: Names, foreign: Names = NONE) -> ScimQuery | None:
    """What is asked for. None: nothing that can be."""
    others = {name: FOREIGN for name in foreign if name not in names}
    asked = mapping.query_of(search.filter, {**names, **others})
    if FOREIGN in asked:
        return None
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
        json.dumps(found, ensure_ascii=False).encode()  # halves of characters are no text, though JSON can name them
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
