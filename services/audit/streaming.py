"""Streams the log to a SIEM as OCSF events: by webhook, or by syslog (RFC 5424) over TCP or TLS.

Up to where a receiver has a tenant's log is in the database, and moves when the receiver has taken a batch: every
record arrives, some perhaps twice, each with its own id. Syslog has no answer: what a receiver read before it died is
taken as received, so a webhook is the stronger of the two.
"""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from pydantic import SecretStr

from services.audit import metrics, ocsf
from services.audit.exporting import record_of
from services.audit.places import signature
from services.audit.record import Filter, Record
from services.audit.store import Store
from services.kit import telemetry
from services.kit.errors import ServiceUnavailable

BATCH = 500
LOOK_SECONDS = 1.0
TIMEOUT_SECONDS = 10.0
LONGEST_PAUSE = 60.0
_NOTICE = "<109>1"
"""Facility 13, log audit; severity 5, notice; version 1."""


class ReceiverAway(Exception):
    """The receiver does not take records just now."""


class Receiver(Protocol):
    """Who is sent the records."""

    name: str

    async def send(self, records: Sequence[Record]) -> None:
        """Return when the receiver has them."""


class WebhookReceiver:
    """An address that is sent batches of events, one JSON object per line."""

    def __init__(self, url: str, secret: SecretStr | None) -> None:
        self.name = f"webhook:{httpx.URL(url).host}"
        self._url = url
        self._secret = secret
        self._client = httpx.AsyncClient(timeout=TIMEOUT_SECONDS)

    async def send(self, records: Sequence[Record]) -> None:
        """Send a batch and wait for an answer of the 200s."""
        body = "".join(map(ocsf.line_of, records)).encode()
        headers = {"content-type": "application/x-ndjson"}
        if self._secret:
            headers["x-oiab-signature"] = signature(self._secret, body)
        try:
            (await self._client.post(self._url, content=body, headers=headers)).raise_for_status()
        except httpx.HTTPStatusError as error:
            raise ReceiverAway(f"it answered {error.response.status_code}") from error
        except httpx.HTTPError as error:
            raise ReceiverAway(type(error).__name__) from error


class SyslogReceiver:
    """A syslog server. Messages are framed by their length (RFC 6587 and 5425)."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self.name = f"syslog:{host}:{port}"
        self._host, self._port, self._context = host, port, context
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, records: Sequence[Record]) -> None:
        """Write a batch and wait until the system has taken it."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                reader, writer = await self._open()
                writer.write(b"".join(map(_frame, records)))
                await writer.drain()
                # A server that has closed shows it by the end of its own side.
                if reader.at_eof():
                    raise ConnectionResetError("the server has closed the connection")
        except (OSError, TimeoutError) as error:
            await self.close()
            raise ReceiverAway(type(error).__name__) from error

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams and self._streams[0].at_eof():
            await self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, ssl=self._context)
        return self._streams

    async def close(self) -> None:
        """End the connection; the next batch makes a new one."""
        if self._streams:
            writer, self._streams = self._streams[1], None
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


class Streamer:
    """Sends the log of every tenant to a receiver, for ever."""

    def __init__(self, store: Store, receiver: Receiver) -> None:
        self._store = store
        self._receiver = receiver

    async def run(self) -> None:
        """Send for ever; while the receiver is away, ask again ever more seldom."""
        pause = LOOK_SECONDS
        while True:
            try:
                await self.drain()
                pause = LOOK_SECONDS
            except (ReceiverAway, ServiceUnavailable) as error:
                metrics.STREAM_FAILURES.inc()
                pause = min(2 * pause, LONGEST_PAUSE)
                telemetry.log().warning("audit records wait for the stream", to=self._receiver.name, cause=str(error))
            await asyncio.sleep(pause)

    async def drain(self) -> None:
        """Send all that is new."""
        while await self._round():
            pass

    async def _round(self) -> bool:
        async with self._store.transaction() as tx:
            behind = await tx.behind(self._receiver.name)
        for tenant_id, after in behind:
            await self._send(tenant_id, after)
        return bool(behind)

    async def _send(self, tenant_id: UUID, after: int) -> None:
        async with self._store.transaction() as tx:
            links = await tx.chain(Filter(tenant_id), after, BATCH)
        if not links:
            return
        await self._receiver.send([record_of(link) for link in links])
        async with self._store.transaction() as tx:
            await tx.move_cursor(tenant_id, self._receiver.name, links[-1][0].sequence)
        metrics.STREAMED.inc(len(links))


def receiver_of(address: str, secret: SecretStr | None, ca: Path | None) -> Receiver:
    """The receiver that a setting names.

    Raises:
        ValueError: It names none.
    """
    url = urlsplit(address)
    match url.scheme:
        case "https" | "http":
            return WebhookReceiver(address, secret)
        case "syslog+tcp" if url.hostname:
            return SyslogReceiver(url.hostname, url.port or 601, None)
        case "syslog+tls" if url.hostname:
            context = ssl.create_default_context(cafile=str(ca) if ca else None)
            return SyslogReceiver(url.hostname, url.port or 6514, context)
    raise ValueError(f"OIAB_AUDIT_STREAM={address!r}: say https://..., syslog+tls://host:6514 or syslog+tcp://host:601")


def _frame(record: Record) -> bytes:
    time = record.create_time.isoformat(timespec="microseconds")
    head = f"{_NOTICE} {time} {socket.gethostname()[:255]} orginabox - {record.action[:32]} - "
    message = head.encode() + b"\xef\xbb\xbf" + ocsf.line_of(record).rstrip("\n").encode()
    return f"{len(message)} ".encode() + message
