"""OpenID Connect: the authorization code flow with PKCE, and what is believed of an identity provider's word.

A token of an identity provider counts when it is signed by one of the keys that its discovery document names, by an
algorithm of public keys, and when it is issued by it, for us, now, and for this very sign-in (OpenID Connect Core 1.0,
section 3.1.3.7). Tokens without a signature, or signed with the client's secret, are refused whatever it says.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from services.identity.identity_provider import (
    IdentityProvider,
    IdentityProviderRefused,
    IdentityProviderUnavailable,
)
from services.identity.outbound import Outbound
from services.kit import telemetry

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
CLOCK_SKEW_SECONDS = 60
DOCUMENT_SECONDS = 600.0
NEW_KEYS_SECONDS = 10.0
"""How long after the keys were read nobody makes us read them anew, by naming a key that we do not know."""
MOST_DOCUMENTS = 256
LONGEST_TOKEN = 64 * 1024


@dataclass(frozen=True)
class Endpoints:
    """What the discovery document of an identity provider says."""

    issuer: str
    authorization: str
    token: str
    keys: str
    auth_methods: tuple[str, ...]


@dataclass(frozen=True)
class Proof:
    """What a browser's secret gives for one sign-in: it is derived, and stored nowhere."""

    state: str
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)


@dataclass
class _Kept:
    endpoints: Endpoints
    read: float
    keys: KeySet | None = None
    keys_read: float = 0.0


class OpenId:
    """Speaks with identity providers.

    Args:
        outbound: Calls them.
        clock: Tells the time in seconds since 1970.
    """

    def __init__(self, outbound: Outbound, clock: Callable[[], float] = time.time) -> None:
        self._outbound = outbound
        self._clock = clock
        self._kept: dict[str, _Kept] = {}

    async def discover(self, provider: IdentityProvider, *, anew: bool = False) -> Endpoints:
        """What the discovery document of an identity provider says.

        Raises:
            IdentityProviderRefused: It is that of another, or what it says cannot be used.
            IdentityProviderUnavailable: It cannot be read.
        """
        return (await self._document(provider, anew=anew)).endpoints

    async def check(self, provider: IdentityProvider) -> None:
        """Make sure that people can sign in there, before it is kept."""
        kept = await self._document(provider, anew=True)
        if not (await self._read_keys(kept)).keys:
            raise IdentityProviderRefused("the identity provider publishes no keys")

    async def address(self, provider: IdentityProvider, proof: Proof, redirect_uri: str) -> str:
        """Where a browser goes to sign in."""
        found = await self.discover(provider)
        return str(
            prepare_grant_uri(
                found.authorization,
                client_id=provider.client_id,
                response_type="code",
                redirect_uri=redirect_uri,
                scope=" ".join(provider.asked_scopes),
                state=proof.state,
                nonce=proof.nonce,
                code_challenge=create_s256_code_challenge(proof.verifier),
                code_challenge_method="S256",
            )
        )

    async def claims(
        self, provider: IdentityProvider, secret: str, code: str, proof: Proof, redirect_uri: str
    ) -> dict[str, Any]:
        """Exchange the code that a browser brought, and answer what the identity provider says of its user.

        Raises:
            IdentityProviderRefused: The code is not good, or the token does not verify.
            IdentityProviderUnavailable: It cannot be reached.
        """
        kept = await self._document(provider)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": proof.verifier,
            "client_id": provider.client_id,
        }
        auth = None
        if secret and "client_secret_basic" in kept.endpoints.auth_methods:
            auth = _basic(provider.client_id, secret)
        elif secret:
            form["client_secret"] = secret
        status, answer = await self._outbound.post(kept.endpoints.token, form, auth)
        token = answer.get("id_token")
        if status >= 500:  # noqa: PLR2004 - theirs
            raise IdentityProviderUnavailable(f"the identity provider answers with {status}; try again in a moment")
        if status != 200 or not isinstance(token, str):  # noqa: PLR2004 - the same
            _log(provider, str(answer.get("error", status)))
            raise IdentityProviderRefused("the identity provider does not accept this sign-in; start again")
        return await self._verified(provider, kept, token, proof, str(answer.get("access_token", "")))

    async def _verified(
        self, provider: IdentityProvider, kept: _Kept, token: str, proof: Proof, access_token: str
    ) -> dict[str, Any]:
        if len(token) > LONGEST_TOKEN:
            raise IdentityProviderRefused("the token of the identity provider is too large")
        try:
            try:
                found = jwt.decode(token, await self._read_keys(kept), algorithms=list(ALGORITHMS))
            except (JoseError, ValueError):
                # Perhaps it signs with a new key.
                found = jwt.decode(token, await self._read_keys(kept, anew=True), algorithms=list(ALGORITHMS))
            issuer = provider.issued_by(str(found.claims.get("tid", "")))
            claims = CodeIDToken(
                found.claims,
                found.header,
                {
                    "iss": {"essential": True, "values": [issuer, kept.endpoints.issuer]},
                    "aud": {"essential": True, "value": provider.client_id},
                    "sub": {"essential": True},
                },
                {"nonce": proof.nonce, "client_id": provider.client_id, "access_token": access_token},
            )
            claims.validate(now=int(self._clock()), leeway=CLOCK_SKEW_SECONDS)
            _refuse_audiences(claims, provider)
        except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            _log(provider, f"{type(error).__name__}: {error}")
            raise IdentityProviderRefused(
                "the token of the identity provider does not verify; start again, and tell an administrator"
            ) from None
        if provider.directory_id and claims.get("tid") != provider.directory_id:
            raise IdentityProviderRefused("you are signed in to another directory than that of this organisation")
        return dict(claims)

    async def _document(self, provider: IdentityProvider, *, anew: bool = False) -> _Kept:
        kept = self._kept.get(provider.issuer)
        if kept is None or anew or self._clock() - kept.read > DOCUMENT_SECONDS:
            document = await self._outbound.get(f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration")
            kept = _Kept(self._endpoints(provider, document), self._clock())
            if len(self._kept) >= MOST_DOCUMENTS:
                del self._kept[next(iter(self._kept))]
            self._kept[provider.issuer] = kept
        return kept

    def _endpoints(self, provider: IdentityProvider, document: dict[str, Any]) -> Endpoints:
        issuer = document.get("issuer")
        named = {provider.issuer, provider.issued_by(provider.directory_id)}
        of_any = provider.directory_id and isinstance(issuer, str) and "{tenantid}" in issuer
        if issuer not in named and not of_any:
            raise IdentityProviderRefused(f"the discovery document is that of another issuer: {str(issuer)[:200]}")
        try:
            found = Endpoints(
                issuer=str(issuer).replace("{tenantid}", provider.directory_id),
                authorization=str(document["authorization_endpoint"]),
                token=str(document["token_endpoint"]),
                keys=str(document["jwks_uri"]),
                auth_methods=tuple(document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])),
            )
        except (KeyError, TypeError):
            raise IdentityProviderRefused("the discovery document does not say where people sign in") from None
        for url in (found.authorization, found.token, found.keys):
            self._outbound.refuse_url(url)
        methods = document.get("code_challenge_methods_supported")
        if methods is not None and "S256" not in methods:
            raise IdentityProviderRefused("the identity provider does not know PKCE with S256")
        return found

    async def _read_keys(self, kept: _Kept, *, anew: bool = False) -> KeySet:
        age = self._clock() - kept.keys_read
        if kept.keys is None or age > DOCUMENT_SECONDS or (anew and age > NEW_KEYS_SECONDS):
            document = await self._outbound.get(kept.endpoints.keys)
            usable = [key for key in document.get("keys", ()) if isinstance(key, dict) and key.get("kty") != "oct"]
            try:
                kept.keys = KeySet.import_key_set({"keys": [_public(key) for key in usable]})
            except (JoseError, ValueError, TypeError, KeyError):
                raise IdentityProviderRefused("the keys of the identity provider cannot be read") from None
            kept.keys_read = self._clock()
        return kept.keys


def _refuse_audiences(claims: CodeIDToken, provider: IdentityProvider) -> None:
    """A token for others, too, has to say that it was given to us."""
    audience = claims["aud"]
    if isinstance(audience, list) and len(audience) > 1 and claims.get("azp") != provider.client_id:
        raise ValueError("azp")


def _public(key: dict[str, Any]) -> dict[str, Any]:
    """A key without members that the library would refuse it for, such as certificates."""
    return {
        name: value for name, value in key.items() if name in {"kty", "kid", "use", "alg", "n", "e", "crv", "x", "y"}
    }


def _basic(client_id: str, secret: str) -> tuple[str, str]:
    """The client's own credentials, as RFC 6749 wants them in the header: encoded like a form."""
    from urllib.parse import quote_plus

    return quote_plus(client_id), quote_plus(secret)


def _log(provider: IdentityProvider, cause: str) -> None:
    telemetry.log().warning("a sign-in was refused", identity_provider=provider.identity_provider_id, cause=cause[:200])
