"""A sign-in that several programs share: its tokens in a file, renewed by one of them at a time.

A refresh token is good for one use, so two terminals must not use the same one: whoever renews holds a lock on the
file, reads what the other may have written, and writes the new pair before the lock is given back. The id of the
request is written before it is sent: a program that is killed in between, or whose answer is lost, asks for the same
answer again.
"""

import asyncio
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from orginabox_sdk.orginabox.api.v1 import AuthServiceStub, RefreshTokensRequest, TokenPair

from gateways.sdk.channel import Channel

EARLY_SECONDS = 30
"""So long before its end an access token is renewed."""


@dataclass(frozen=True)
class SignedIn:
    """What is kept of a sign-in, or of an API token.

    Attributes:
        handle: Who is signed in, for people.
        access_token: What goes with each call.
        access_expire_time: When it ends. None: it is an API token, which is not renewed.
        refresh_token: What the next pair is got with.
        pending: The request id of a renewal that was begun.
    """

    handle: str = ""
    access_token: str = ""
    access_expire_time: datetime | None = None
    refresh_token: str = ""
    pending: str = ""

    @classmethod
    def of(cls, pair: TokenPair, handle: str) -> Self:
        """A sign-in, as the box answers it."""
        return cls(handle, pair.access_token, pair.access_expire_time, pair.refresh_token)

    def fresh(self, now: datetime) -> bool:
        """Whether the access token can be used for a while."""
        expire = self.access_expire_time
        return expire is None or (expire - now).total_seconds() > EARLY_SECONDS

    def to_document(self) -> dict[str, str]:
        """As it stands in the file."""
        expire = self.access_expire_time.isoformat() if self.access_expire_time else ""
        values = {
            "handle": self.handle,
            "accessToken": self.access_token,
            "accessExpireTime": expire,
            "refreshToken": self.refresh_token,
            "pendingRequestId": self.pending,
        }
        return {name: value for name, value in values.items() if value}

    @classmethod
    def from_document(cls, found: Mapping[str, Any]) -> Self:
        """Read what stands in the file."""
        expire = found.get("accessExpireTime")
        return cls(
            str(found.get("handle", "")),
            str(found.get("accessToken", "")),
            datetime.fromisoformat(expire) if expire else None,
            str(found.get("refreshToken", "")),
            str(found.get("pendingRequestId", "")),
        )


class CredentialsFile:
    """The file of sign-ins, one for each box. Only its owner can read it.

    Args:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, target: str) -> SignedIn | None:
        """The sign-in to a box, or None. A file that cannot be read is none."""
        found = self._read().get(target)
        try:
            return SignedIn.from_document(found) if isinstance(found, dict) else None
        except (ValueError, TypeError):
            return None

    def put(self, target: str, signed_in: SignedIn | None) -> None:
        """Keep a sign-in to a box, or forget it."""
        boxes = self._read()
        if signed_in is None:
            boxes.pop(target, None)
        else:
            boxes[target] = signed_in.to_document()
        self._make_folder()
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump({"boxes": boxes}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from renewing meanwhile."""
        self._make_folder()
        descriptor = os.open(self.path.with_name(f".{self.path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self.path.read_text())["boxes"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return found if isinstance(found, dict) else {}

    def _make_folder(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)


class SharedSignIn:
    """The token for the next call to a box, renewed when it is about to end. A `Bearer` for a channel.

    Args:
        file: Where sign-ins are kept.
        target: The box.
        options: What else a channel to the box needs, such as `root_certificates`.

    Example:
        ```python
        bearer = SharedSignIn(CredentialsFile(path), "https://box.example")
        async with Client("https://box.example", bearer=bearer) as client:
            ...
        ```
    """

    def __init__(self, file: CredentialsFile, target: str, **options: Any) -> None:
        self._file = file
        self._target = target
        self._options = options
        self._kept: SignedIn | None = None
        self._turn = asyncio.Lock()

    async def __call__(self) -> str:
        """The token for the next call. Empty when nobody is signed in.

        Raises:
            Unauthenticated: The sign-in has ended.
        """
        now = datetime.now(UTC)
        if self._kept is None or not self._kept.fresh(now):
            async with self._turn:
                self._kept = self._file.get(self._target)
                if self._kept is not None and not self._kept.fresh(now):
                    self._kept = await self._renewed()
        return self._kept.access_token if self._kept else ""

    async def _renewed(self) -> SignedIn | None:
        lock = self._file.locked()
        await asyncio.to_thread(lock.__enter__)
        try:
            found = self._file.get(self._target)
            if found is None or found.fresh(datetime.now(UTC)):
                return found  # another program has done it meanwhile
            request_id = found.pending or str(uuid4())
            self._file.put(self._target, replace(found, pending=request_id))
            renewed = SignedIn.of(await self._refresh(found.refresh_token, request_id), found.handle)
            self._file.put(self._target, renewed)
            return renewed
        finally:
            lock.__exit__(None, None, None)

    async def _refresh(self, refresh_token: str, request_id: str) -> TokenPair:
        channel: Any = Channel(self._target, **self._options)
        try:
            request = RefreshTokensRequest(refresh_token=refresh_token, request_id=request_id)
            answer = await AuthServiceStub(channel).refresh_tokens(request)
        finally:
            await channel.close()
        return answer.tokens or TokenPair()
