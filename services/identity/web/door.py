"""What the pages work with, and what every one of them asks of a request."""

from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from services.identity.authenticator import Authenticator, Credentials
from services.identity.browser import CSRF_HEADER, Browsers, BrowserSession, Sender
from services.identity.federation import Federation
from services.identity.sign_in import Origin, TokenPair
from services.identity.sign_in_operations import Desk
from services.kit.caller import Caller
from services.kit.errors import DomainError

LOGIN, CALLBACK, DEVICE = "/v1/auth/login", "/v1/auth/callback", "/v1/auth/device/page"
LONGEST_REDIRECT = 1024
STEP_SECONDS = 600


@dataclass(frozen=True)
class Door:
    """What the pages work with."""

    authenticator: Authenticator
    desk: Desk
    federation: Federation
    browsers: Browsers

    async def visitor(self, request: Request) -> Caller | None:
        """Who is signed in in this browser, if somebody is."""
        cookies = request.headers.get("cookie", "")
        if not self.browsers.session_in(cookies):
            return None
        try:
            return await self.authenticator.authenticate(Credentials("", origin_of(request), cookies, unsafe=False))
        except DomainError:
            return None

    def refuse_forged(self, request: Request, visitor: Caller, proof: str) -> None:
        """Refuse a form that another site has sent.

        Raises:
            CsrfRefused: It has.
        """
        expected = self.browsers.csrf_proofs(visitor.sign_in_id) if visitor.sign_in_id else ()
        self.browsers.refuse_forged(sender_of(request, proof), expected)

    def csrf(self, visitor: Caller) -> str:
        """What a form of a page proves where it comes from."""
        return self.browsers.csrf(visitor.sign_in_id) if visitor.sign_in_id else ""

    def sign_in(self, response: Response, pair: TokenPair) -> None:
        """Let the browser keep that it is signed in."""
        claims = self.desk.issuer.claims_of(pair)
        session = BrowserSession(claims.tenant_id, claims.user_id, claims.sign_in_id, pair.refresh_expire_time)
        until = pair.refresh_expire_time
        self._set(response, self.browsers.session_cookie, self.browsers.seal(session), expires=until)
        csrf = self.browsers.csrf(claims.sign_in_id)
        self._set(response, self.browsers.csrf_cookie, csrf, expires=until, httponly=False)

    def sign_out(self, response: Response) -> None:
        """Let the browser forget that it was signed in."""
        self.drop(response, self.browsers.session_cookie)
        self.drop(response, self.browsers.csrf_cookie)

    def keep(self, response: Response, name: str, value: str, seconds: int = STEP_SECONDS) -> None:
        """Let the browser keep something for a moment, that no script reads."""
        self._set(response, name, value, max_age=seconds)

    def drop(self, response: Response, name: str) -> None:
        """Let the browser forget something."""
        self._set(response, name, "", max_age=0)

    def _set(self, response: Response, name: str, value: str, *, httponly: bool = True, **more: object) -> None:
        response.set_cookie(
            name,
            value,
            path="/",
            secure=self.browsers.secure,
            httponly=httponly,
            samesite="lax",
            **more,  # type: ignore[arg-type]
        )


def origin_of(request: Request) -> Origin:
    """From where a request comes. The last address is the one that the edge has added."""
    address = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    return Origin("web", address[:64], request.headers.get("user-agent", "")[:200])


def sender_of(request: Request, proof: str = "") -> Sender:
    """What a browser says of the page that makes a request."""
    headers = request.headers
    return Sender(headers.get("origin", ""), headers.get("sec-fetch-site", ""), proof or headers.get(CSRF_HEADER, ""))


def local_path(wanted: str) -> str:
    """Where somebody wants to go after signing in, if that is a page of ours. Empty if it is not."""
    plain = wanted.startswith("/") and not wanted.startswith("//") and len(wanted) <= LONGEST_REDIRECT
    return wanted if plain and wanted.isascii() and wanted.isprintable() and "\\" not in wanted else ""


def page_of(path: str, **query: str) -> str:
    """The address of a page with what it is told."""
    told = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(told)}" if told else path
