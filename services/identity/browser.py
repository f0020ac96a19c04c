"""A browser that is signed in: the cookies that it keeps, and how a call of another site by its hand is told apart.

The session cookie names a sign-in and is sealed with a key of the box; like an access token it counts only while that
sign-in holds, which is looked up at each call, so that its end counts at once. Scripts cannot read it. A second cookie,
which they can, holds a proof that is derived from the sign-in: whoever sends it back as `x-oiab-csrf` can read our
cookies, which another site cannot.
"""

import base64
import binascii
import hashlib
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlsplit
from uuid import UUID

from services.identity.sign_in import TokenExpired, TokenInvalid
from services.kit.errors import DomainError, Kind

CSRF_HEADER = "x-oiab-csrf"
_FIELDS = struct.Struct(">16s16s16sQ")
_MAC_BYTES = 32
_LONGEST_COOKIES = 16_384
_HERE = ("127.0.0.1", "localhost", "[::1]")


class CsrfRefused(DomainError):
    """A call with a browser's cookie came without its proof."""

    kind = Kind.PERMISSION_DENIED
    reason = "CSRF_REFUSED"


@dataclass(frozen=True)
class BrowserSession:
    """What a session cookie says."""

    tenant_id: UUID
    user_id: UUID
    sign_in_id: UUID
    expire_time: datetime


@dataclass(frozen=True)
class Sender:
    """What a browser says of the page that makes a call, and what that page brings as its proof."""

    origin: str = ""
    site: str = ""
    proof: str = field(default="", repr=False)


class Browsers:
    """Knows browsers by their cookies.

    Args:
        keys: With which cookies are sealed, the newest first.
        url: The address at which browsers find the box.
    """

    def __init__(self, keys: Sequence[bytes], url: str) -> None:
        self._keys = tuple(keys)
        parts = urlsplit(url)
        self.secure = parts.scheme == "https"
        """Whether browsers come by TLS, so that cookies go no other way."""
        prefix = "__Host-" if self.secure else ""
        self.session_cookie = f"{prefix}oiab_session"
        self.csrf_cookie = f"{prefix}oiab_csrf"
        self.form_cookie = f"{prefix}oiab_form"
        self._step_prefix = f"{prefix}oiab_step_"
        self._origins = {f"{parts.scheme}://{parts.netloc}"}
        if parts.hostname in {"127.0.0.1", "localhost", "::1"}:
            self._origins |= {f"{parts.scheme}://{host}:{parts.port}" for host in _HERE}

    def use(self, keys: Sequence[bytes]) -> None:
        """Seal with other keys from now on."""
        self._keys = tuple(keys)

    def step_cookie(self, state: str) -> str:
        """The cookie that binds a sign-in by an identity provider to the browser that has begun it."""
        return f"{self._step_prefix}{hashlib.sha256(state.encode()).hexdigest()[:16]}"

    def seal(self, session: BrowserSession) -> str:
        """The value of a session cookie."""
        body = _FIELDS.pack(
            session.tenant_id.bytes,
            session.user_id.bytes,
            session.sign_in_id.bytes,
            int(session.expire_time.timestamp()),
        )
        return base64.urlsafe_b64encode(body + _mac(self._keys[0], b"session ", body)).decode().rstrip("=")

    def open(self, value: str) -> BrowserSession:
        """What a session cookie says.

        Raises:
            TokenInvalid: It is none of ours.
            TokenExpired: It has ended.
        """
        try:
            found = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
        except (binascii.Error, ValueError):
            found = b""
        body, mac = found[:-_MAC_BYTES], found[-_MAC_BYTES:]
        ours = any(hmac.compare_digest(mac, _mac(key, b"session ", body)) for key in self._keys)
        if len(body) != _FIELDS.size or not ours:
            raise TokenInvalid("this sign-in is none of this box; sign in again")
        tenant, user, sign_in, expires = _FIELDS.unpack(body)
        session = BrowserSession(
            UUID(bytes=tenant), UUID(bytes=user), UUID(bytes=sign_in), datetime.fromtimestamp(expires, UTC)
        )
        if session.expire_time <= datetime.now(UTC):
            raise TokenExpired("this sign-in has ended; sign in again")
        return session

    def session_in(self, cookies: str) -> str:
        """The session cookie among those of a `Cookie` header. Empty when there is none."""
        return cookie_in(cookies, self.session_cookie)

    def csrf(self, sign_in_id: UUID) -> str:
        """What proves that a page can read our cookies."""
        return self.csrf_proofs(sign_in_id)[0]

    def csrf_proofs(self, sign_in_id: UUID) -> list[str]:
        """All that prove it, the newest first: the key may have changed since the page was made."""
        return [_text(_mac(key, b"csrf ", sign_in_id.bytes)) for key in self._keys]

    def form_proofs(self, value: str) -> list[str]:
        """The same for a form that somebody fills in before they are signed in."""
        return [_text(_mac(key, b"form ", value.encode())) for key in self._keys]

    def refuse_forged(self, sender: Sender, expected: Sequence[str]) -> None:
        """Refuse what another site does by the hand of a browser.

        Raises:
            CsrfRefused: It is that, or cannot be told from it.
        """
        self.refuse_elsewhere(sender)
        if not any(hmac.compare_digest(sender.proof.encode(), each.encode()) for each in expected):
            raise CsrfRefused(
                f"a call with a browser's cookie has to prove where it comes from: send the value of the cookie "
                f"{self.csrf_cookie} as {CSRF_HEADER}"
            )

    def refuse_elsewhere(self, sender: Sender) -> None:
        """Refuse what a browser says that another site does.

        Raises:
            CsrfRefused: It is that.
        """
        elsewhere = sender.origin and sender.origin not in self._origins
        if elsewhere or sender.site not in {"", "same-origin", "none"}:
            raise CsrfRefused("this was sent by a page of another site; open the page of this box and try again")


def cookie_in(cookies: str, name: str) -> str:
    """A cookie among those of a `Cookie` header. Empty when there is none."""
    if name not in cookies or len(cookies) > _LONGEST_COOKIES:
        return ""
    for part in cookies.split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value.strip('"')
    return ""


def _mac(key: bytes, purpose: bytes, body: bytes) -> bytes:
    return hmac.digest(key, purpose + body, "sha256")


def _text(mac: bytes) -> str:
    return base64.urlsafe_b64encode(mac).decode().rstrip("=")
