"""A master key in Azure Key Vault: `azure-kv://<vault>/<key>`, an RSA key, by the identity that Azure's SDK finds.

RSA-OAEP takes no context, and everybody who has the public half can wrap with it. So what is wrapped is signed by the
same key together with its context (PS256): nobody plants a key of their own, or moves one to another tenant.
"""

import hashlib
from collections.abc import Callable
from typing import ClassVar, Self, TypeVar

from azure.core import exceptions
from azure.core.credentials import TokenCredential
from azure.identity import DefaultAzureCredential
from azure.keyvault.keys import KeyClient
from azure.keyvault.keys.crypto import CryptographyClient, KeyWrapAlgorithm, SignatureAlgorithm

from services.kit.errors import DomainError
from services.kit.keyring.errors import KeyringDenied, KeyringMismatch, KeyringUnavailable, KeyringUnusable
from services.kit.keyring.master import Context, Wrapped, canonical
from services.kit.keyring.remote import CONNECT_SECONDS, READ_SECONDS, TRIES, Remote

T = TypeVar("T")

_WRAP = KeyWrapAlgorithm.rsa_oaep_256
_SIGN = SignatureAlgorithm.ps256
_OUTAGES = frozenset({408, 429})
_SERVER_ERROR = 500
_BAD_REQUEST = 400
_TIMES = {
    "connection_timeout": CONNECT_SECONDS,
    "read_timeout": READ_SECONDS,
    "retry_total": TRIES - 1,
    "retry_backoff_factor": 0.2,
}


class AzureMaster:
    """An RSA key with its versions."""

    backend: ClassVar[str] = "azure-kv"

    def __init__(self, vault: str, key: str, credential: TokenCredential | None = None) -> None:
        host = vault if "." in vault else f"{vault}.vault.azure.net"
        self._address = f"azure-kv://{vault}/{key}"
        self._url, self._key = f"https://{host}", key
        self._credential = credential or DefaultAzureCredential()
        self._keys = KeyClient(self._url, self._credential, **_TIMES)
        self._remote = Remote(self.backend)
        self._versions: dict[str, CryptographyClient] = {}

    @classmethod
    def parse(cls, address: str) -> Self:
        """The key at `vault/key`.

        Raises:
            KeyringUnusable: The address is none.
        """
        vault, _, key = address.partition("/")
        if not (vault and key) or "/" in key:
            raise KeyringUnusable("a master key in Azure Key Vault is named azure-kv://vault/key, without a version")
        return cls(vault, key)

    async def key_id(self) -> str:
        """The name of the key with its newest version."""
        found = await self._ask(lambda: self._keys.get_key(self._key))
        return f"{self._address}/{found.properties.version}"

    async def owns(self, master_key_id: str) -> bool:
        """Whether it is a version of this key."""
        return master_key_id.rpartition("/")[0] == self._address

    async def wrap(self, key: bytes, context: Context) -> Wrapped:
        """Encrypt a key and sign it for a context."""
        master_key_id = await self.key_id()

        def call() -> bytes:
            client = self._client(master_key_id)
            ciphertext = client.wrap_key(_WRAP, key).encrypted_key
            return ciphertext + client.sign(_SIGN, _digest(ciphertext, context)).signature

        return Wrapped(master_key_id, await self._ask(call))

    async def unwrap(self, wrapped: Wrapped, context: Context) -> bytes:
        """Decrypt a key that was signed for a context."""
        # Both halves are as long as the key's modulus.
        half = len(wrapped.ciphertext) // 2
        ciphertext, signature = wrapped.ciphertext[:half], wrapped.ciphertext[half:]

        def call() -> bytes | None:
            client = self._client(wrapped.master_key_id)
            signed = client.verify(_SIGN, _digest(ciphertext, context), signature)
            return client.unwrap_key(_WRAP, ciphertext).key if signed.is_valid else None

        if key := await self._ask(call):
            return key
        raise self._remote.refusal(KeyringMismatch, "signature")

    def original(self, key_id: str) -> None:
        """It never gave itself away."""

    def _client(self, master_key_id: str) -> CryptographyClient:
        """The client of a version. It keeps the public half, with which it wraps and verifies by itself."""
        version = master_key_id.rpartition("/")[2]
        if version not in self._versions:
            url = f"{self._url}/keys/{self._key}/{version}"
            self._versions[version] = CryptographyClient(url, self._credential, **_TIMES)
        return self._versions[version]

    async def _ask(self, call: Callable[[], T]) -> T:
        meaning: type[DomainError]
        try:
            return await self._remote.ask(call)
        except exceptions.ClientAuthenticationError as error:
            meaning, code = KeyringDenied, _code(error)
        except exceptions.HttpResponseError as error:
            meaning, code = _meaning(error.status_code or 0), _code(error)
        except exceptions.AzureError as error:
            meaning, code = KeyringUnavailable, type(error).__name__
        except (ValueError, NotImplementedError) as error:
            # The public half refuses by itself what cannot have come from this key.
            meaning, code = KeyringMismatch, type(error).__name__
        raise self._remote.refusal(meaning, code)


def _digest(ciphertext: bytes, context: Context) -> bytes:
    return hashlib.sha256(b"orginabox data key\x00" + hashlib.sha256(canonical(context)).digest() + ciphertext).digest()


def _meaning(status: int) -> type[DomainError]:
    if status == _BAD_REQUEST:
        return KeyringMismatch
    return KeyringUnavailable if status in _OUTAGES or status >= _SERVER_ERROR else KeyringDenied


def _code(error: exceptions.HttpResponseError) -> str:
    told = error.error.code if error.error else None
    return told or str(error.status_code or type(error).__name__)
