"""Both names on every connection: who gets in, who does not, and that certificates are renewed under running calls."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import grpc
import pytest

from services.kit.caller import Caller, as_caller
from services.kit.certificates import CERTIFICATE, KEY, Authority, new_installation_id, write_issued
from services.kit.channel import connect
from services.kit.mesh import MeshIdentity
from services.kit.user_token import HEADER, tokens_of
from tests.contract.kit.echo import Echo, echo, who
from tests.identities import authority, certificates, identity

SHORT = timedelta(seconds=3)


@pytest.fixture
def address(tmp_path: Path) -> str:
    """Where Queue listens."""
    return f"unix://{tmp_path}/queue.sock"


@pytest.fixture
async def queue(address: str) -> AsyncIterator[Echo]:
    """Queue, as far as this is concerned."""
    async with echo(address, identity("queue")) as made:
        yield made


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """The authority of another installation."""
    return Authority.create(tmp_path / "strange-ca", new_installation_id())


def issued_by(found: Authority, name: str, folder: Path, life: timedelta = timedelta(hours=1)) -> MeshIdentity:
    """An identity that an authority gave, trusted by whom it may be."""
    write_issued(folder / name, found.issue(name, life))
    return MeshIdentity(folder / name)


class Lying(Authority):
    """An authority whose key is used to give names of another installation."""

    @property
    def installation(self) -> str:
        """The other one."""
        return "another0installation"


async def test_both_sides_know_who_the_other_is(queue: Echo, address: str) -> None:
    for name in ("worker", "api", "envoy"):
        async with connect(address, to="queue", identity=identity(name)) as channel:
            assert (await who(channel))[0] == name
    assert queue.tls == {"TLSv1.3"}


async def refused(channel: grpc.aio.Channel) -> str:
    """A call that cannot be made, and why."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await who(channel, seconds=2)
    assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    return caught.value.details() or ""


async def test_another_service_is_not_taken_for_the_one_that_was_asked_for(queue: Echo, address: str) -> None:
    async with connect(address, to="audit", identity=identity("api")) as channel:
        assert "Hostname Verification Check failed" in await refused(channel)


async def test_a_client_of_another_installation_is_refused(
    queue: Echo, address: str, stranger: Authority, tmp_path: Path
) -> None:
    made = issued_by(stranger, "api", tmp_path)
    roots = authority().issue("api").roots  # it knows whom it calls
    credentials = grpc.ssl_channel_credentials(roots, made.credentials.key_pem, made.credentials.certificate_pem)
    async with _dialled(address, credentials) as channel:
        await refused(channel)


async def test_a_server_of_another_installation_is_refused(address: str, stranger: Authority, tmp_path: Path) -> None:
    server = echo(address, issued_by(stranger, "queue", tmp_path))
    async with server, connect(address, to="queue", identity=identity("api")) as channel:
        await refused(channel)


async def test_an_authority_gives_no_names_of_another_installation(queue: Echo, address: str, tmp_path: Path) -> None:
    """Its own certificate says so, and the handshake obeys it, whatever its key has signed."""
    lying = Lying(authority().certificate, authority()._key)
    made = issued_by(lying, "api", tmp_path)
    assert made.credentials.spiffe_id == "spiffe://another0installation/service/api"
    async with connect(address, to="queue", identity=made) as channel:
        await refused(channel)


async def test_a_client_without_a_certificate_is_refused(queue: Echo, address: str) -> None:
    async with _dialled(address, grpc.ssl_channel_credentials(authority().issue("api").roots)) as channel:
        await refused(channel)


async def test_a_client_without_tls_is_refused(queue: Echo, address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        await refused(channel)


async def test_an_expired_certificate_is_refused(queue: Echo, address: str, tmp_path: Path) -> None:
    made = issued_by(authority(), "api", tmp_path, timedelta(seconds=-1))
    async with connect(address, to="queue", identity=made) as channel:
        await refused(channel)


async def test_a_connection_does_not_outlive_its_certificate(address: str, tmp_path: Path) -> None:
    """A client that has no new certificate is out; who has a stream keeps it to its end."""
    queue = issued_by(authority(), "queue", tmp_path, timedelta(seconds=4))
    made = issued_by(authority(), "worker", tmp_path, timedelta(seconds=2))
    async with echo(address, queue), connect(address, to="queue", identity=made) as channel:
        assert (await who(channel))[0] == "worker"
        stream = channel.unary_stream("/echo.Echo/Count")(b"")
        await asyncio.sleep(2.5)
        await refused(channel)
        assert int(await stream.read()) > 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_older_tls_is_refused(queue: Echo, address: str, version: ssl.TLSVersion) -> None:
    answered = await asyncio.to_thread(_greet, address, version)
    assert bool(answered) is (version is ssl.TLSVersion.TLSv1_3)


async def test_api_says_for_whom_it_calls_and_nobody_else_does(queue: Echo, address: str) -> None:
    somebody = Caller(uuid4(), uuid4(), frozenset({"agents.run"}))
    for name in ("api", "worker"):
        async with connect(address, to="queue", identity=identity(name)) as channel:
            with as_caller(somebody):
                await who(channel)
            told = queue.metadata.get(HEADER)
            await who(channel)
            assert HEADER not in queue.metadata, "nobody is behind this call"
        if name == "api":
            assert tokens_of(identity("queue")).read(told or "") == somebody
        else:
            assert told is None


def _greet(address: str, newest: ssl.TLSVersion) -> bytes:
    """What the server answers to a client that has everything but a newer TLS than this."""
    identity("api")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = newest
    context.set_alpn_protocols(["h2"])
    folder = certificates("api") / "api"
    context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    with socket.socket(socket.AF_UNIX) as plain:
        plain.settimeout(5)
        plain.connect(address.removeprefix("unix://"))
        with suppress(ssl.SSLError, ConnectionError), context.wrap_socket(plain) as wrapped:
            wrapped.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
            return wrapped.recv(9)
    return b""


@asynccontextmanager
async def _dialled(address: str, credentials: grpc.ChannelCredentials) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.ssl_target_name_override", "queue.orginabox.internal")]
    async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
        yield channel
