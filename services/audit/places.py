"""Second places for checkpoints: where whoever can change the database cannot change what was published.

A place takes notes in their order. One that can be read back also tells the newest note that it has, by which a
database that was rolled back is found.
"""

import hashlib
import hmac
import os
from pathlib import Path
from typing import Any, Protocol

import boto3
import httpx
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import SecretStr

from services.audit.checkpoint import SigningKey

TIMEOUT_SECONDS = 10.0
_DASH = "\N{EM DASH} "
TORN = "--- torn ---"
"""The line after what a crash left half written."""
_TAIL = 65_536
_MOST = 10**19 - 1
"""More records than there will be: buckets list by name, and only from its beginning."""


class PlaceUnreachable(Exception):
    """A place does not take or show notes just now."""


class Place(Protocol):
    """A second place. Its methods block: they run in a thread."""

    name: str

    def push(self, size: int, note: str) -> None:
        """Keep a note. It returns when the note is there to stay."""

    def newest(self) -> str | None:
        """The newest note, None when there is none or the place cannot be read back."""


class FilePlace:
    """A file to which notes are appended, such as one on a disk of its own, or made append-only by `chattr +a`."""

    def __init__(self, path: Path, origin: str) -> None:
        self.name = f"file:{path}"
        self._path = path
        self._origin = origin

    def push(self, size: int, note: str) -> None:  # noqa: ARG002 - the note says it
        """Append the note and wait until it is on disk."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b") as file:
                torn = file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"
                # What a crash left half written stays, and is said to be so.
                file.write((f"\n{TORN}\n".encode() if torn else b"") + note.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise PlaceUnreachable(str(error)) from error

    def newest(self) -> str | None:
        """The note of the largest size, of the last ones in the file: a push that was repeated may stand behind it."""
        try:
            with self._path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise PlaceUnreachable(str(error)) from error
        notes = split_notes(text, self._origin)
        return max(notes, key=_size_of, default=None)


class S3Place:
    """A bucket of S3 or its kind, best with object lock: one object for each note.

    Credentials come from where the SDK finds them: the environment, a profile, the role of the machine.
    """

    def __init__(self, bucket: str, prefix: str, endpoint: str = "") -> None:
        self.name = f"s3://{bucket}/{prefix}"
        self._bucket = bucket
        self._prefix = prefix
        self._endpoint = endpoint
        self._made: Any = None

    def push(self, size: int, note: str) -> None:
        """Put the note. The newest sorts first, and a note that is there is not replaced by another."""
        key = f"{self._prefix}{_MOST - size:019}-{size}.checkpoint"
        try:
            self._client().put_object(
                Bucket=self._bucket,
                Key=key,
                Body=note.encode(),
                ContentType="text/plain; charset=utf-8",
                IfNoneMatch="*",
            )
        except ClientError as error:
            if error.response["Error"]["Code"] not in {"PreconditionFailed", "ConditionalRequestConflict"}:
                raise PlaceUnreachable(error.response["Error"]["Code"]) from error
        except BotoCoreError as error:
            raise PlaceUnreachable(type(error).__name__) from error

    def newest(self) -> str | None:
        """The note that sorts first."""
        try:
            found = self._client().list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
            first = next((one["Key"] for one in found.get("Contents", ())), None)
            if first is None:
                return None
            body: bytes = self._client().get_object(Bucket=self._bucket, Key=first)["Body"].read()
        except ClientError as error:
            raise PlaceUnreachable(error.response["Error"]["Code"]) from error
        except BotoCoreError as error:
            raise PlaceUnreachable(type(error).__name__) from error
        return body.decode(errors="replace")

    def _client(self) -> Any:
        if self._made is None:
            waits = Config(connect_timeout=TIMEOUT_SECONDS, read_timeout=TIMEOUT_SECONDS, retries={"max_attempts": 2})
            self._made = boto3.client("s3", endpoint_url=self._endpoint or None, config=waits)
        return self._made


class WebhookPlace:
    """An address that is sent each note. It is signed as a note, and by a shared secret where there is one."""

    def __init__(self, url: str, secret: SecretStr | None = None) -> None:
        self.name = f"webhook:{httpx.URL(url).host}"
        self._url = url
        self._secret = secret

    def push(self, size: int, note: str) -> None:
        """Send the note and wait for an answer of the 200s."""
        headers = {"content-type": "text/plain; charset=utf-8", "x-oiab-checkpoint-size": str(size)}
        if self._secret:
            headers["x-oiab-signature"] = signature(self._secret, note.encode())
        try:
            httpx.post(self._url, content=note.encode(), headers=headers, timeout=TIMEOUT_SECONDS).raise_for_status()
        except httpx.HTTPStatusError as error:
            raise PlaceUnreachable(f"it answered {error.response.status_code}") from error
        except httpx.HTTPError as error:
            raise PlaceUnreachable(type(error).__name__) from error

    def newest(self) -> str | None:
        """Nothing: an address only takes."""
        return None


def signature(secret: SecretStr, body: bytes) -> str:
    """By which a receiver knows that a message came from who shares a secret with it."""
    return f"sha256={hmac.new(secret.get_secret_value().encode(), body, hashlib.sha256).hexdigest()}"


def _size_of(note: str) -> int:
    """The size that a note says, which is not believed yet."""
    size = note.split("\n", 2)[1]
    return int(size) if size.isdecimal() else 0


def split_notes(text: str, origin: str) -> list[str]:
    """The whole notes of a log in a text of notes that follow each other; what is torn is left out."""
    notes, begun = list[str](), list[str]()
    for line in text.split("\n")[:-1]:
        if line == TORN and notes and not begun:
            notes.pop()
        if line in {origin, TORN}:
            begun = []
        begun.append(line)
        if line.startswith(_DASH) and begun[0] == origin:
            notes.append("\n".join(begun) + "\n")
            begun = []
    return notes


def places_of(
    *, file: Path, s3: str, s3_endpoint: str, webhook: str, secret: SecretStr | None, key: SigningKey
) -> list[Place]:
    """The places that the settings name: the file always, the others beside it."""
    found: list[Place] = [FilePlace(file, key.origin)]
    if s3:
        bucket, _, prefix = s3.removeprefix("s3://").partition("/")
        found.append(S3Place(bucket, prefix, s3_endpoint))
    if webhook:
        found.append(WebhookPlace(webhook, secret))
    return found
