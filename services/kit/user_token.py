"""The user token: how Api tells another service on whose behalf it calls, so that nobody else can say so.

It is a JWT of at most a minute for one receiver, signed with the key of Api's own certificate, which it carries along.
A receiver believes it when that certificate is one of this installation, names Api, and it is Api that brings it.
"""

import base64
import hashlib
import time
from collections import OrderedDict
from collections.abc import Hashable
from datetime import UTC, datetime
from functools import cache
from typing import Any, Generic, TypeVar
from uuid import UUID, uuid4

import jwt
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from services.kit.caller import Caller
from services.kit.certificates import spiffe_id, spiffe_of
from services.kit.errors import Unauthenticated
from services.kit.gate import Call
from services.kit.mesh import MeshIdentity, own_identity

HEADER = "x-oiab-user"
SIGNER = "api"
ALGORITHM = "ES256"
LONGEST_SECONDS = 60
CLOCK_SKEW_SECONDS = 5
"""How far the receiver's clock may be behind: tokens are dated back by it."""
KEPT_TOKENS = 4096
_CLAIMS = ["sub", "tid", "perms", "channel", "ip", "ua", "aud", "iat", "exp", "jti"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Kept(Generic[K, V]):
    """What was found last, each until its time, and no more of it than a bound."""

    def __init__(self, most: int = KEPT_TOKENS) -> None:
        self._most = most
        self._found: OrderedDict[K, tuple[V, float]] = OrderedDict()

    def get(self, key: K) -> V | None:
        found = self._found.get(key)
        if found is None or found[1] <= time.time():
            return None
        self._found.move_to_end(key)
        return found[0]

    def keep(self, key: K, value: V, until: float) -> None:
        self._found[key] = (value, until)
        self._found.move_to_end(key)
        if len(self._found) > self._most:
            self._found.popitem(last=False)


class UserTokens:
    """Makes and reads the user tokens of a process.

    Args:
        identity: Who this process is.
    """

    def __init__(self, identity: MeshIdentity) -> None:
        self._identity = identity
        self._minted: _Kept[tuple[Caller, str], str] = _Kept()
        self._read: _Kept[tuple[bytes, bytes], Caller] = _Kept()
        self._signers: _Kept[tuple[str, bytes], x509.Certificate] = _Kept(64)

    def of(self, caller: Caller, audience: str) -> str:
        """A token that tells a service of the caller. Each is used again for half its life."""
        token = self._minted.get((caller, audience))
        if token is None:
            token, half_life = self._mint(caller, audience)
            self._minted.keep((caller, audience), token, half_life)
        return token

    def read(self, token: str) -> Caller:
        """The caller whom a token of this installation's Api tells this service of.

        Raises:
            Unauthenticated: It is not such a token, or not any more.
        """
        roots = self._identity.credentials.roots_pem
        key = (hashlib.sha256(token.encode()).digest(), roots)
        caller = self._read.get(key)
        if caller is None:
            try:
                caller, until = self._verify(token, roots)
            except _Unbelievable as error:
                raise Unauthenticated("the word on which user this call is for cannot be believed") from error
            self._read.keep(key, caller, until)
        return caller

    def _mint(self, caller: Caller, audience: str) -> tuple[str, float]:
        credentials, now = self._identity.credentials, int(time.time())
        expires = min(now + LONGEST_SECONDS - CLOCK_SKEW_SECONDS, int(credentials.expires.timestamp()))
        claims: dict[str, Any] = {
            "sub": str(caller.user_id),
            "tid": str(caller.tenant_id),
            "perms": sorted(caller.permissions),
            "channel": caller.channel,
            "ip": caller.ip_address,
            "ua": caller.user_agent,
            "aud": audience,
            "iat": now - CLOCK_SKEW_SECONDS,
            "exp": expires,
            "jti": uuid4().hex,
        }
        if caller.sign_in_id:
            claims["sid"] = str(caller.sign_in_id)
        if caller.agent_session:
            claims["act"] = caller.agent_session
        own = base64.b64encode(credentials.certificate.public_bytes(Encoding.DER)).decode()
        return jwt.encode(claims, credentials.key, ALGORITHM, {"x5c": [own]}), now + (expires - now) / 2

    def _verify(self, token: str, roots: bytes) -> tuple[Caller, float]:
        try:
            header = jwt.get_unverified_header(token)
            signer = self._signer(header, roots)
            claims = jwt.decode(
                token,
                signer.public_key(),  # type: ignore[arg-type] # of an elliptic curve: _signer sees to it
                algorithms=[ALGORITHM],
                audience=self._identity.name,
                options={"require": _CLAIMS, "strict_aud": True},
            )
            if claims["exp"] - claims["iat"] > LONGEST_SECONDS:
                raise _Unbelievable("it is valid for too long")
            if claims["exp"] > signer.not_valid_after_utc.timestamp():
                raise _Unbelievable("it is valid for longer than its signer")
            return _caller(claims), claims["exp"]
        except (jwt.PyJWTError, UnsupportedAlgorithm, x509.ExtensionNotFound, ValueError, TypeError) as error:
            raise _Unbelievable(str(error)) from error

    def _signer(self, header: dict[str, Any], roots: bytes) -> x509.Certificate:
        """The certificate whose key signed a token, if it is Api's."""
        chain = header.get("x5c")
        if not isinstance(chain, list) or len(chain) != 1 or not isinstance(chain[0], str):
            raise _Unbelievable("it does not carry one certificate")
        if found := self._signers.get((chain[0], roots)):
            return found
        certificate = x509.load_der_x509_certificate(base64.b64decode(chain[0], validate=True))
        if not _issued(certificate, self._identity.credentials.roots):
            raise _Unbelievable("its signer is not of this installation")
        if spiffe_of(certificate) != spiffe_id(self._identity.installation, SIGNER):
            raise _Unbelievable("its signer is not Api")
        self._signers.keep((chain[0], roots), certificate, certificate.not_valid_after_utc.timestamp())
        return certificate


class _Unbelievable(Exception):
    """Why a token is not believed. It goes to the log, not to the caller."""


def hand_over(call: Call) -> Caller | None:
    """The user on whose behalf a service calls; None when it calls on its own.

    Raises:
        Unauthenticated: What it says of a user cannot be believed.
    """
    token = call.metadata.get(HEADER)
    if token is None:
        return None
    if call.peer != SIGNER:
        raise Unauthenticated("only Api may say on which user's behalf it calls")
    return tokens_of(own_identity()).read(token)


@cache
def tokens_of(identity: MeshIdentity) -> UserTokens:
    """The user tokens of a process, which are kept for all its channels and calls."""
    return UserTokens(identity)


def _issued(certificate: x509.Certificate, roots: tuple[x509.Certificate, ...]) -> bool:
    """Whether a certificate is one of a service, valid now, and made by one of the roots itself."""
    now = datetime.now(UTC)
    chain = [root for root in roots if _made_by(root, certificate)]
    return (
        any(_valid(root, now) for root in chain)
        and _valid(certificate, now)
        and isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
        and not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        and ExtendedKeyUsageOID.CLIENT_AUTH
        in certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    )


def _made_by(root: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(root)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def _valid(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc


def _caller(claims: dict[str, Any]) -> Caller:
    return Caller(
        tenant_id=UUID(claims["tid"]),
        user_id=UUID(claims["sub"]),
        permissions=frozenset(map(str, claims["perms"])),
        sign_in_id=UUID(claims["sid"]) if "sid" in claims else None,
        agent_session=str(claims.get("act", "")),
        channel=str(claims["channel"]),
        ip_address=str(claims["ip"]),
        user_agent=str(claims["ua"]),
    )
