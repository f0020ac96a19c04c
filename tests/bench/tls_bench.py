"""What it costs that both sides of every call prove their names: the same calls with TLS and without, by turns.

The server is a process of its own: `python -m tests.bench.tls_bench FOLDER` serves in a folder until it is ended.
"""

import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import uvloop

from services.kit.caller import Caller, as_caller
from services.kit.channel import connect
from services.kit.mesh import MeshIdentity, peer_of, serve_as
from services.kit.settings import MeshSettings
from services.kit.user_token import HEADER, UserTokens
from tests.bench.fanout_bench import process
from tests.bench.report import Table, median, percentile
from tests.identities import certificates, identity

Context = grpc.aio.ServicerContext[Any, Any]

CALLS = 300
ROUNDS = 10
MESSAGES = 10_000
HANDSHAKES = 40
MESSAGE = b"x" * 120
SOMEBODY = Caller(uuid4(), uuid4(), frozenset(f"group{number}.permission{number}" for number in range(30)))


class Methods:
    """As little as a method can do, and what a receiver finds out of who calls."""

    def __init__(self, identity: MeshIdentity) -> None:
        self._tokens = UserTokens(identity)

    async def nothing(self, request: bytes, _: Context) -> bytes:
        """Answer what was asked."""
        return request

    async def who(self, request: bytes, context: Context) -> bytes:
        """Find out which service calls, and for which user."""
        peer_of(context)
        for key, value in context.invocation_metadata() or ():
            if key == HEADER:
                self._tokens.read(str(value))
        return request

    async def stream(self, request: bytes, _: Context) -> AsyncIterator[bytes]:
        """As many messages as are asked for."""
        for _number in range(int(request)):
            yield MESSAGE

    def handlers(self) -> grpc.GenericRpcHandler:
        """The methods."""
        return grpc.method_handlers_generic_handler(
            "bench.Bench",
            {
                "Nothing": grpc.unary_unary_rpc_method_handler(self.nothing),
                "Who": grpc.unary_unary_rpc_method_handler(self.who),
                "Stream": grpc.unary_stream_rpc_method_handler(self.stream),
            },
        )


async def serve(folder: Path) -> None:
    """Serve on two sockets, one with TLS and one without."""
    identity = MeshSettings().identity("queue")
    serve_as(identity)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Methods(identity).handlers(),))
    server.add_insecure_port(f"unix://{folder}/plain.sock")
    server.add_secure_port(f"unix://{folder}/tls.sock", identity.server_credentials())
    await server.start()
    await server.wait_for_termination()


def open_channel(folder: Path) -> grpc.aio.Channel:
    """GRPC's own channel, without TLS."""
    return grpc.aio.insecure_channel(f"unix://{folder}/plain.sock")


def tls_channel(folder: Path) -> grpc.aio.Channel:
    """GRPC's own channel, with TLS."""
    options = [("grpc.ssl_target_name_override", "queue.orginabox.internal")]
    credentials = identity("api").channel_credentials()
    return grpc.aio.secure_channel(f"unix://{folder}/tls.sock", credentials, options=options)


def our_channel(folder: Path) -> grpc.aio.Channel:
    """The channel of the mesh, which adds deadlines, the trace, the user, and renews."""
    return connect(f"unix://{folder}/tls.sock", to="queue", identity=identity("api"))


Dial = Callable[[Path], grpc.aio.Channel]
WAYS: Sequence[tuple[str, Dial, str, bool]] = (
    ("gRPC's channel, no TLS", open_channel, "Nothing", False),
    ("gRPC's channel, TLS 1.3 with both certificates", tls_channel, "Nothing", False),
    ("our channel", our_channel, "Nothing", False),
    ("our channel, and the receiver asks which service calls", our_channel, "Who", False),
    ("our channel, and the receiver asks for which user, too", our_channel, "Who", True),
)


async def unary(channel: grpc.aio.Channel, method: str, calls: int) -> list[float]:
    """Microseconds of each of so many calls, one after the other."""
    call: Any = channel.unary_unary(f"/bench.Bench/{method}")
    took = []
    for _ in range(calls):
        started = time.perf_counter()
        await call(MESSAGE)
        took.append((time.perf_counter() - started) * 1e6)
    return took


async def stream(channel: grpc.aio.Channel) -> float:
    """Microseconds for each message of a stream at full speed."""
    call: Any = channel.unary_stream("/bench.Bench/Stream")
    started = time.perf_counter()
    count = len([message async for message in call(str(MESSAGES).encode())])
    assert count == MESSAGES
    return (time.perf_counter() - started) * 1e6 / MESSAGES


@asynccontextmanager
async def served() -> AsyncIterator[Path]:
    """The server, in a process of its own."""
    told = {"OIAB_CERTIFICATES": str(certificates("queue", "api"))}
    with (
        tempfile.TemporaryDirectory(prefix="oiab-") as name,
        process(sys.executable, "-m", "tests.bench.tls_bench", name, **told),
    ):
        for dial in (open_channel, tls_channel):
            async with dial(Path(name)) as channel:
                await channel.channel_ready()
        yield Path(name)


async def measure_calls(folder: Path) -> Table:
    """Unary calls and streams by each way."""
    calls: dict[str, list[float]] = {way: [] for way, *_ in WAYS}
    streams: dict[str, list[float]] = {way: [] for way, *_ in WAYS[:3]}
    async with AsyncExitStack() as stack:
        channels = {way: await stack.enter_async_context(dial(folder)) for way, dial, *_ in WAYS}
        for number in range(ROUNDS + 1):
            for way, _, method, for_user in WAYS:
                if for_user:
                    with as_caller(SOMEBODY):
                        took = await unary(channels[way], method, CALLS)
                else:
                    took = await unary(channels[way], method, CALLS)
                calls[way] += took if number else []  # the first round warms up
            for way in streams:
                streams[way] += [await stream(channels[way])] if number else []
    table = Table(
        "TLS between the parts",
        f"One client, a server in a process of its own, a unix socket, messages of {len(MESSAGE)} bytes. Unary: "
        f"{CALLS * ROUNDS:,} calls one after the other; stream: {MESSAGES:,} messages at full speed, {ROUNDS} times; "
        "all ways by turns. The user has 30 permissions. Microseconds.",
        ("", "unary p50", "unary p99", "stream, each message"),
    )
    for way, took in calls.items():
        each = f"{median(streams[way]):.1f}" if way in streams else ""
        table.rows.append([way, f"{median(took):.0f}", f"{percentile(took, 99):.0f}", each])
    return table


async def measure_steps(folder: Path) -> Table:
    """What each step costs by itself."""
    sender, receiver = UserTokens(identity("api")), identity("queue")
    tokens = [UserTokens(identity("api")).of(SOMEBODY, "queue") for _ in range(200)]
    reader = UserTokens(receiver)
    steps = {
        "a new connection without TLS, first call included": await _connections(folder, open_channel),
        "a new connection with TLS, first call included": await _connections(folder, tls_channel),
        "a user token is made": _each(lambda _: UserTokens(identity("api")).of(SOMEBODY, "queue"), range(200)),
        "a user token is used again": _each(lambda _: sender.of(SOMEBODY, "queue"), range(2000)),
        "a user token is read for the first time": _each(reader.read, tokens),
        "a user token is read again": _each(reader.read, tokens * 10),
        "has the certificate of this process changed?": _each(lambda _: receiver.credentials, range(2000)),
    }
    rows: list[Sequence[str]] = [[step, f"{median(took):.1f}"] for step, took in steps.items()]
    method = "Microseconds, p50. Tokens and certificates are kept, so most calls pay for what is done again."
    return Table("TLS between the parts, by step", method, ("", "p50"), rows)


async def _connections(folder: Path, dial: Dial) -> list[float]:
    took = []
    for _ in range(HANDSHAKES):
        started = time.perf_counter()
        async with dial(folder) as channel:
            await unary(channel, "Nothing", 1)
            took.append((time.perf_counter() - started) * 1e6)
    return took


def _each(work: Callable[[Any], object], arguments: Sequence[Any]) -> list[float]:
    took = []
    for argument in arguments:
        started = time.perf_counter()
        work(argument)
        took.append((time.perf_counter() - started) * 1e6)
    return took


async def run() -> list[Table]:
    """Measure everything."""
    async with served() as folder:
        return [await measure_calls(folder), await measure_steps(folder)]


async def main() -> None:
    """Measure, and print."""
    for table in await run():
        print(table.markdown(), flush=True)


if __name__ == "__main__":
    work: Awaitable[None] = serve(Path(sys.argv[1])) if sys.argv[1:] else main()
    uvloop.run(work)  # type: ignore[arg-type]
