"""HashiCorp Vault's transit engine, as much of it as a master key needs: versions, derivation, tokens, its errors."""

import base64
import binascii
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from werkzeug import Request, Response

TOKEN = "hvs.a-token"


@dataclass
class FakeVault:
    """One transit key at `transit/orginabox`."""

    derived: bool = True
    token: str = TOKEN
    versions: list[bytes] = field(default_factory=lambda: [secrets.token_bytes(32)])

    def rotate(self) -> None:
        """Make a new version."""
        self.versions.append(secrets.token_bytes(32))

    def __call__(self, environ: Any, start: Any) -> Any:
        """Answer a call."""
        return self._answer(Request(environ))(environ, start)

    def _answer(self, request: Request) -> Response:
        if request.headers.get("X-Vault-Token") != self.token:
            return error(403, "permission denied")
        told = json.loads(request.get_data())
        match request.path:
            case "/v1/transit/encrypt/orginabox":
                return self._encrypt(told)
            case "/v1/transit/decrypt/orginabox":
                return self._decrypt(told)
            case "/v1/transit/encrypt/none" | "/v1/transit/decrypt/none":
                return error(400, "encryption key not found")
        return error(404, "no handler for route")

    def _encrypt(self, told: dict[str, str]) -> Response:
        if self.derived and not told.get("context"):
            return error(400, "missing 'context' for key derivation; the key was created using a derived key")
        iv = secrets.token_bytes(12)
        sealed = iv + self._key(len(self.versions), told).encrypt(iv, base64.b64decode(told["plaintext"]), None)
        version = len(self.versions)
        ciphertext = f"vault:v{version}:{base64.b64encode(sealed).decode()}"
        return answer({"ciphertext": ciphertext, "key_version": version})

    def _decrypt(self, told: dict[str, str]) -> Response:
        try:
            mark, version, text = told["ciphertext"].split(":")
            raw = base64.b64decode(text, validate=True)
            number = int(version.removeprefix("v"))
            if mark != "vault" or not 1 <= number <= len(self.versions):
                return error(400, "invalid ciphertext: unable to decode version")
            plain = self._key(number, told).decrypt(raw[:12], raw[12:], None)
        except (InvalidTag, ValueError, binascii.Error):
            return error(400, "cipher: message authentication failed")
        return answer({"plaintext": base64.b64encode(plain).decode()})

    def _key(self, version: int, told: dict[str, str]) -> AESGCM:
        key = self.versions[version - 1]
        if not self.derived:
            return AESGCM(key)
        info = base64.b64decode(told["context"])
        return AESGCM(HKDF(SHA256(), 32, salt=None, info=info).derive(key))


def answer(data: dict[str, Any]) -> Response:
    """An answer in Vault's envelope."""
    return Response(json.dumps({"request_id": "r", "data": data}), 200, content_type="application/json")


def error(status: int, *texts: str) -> Response:
    """An error in Vault's envelope."""
    return Response(json.dumps({"errors": list(texts)}), status, content_type="application/json")


def failure(request: Request) -> Response:
    """A failure that tells too much."""
    return error(503, "Vault is sealed", request.get_data(as_text=True))


def denial(request: Request) -> Response:
    """A refusal that tells too much."""
    return error(403, "permission denied", request.get_data(as_text=True), str(request.headers))
