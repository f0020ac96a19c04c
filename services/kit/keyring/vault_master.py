"""A master key in HashiCorp Vault's transit engine: `vault://host:8200/transit/orginabox`.

The key has to be made with `derived=true`: then Vault encrypts with a key of its own for every context. The token is
VAULT_TOKEN, or what the file VAULT_TOKEN_FILE holds at that moment: Vault's agent renews it there.
"""

import base64
import binascii
import os
from pathlib import Path
from typing import Any, ClassVar, Self

import hvac
import requests
from hvac import exceptions
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from services.kit.errors import DomainError
from services.kit.keyring.errors import KeyringDenied, KeyringMismatch, KeyringUnavailable, KeyringUnusable
from services.kit.keyring.master import PROBE, Context, Wrapped, canonical
from services.kit.keyring.remote import CONNECT_SECONDS, READ_SECONDS, TRIES, Remote

_MEANINGS: tuple[tuple[type[Exception], type[DomainError]], ...] = (
    (exceptions.InvalidRequest, KeyringMismatch),
    (exceptions.Forbidden, KeyringDenied),
    (exceptions.Unauthorized, KeyringDenied),
    (exceptions.InvalidPath, KeyringDenied),
    (exceptions.UnsupportedOperation, KeyringDenied),
    (exceptions.ParamValidationError, KeyringDenied),
    (exceptions.VaultError, KeyringUnavailable),
    (requests.exceptions.SSLError, KeyringDenied),
    (requests.exceptions.RequestException, KeyringUnavailable),
)


class VaultMaster:
    """A transit key."""

    backend: ClassVar[str] = "vault"

    def __init__(self, host: str, mount: str, key: str) -> None:
        self._address = f"vault://{host}/{mount}/{key}"
        self._mount, self._key = mount, key
        self._remote = Remote(self.backend)
        self._client = hvac.Client(
            url=f"https://{host}",
            namespace=os.environ.get("VAULT_NAMESPACE") or None,
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            session=_session(),
        )

    @classmethod
    def parse(cls, address: str) -> Self:
        """The key at `host/mount/key`.

        Raises:
            KeyringUnusable: The address is none.
        """
        host, _, path = address.partition("/")
        mount, _, key = path.rpartition("/")
        if not (host and mount and key):
            raise KeyringUnusable("a master key in Vault is named vault://host:8200/mount/key")
        return cls(host, mount, key)

    async def key_id(self) -> str:
        """The name of the key with its newest version, learnt by wrapping with it: no other permission is needed."""
        return (await self.wrap(bytes(32), PROBE)).master_key_id

    async def owns(self, master_key_id: str) -> bool:
        """Whether it is a version of this key."""
        return master_key_id.rpartition("/v")[0] == self._address

    async def wrap(self, key: bytes, context: Context) -> Wrapped:
        """Encrypt a key for a context."""
        told = await self._ask("encrypt_data", plaintext=_text(key), context=_text(canonical(context)))
        ciphertext = str(told["ciphertext"])
        return Wrapped(f"{self._address}/{_version(ciphertext)}", ciphertext.encode())

    async def unwrap(self, wrapped: Wrapped, context: Context) -> bytes:
        """Decrypt a key of a context."""
        ciphertext = wrapped.ciphertext.decode(errors="replace")
        told = await self._ask("decrypt_data", ciphertext=ciphertext, context=_text(canonical(context)))
        try:
            return base64.b64decode(str(told["plaintext"]), validate=True)
        except binascii.Error:
            raise self._remote.refusal(KeyringUnavailable, "answer") from None

    def original(self, key_id: str) -> None:
        """It never gave itself away."""

    async def _ask(self, method: str, **parameters: str) -> dict[str, Any]:
        def call() -> dict[str, Any]:
            self._client.token = _token()
            transit = self._client.secrets.transit
            told = getattr(transit, method)(name=self._key, mount_point=self._mount, **parameters)
            found: dict[str, Any] = told["data"]
            return found

        meaning: type[DomainError]
        try:
            return await self._remote.ask(call)
        except (exceptions.VaultError, requests.exceptions.RequestException) as error:
            meaning = next(meaning for kind, meaning in _MEANINGS if isinstance(error, kind))
            name = type(error).__name__
        except (KeyError, TypeError):
            meaning, name = KeyringUnavailable, "answer"
        raise self._remote.refusal(meaning, name)


def _session() -> requests.Session:
    session = requests.Session()
    # Encrypting twice does no harm, so the POSTs of transit may be tried again.
    retry = Retry(
        total=TRIES - 1,
        backoff_factor=0.2,
        status_forcelist=(429, 500, 502, 503),
        allowed_methods=None,
        raise_on_status=False,
    )
    session.mount("https://", HTTPAdapter(max_retries=retry))
    return session


def _token() -> str | None:
    """The token at this moment."""
    if path := os.environ.get("VAULT_TOKEN_FILE"):
        try:
            return Path(path).read_text().strip()
        except OSError:
            return None
    return os.environ.get("VAULT_TOKEN")


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _version(ciphertext: str) -> str:
    """The version in `vault:v3:…`."""
    return ciphertext.split(":")[1]
