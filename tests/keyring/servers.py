"""Real HTTP servers on this machine that can be slow, refuse, fail, and go away."""

import io
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import trustme
from werkzeug import Request, Response
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

App = Callable[[Any, Any], Any]


@dataclass
class Faults:
    """What goes wrong with a server."""

    delay: float = 0.0
    """How long each answer takes."""
    deny: bool = False
    """Whether it refuses everybody."""
    fail: int = 0
    """How many answers from now on are a failure of the server."""
    seen: list[str] = field(default_factory=list)
    """The paths of the calls."""


@dataclass
class Server:
    """A running server."""

    inner: BaseWSGIServer
    faults: Faults
    thread: threading.Thread

    @property
    def host(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.inner.server_port}"

    def stop(self) -> None:
        """Go away: connections are refused from now on."""
        self.inner.shutdown()
        self.inner.server_close()
        self.thread.join(10)


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: Any, **__: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(
    app: App, failure: Callable[[Request], Response], denial: Callable[[Request], Response], ca: trustme.CA | None
) -> Iterator[Server]:
    """Serve an application with faults, with TLS where there is a CA.

    Args:
        app: The application.
        failure: What it answers when it fails. It is given the request, to tell too much of it.
        denial: What it answers when it denies.
        ca: Who vouches for it.
    """
    faults = Faults()

    @Request.application
    def faulty(request: Request) -> Any:
        faults.seen.append(request.path)
        # Whoever answers reads the body again.
        request.environ["wsgi.input"] = io.BytesIO(request.get_data(cache=True))
        time.sleep(faults.delay)
        if faults.fail > 0:
            faults.fail -= 1
            return failure(request)
        return denial(request) if faults.deny else app

    context = None
    if ca:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("127.0.0.1").configure_cert(context)
    inner = make_server("127.0.0.1", 0, faulty, threaded=True, request_handler=_Quiet, ssl_context=context)
    thread = threading.Thread(target=inner.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    server = Server(inner, faults, thread)
    try:
        yield server
    finally:
        if thread.is_alive():
            server.stop()
