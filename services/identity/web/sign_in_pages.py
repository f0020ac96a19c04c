"""The pages of signing in and out."""

import secrets

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from services.identity import federation, sign_in_operations
from services.identity.browser import CsrfRefused, cookie_in
from services.identity.identity_provider import IdentityProviderNotFound, IdentityProviderRefused
from services.identity.web.door import (
    LOGIN,
    Door,
    local_path,
    origin_of,
    page_of,
    sender_of,
)
from services.identity.web.pages import page
from services.kit.caller import Caller, as_caller
from services.kit.errors import DomainError
from services.kit.tenancy import as_tenant

SEE_OTHER = 303
LONGEST_FIELD = 1024


class SignInPages:
    """Signs people in and out in a browser."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def show(self, request: Request) -> Response:
        """The page of signing in; with a provider named, the way there."""
        query = request.query_params
        tenant, redirect = query.get("tenant", "")[:63], local_path(query.get("redirect", ""))
        if named := query.get("provider", "")[:32]:
            return await self._go(tenant, named, redirect)
        if visitor := await self._door.visitor(request):
            return RedirectResponse(redirect, SEE_OTHER) if redirect else await self._signed_in(visitor)
        return await self._form(request, tenant, redirect)

    async def submit(self, request: Request) -> Response:
        """A password is sent."""
        form = await fields_of(request)
        self._refuse_forged(request, form.get("form", ""))
        tenant, redirect = form.get("tenant", "")[:63], local_path(form.get("redirect", ""))
        try:
            pair, _ = await sign_in_operations.sign_in(
                self._door.desk, tenant, form.get("handle", ""), form.get("password", ""), "", origin_of(request)
            )
        except DomainError as refusal:
            if refusal.reason not in {"CREDENTIALS_REFUSED", "TOO_MANY_ATTEMPTS", "USER_SUSPENDED"}:
                raise
            return await self._form(request, tenant, redirect, refusal, form.get("handle", ""))
        response = RedirectResponse(redirect or LOGIN, SEE_OTHER)
        self._door.drop(response, self._door.browsers.form_cookie)
        self._door.sign_in(response, pair)
        return response

    async def come_back(self, request: Request) -> Response:
        """A browser comes back from an identity provider."""
        query, browsers = request.query_params, self._door.browsers
        state = query.get("state", "")[:200]
        step = browsers.step_cookie(state)
        secret = cookie_in(request.headers.get("cookie", ""), step)
        if error := query.get("error", ""):
            denied = error == "access_denied"
            raise IdentityProviderRefused(
                "the sign-in was cancelled" if denied else "the identity provider did not sign you in; start again"
            )
        done = await federation.end(
            self._door.federation, state, secret, query.get("code", "")[:4096], origin_of(request)
        )
        response = RedirectResponse(done.redirect or LOGIN, SEE_OTHER)
        self._door.drop(response, step)
        self._door.sign_in(response, done.pair)
        return response

    async def leave(self, request: Request) -> Response:
        """Sign out."""
        form = await fields_of(request)
        if visitor := await self._door.visitor(request):
            self._door.refuse_forged(request, visitor, form.get("csrf", ""))
            everywhere = form.get("everywhere", "") == "yes"
            with as_tenant(visitor.tenant_id), as_caller(visitor):
                await sign_in_operations.sign_out(self._door.desk.store, visitor, everywhere=everywhere)
        response = RedirectResponse(LOGIN, SEE_OTHER)
        self._door.sign_out(response)
        return response

    async def _go(self, tenant: str, named: str, redirect: str) -> Response:
        try:
            begun = await federation.begin(self._door.federation, tenant, named, redirect)
        except IdentityProviderNotFound:
            # What the refusal says elsewhere is for administrators.
            raise IdentityProviderNotFound(
                "this way of signing in does not exist any more; choose another", identityProviderId=named
            ) from None
        response = RedirectResponse(begun.address, SEE_OTHER)
        self._door.keep(response, self._door.browsers.step_cookie(begun.state), begun.secret)
        return response

    async def _form(
        self, request: Request, tenant: str, redirect: str, refusal: DomainError | None = None, handle: str = ""
    ) -> Response:
        browsers = self._door.browsers
        kept = cookie_in(request.headers.get("cookie", ""), browsers.form_cookie) or secrets.token_urlsafe(16)
        choices = await sign_in_operations.provider_choices(self._door.desk.store, tenant)
        response = page(
            "sign_in",
            401 if refusal else 200,
            providers=[
                (shown, page_of(LOGIN, provider=name, tenant=tenant, redirect=redirect)) for name, shown in choices
            ],
            tenant=tenant,
            redirect=redirect,
            handle=handle[:254],
            refusal=f"{refusal.message[:1].upper()}{refusal.message[1:]}." if refusal else "",
            proof=browsers.form_proofs(kept)[0],
            action=LOGIN,
        )
        self._door.keep(response, browsers.form_cookie, kept, 3600)
        return response

    async def _signed_in(self, visitor: Caller) -> Response:
        with as_tenant(visitor.tenant_id):
            user, tenant, _ = await sign_in_operations.me(self._door.desk.store, visitor)
        return page(
            "signed_in",
            user=user.display_name or user.handle,
            handle=user.handle,
            tenant=tenant.name,
            csrf=self._door.csrf(visitor),
            action=f"{LOGIN}/out",
        )

    def _refuse_forged(self, request: Request, proof: str) -> None:
        """Refuse a form of another site, which would sign somebody in as somebody else."""
        kept = cookie_in(request.headers.get("cookie", ""), self._door.browsers.form_cookie)
        if not kept:
            raise CsrfRefused("this page was open for too long, or the browser keeps no cookies; open it anew")
        self._door.browsers.refuse_forged(sender_of(request, proof), self._door.browsers.form_proofs(kept))


async def fields_of(request: Request) -> dict[str, str]:
    """The fields of a form, without files."""
    async with request.form(max_files=0, max_fields=16, max_part_size=8192) as form:
        return _texts(form)


def _texts(form: FormData) -> dict[str, str]:
    return {name: value[:LONGEST_FIELD] for name, value in form.items() if isinstance(value, str)}
