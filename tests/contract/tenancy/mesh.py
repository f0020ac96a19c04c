"""Api, Queue, Runtime and Audit in this process on one database, with two tenants in it."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from pydantic import SecretStr

from services.api.__main__ import serve_api
from services.api.settings import ApiSettings
from services.audit.__main__ import serve_audit
from services.audit.settings import AuditSettings
from services.queue.__main__ import QueueSettings, serve_queue
from services.runtime.__main__ import serve_runtime
from services.runtime.settings import RuntimeSettings
from tests.allowed import AllowedChannel
from tests.contract.api.peers import Peers, served_peer
from tests.identities import certificates
from tests.people import people
from tests.postgres import as_settings

KEY = "the-key-of-the-box"
PASSWORD = "the moon was late"
OPERATOR = f"Bearer {KEY}"


@dataclass(frozen=True)
class Answer:
    """What a call came to: the name of its code, and all that was said."""

    code: str
    text: str
    messages: list[Message]


@dataclass(frozen=True)
class Mesh:
    """The public methods, called by their descriptors."""

    channel: grpc.aio.Channel

    async def call(self, method: MethodDescriptor, who: str, fields: dict[str, Any]) -> Answer:
        """Call a method as somebody and read all that it answers."""
        request = json_format.ParseDict(fields, message_factory.GetMessageClass(method.input_type)())
        answered = message_factory.GetMessageClass(method.output_type)
        path = f"/{method.containing_service.full_name}/{method.name}"
        form = (type(request).SerializeToString, answered.FromString)
        metadata = (("authorization", who), ("x-forwarded-for", "127.0.0.1"))
        try:
            if method.server_streaming:
                stream = self.channel.unary_stream(path, *form)(request, metadata=metadata, timeout=15)
                found = [message async for message in stream]
            else:
                found = [await self.channel.unary_unary(path, *form)(request, metadata=metadata, timeout=15)]
        except grpc.aio.AioRpcError as error:
            return Answer(error.code().name, f"{error.details()} {error.trailing_metadata()}", [])
        return Answer("OK", " ".join(map(str, found)), found)


@asynccontextmanager
async def running(url: str) -> AsyncIterator[Mesh]:
    """Run the services until the block ends."""
    with tempfile.TemporaryDirectory(prefix="oiab-") as folder:
        stop = asyncio.Event()

        def told(room: str) -> dict[str, Any]:
            return {
                "home": Path(folder),
                "run_dir": Path(folder),
                "certificates": certificates("api", "audit", "queue", "runtime"),
                **as_settings(url, room),
            }

        api = ApiSettings(**told("api"), ORGINABOX_API_KEY=SecretStr(KEY))  # type: ignore[call-arg]
        servers = [
            asyncio.create_task(served_peer("sandbox", folder, Peers(), stop)),  # type: ignore[abstract]
            asyncio.create_task(serve_audit(AuditSettings(**told("audit")), stop)),
            asyncio.create_task(serve_runtime(RuntimeSettings(**told("runtime")), stop)),
            asyncio.create_task(serve_queue(QueueSettings(**told("queue")), stop)),
            asyncio.create_task(serve_api(api, stop, people(api))),
        ]
        async with AllowedChannel(api.address("api"), "api") as channel:
            ready = asyncio.ensure_future(channel.channel_ready())
            await asyncio.wait({ready, *servers}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
            for server in servers:
                if server.done():
                    server.result()
            yield Mesh(channel)
        stop.set()
        await asyncio.gather(*servers)
