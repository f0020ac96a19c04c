"""A master key in AWS KMS: `aws-kms://<key id, ARN or alias>?region=eu-central-1`.

What a key is for is KMS's encryption context: it stands in CloudTrail with every use. Credentials are found as boto3
finds them. Decryption names the key, so that a key of somebody else's account is never used.
"""

from typing import Any, ClassVar, Self
from urllib.parse import parse_qs

import boto3
from botocore import exceptions
from botocore.config import Config

from services.kit.errors import DomainError
from services.kit.keyring.errors import KeyringDenied, KeyringMismatch, KeyringUnavailable, KeyringUnusable
from services.kit.keyring.master import PROBE, Context, Wrapped
from services.kit.keyring.remote import CONNECT_SECONDS, READ_SECONDS, TRIES, Remote

_MISMATCHES = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})
_OUTAGES = frozenset(
    {
        "DependencyTimeoutException",
        "InternalFailure",
        "KMSInternalException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "ThrottlingException",
    }
)
_SERVER_ERROR = 500


class AwsMaster:
    """A symmetric KMS key."""

    backend: ClassVar[str] = "aws-kms"

    def __init__(self, key: str, region: str = "") -> None:
        self._key = key
        self._remote = Remote(self.backend)
        # The name of a key is its ARN; what else it may be called is not known before KMS has said so.
        self._arn = key if key.startswith("arn:") and ":key/" in key else ""
        try:
            # A session of our own: the default one is not made for threads.
            self._kms = boto3.session.Session().client(
                "kms",
                region_name=region or None,
                config=Config(
                    connect_timeout=CONNECT_SECONDS,
                    read_timeout=READ_SECONDS,
                    retries={"total_max_attempts": TRIES, "mode": "standard"},
                ),
            )
        except exceptions.NoRegionError:
            raise KeyringUnusable("say in which region the key is: aws-kms://key?region=eu-central-1") from None
        except (exceptions.BotoCoreError, ValueError):
            raise KeyringUnusable("AWS's settings cannot be used; `aws sts get-caller-identity` says why") from None

    @classmethod
    def parse(cls, address: str) -> Self:
        """The key at `key?region=…`.

        Raises:
            KeyringUnusable: The address is none.
        """
        key, _, query = address.partition("?")
        options = parse_qs(query)
        if not key or options.keys() - {"region"}:
            raise KeyringUnusable("a master key in AWS KMS is named aws-kms://<key id, ARN or alias>?region=...")
        return cls(key, options.get("region", [""])[0])

    async def key_id(self) -> str:
        """The ARN of the key, learnt by wrapping with it: no other permission is needed.

        An alias that was pointed to another key is followed here.
        """
        told = await self._ask("encrypt", KeyId=self._key, Plaintext=bytes(32), EncryptionContext=dict(PROBE))
        self._arn = str(told["KeyId"])
        return self._arn

    async def owns(self, master_key_id: str) -> bool:
        """Whether it is this key."""
        return master_key_id == (self._arn or await self.key_id())

    async def wrap(self, key: bytes, context: Context) -> Wrapped:
        """Encrypt a key for a context."""
        arn = self._arn or await self.key_id()
        told = await self._ask("encrypt", KeyId=arn, Plaintext=key, EncryptionContext=dict(context))
        return Wrapped(arn, bytes(told["CiphertextBlob"]))

    async def unwrap(self, wrapped: Wrapped, context: Context) -> bytes:
        """Decrypt a key of a context."""
        arn = self._arn or await self.key_id()
        told = await self._ask("decrypt", KeyId=arn, CiphertextBlob=wrapped.ciphertext, EncryptionContext=dict(context))
        return bytes(told["Plaintext"])

    def original(self, key_id: str) -> None:
        """It never gave itself away."""

    async def _ask(self, method: str, **parameters: object) -> dict[str, Any]:
        def call() -> dict[str, Any]:
            found: dict[str, Any] = getattr(self._kms, method)(**parameters)
            return found

        meaning: type[DomainError]
        try:
            return await self._remote.ask(call)
        except exceptions.ClientError as error:
            meaning, code = _meaning(error), str(error.response.get("Error", {}).get("Code", ""))
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.SSLError) as error:
            meaning, code = KeyringDenied, type(error).__name__
        except exceptions.BotoCoreError as error:
            meaning, code = KeyringUnavailable, type(error).__name__
        raise self._remote.refusal(meaning, code)


def _meaning(error: exceptions.ClientError) -> type[DomainError]:
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _MISMATCHES:
        return KeyringMismatch
    return KeyringUnavailable if code in _OUTAGES or status >= _SERVER_ERROR else KeyringDenied
