"""Azure Key Vault's keys, as much as a master key needs, and the endpoint where a machine of Azure gets its token."""

import base64
import json
import uuid
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from werkzeug import Request, Response

OAEP = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)
PSS = padding.PSS(padding.MGF1(SHA256()), SHA256.digest_size)
BEARER = "Bearer a-token-of-azure"


def make_key() -> rsa.RSAPrivateKey:
    """A key of Key Vault."""
    return rsa.generate_private_key(65537, 2048)


@dataclass
class FakeAzure:
    """One RSA key `orginabox` with its versions, the newest last."""

    versions: dict[str, rsa.RSAPrivateKey] = field(default_factory=lambda: {uuid.uuid4().hex: make_key()})

    def rotate(self) -> None:
        """Make a new version."""
        self.versions[uuid.uuid4().hex] = make_key()

    def __call__(self, environ: Any, start: Any) -> Any:
        """Answer a call."""
        request = Request(environ)
        return self._answer(request)(environ, start)

    def _answer(self, request: Request) -> Response:
        if request.headers.get("Authorization") != BEARER:
            return _challenge(request)
        parts = request.path.strip("/").split("/")
        if parts[:2] != ["keys", "orginabox"] or (len(parts) > 2 and parts[2] and parts[2] not in self.versions):
            return error(404, "KeyNotFound", "A key with (name/id) was not found in this key vault.")
        version = parts[2] if len(parts) > 2 and parts[2] else list(self.versions)[-1]
        kid = f"https://{request.host}/keys/orginabox/{version}"
        if request.method == "GET":
            return self._bundle(kid, version)
        return self._use(kid, self.versions[version], parts[3], json.loads(request.get_data()))

    def _use(self, kid: str, key: rsa.RSAPrivateKey, operation: str, told: dict[str, str]) -> Response:
        value = _bytes(told["value"])
        match operation, told["alg"]:
            case "unwrapkey", "RSA-OAEP-256":
                try:
                    return _json({"kid": kid, "value": _text(key.decrypt(value, OAEP))})
                except ValueError:
                    return error(400, "BadParameter", "Bad or invalid key material")
            case "sign", "PS256":
                return _json({"kid": kid, "value": _text(key.sign(value, PSS, Prehashed(SHA256())))})
        return error(400, "BadParameter", "Operation is not supported")

    def _bundle(self, kid: str, version: str) -> Response:
        public = self.versions[version].public_key().public_numbers()
        key = {
            "kid": kid,
            "kty": "RSA",
            "key_ops": ["wrapKey", "unwrapKey", "sign", "verify"],
            "n": _text(public.n.to_bytes(256, "big")),
            "e": _text(public.e.to_bytes(3, "big")),
        }
        return _json({"key": key, "attributes": {"enabled": True, "created": 1_700_000_000, "updated": 1_700_000_000}})


def tokens(environ: Any, start: Any) -> Any:
    """The endpoint of the machine's identity."""
    request = Request(environ)
    told = {
        "access_token": BEARER.removeprefix("Bearer "),
        "expires_in": "3600",
        "expires_on": "4102444800",
        "resource": request.args.get("resource", ""),
        "token_type": "Bearer",
    }
    return _json(told)(environ, start)


def error(status: int, code: str, message: str) -> Response:
    """An error in Key Vault's form."""
    return _json({"error": {"code": code, "message": message}}, status)


def failure(request: Request) -> Response:
    """A failure that tells too much."""
    return error(503, "ServiceUnavailable", request.get_data(as_text=True))


def denial(request: Request) -> Response:
    """A refusal that tells too much."""
    if request.headers.get("Authorization") != BEARER:
        return _challenge(request)
    return error(403, "Forbidden", f"Caller is not authorized. {request.get_data(as_text=True)} {request.headers}")


def _challenge(request: Request) -> Response:
    """Say where a token is to be had. The SDK accepts a resource only of the domain that it called."""
    resource = f"https://{request.host.removeprefix('127.')}"
    told = f'Bearer authorization="https://login.microsoftonline.com/{uuid.UUID(int=1)}", resource="{resource}"'
    return Response(status=401, headers={"WWW-Authenticate": told})


def _json(value: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(value), status, content_type="application/json")


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
