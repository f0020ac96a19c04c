"""Metrics for Prometheus: each service tells its own over HTTP, on a unix socket beside the one that it serves on.

A room declares what it measures where it measures it, with the client library's own types:

    FLUSHED = Histogram("oiab_api_flush_events", "Events written by one flush of the turn log.", buckets=POWERS)

and its `__main__` tells it while the service runs:

    with telling(settings.metrics_at("api")):
        await serve(...)

Read it with `curl --unix-socket $OIAB_RUN_DIR/api-metrics.sock http://metrics/metrics`. Where a scraper needs TCP, such
as in a container, `OIAB_METRICS_ADDRESS=0.0.0.0:9464` says so. Names begin with `oiab_<service>_`, times are in
seconds, and no label holds what grows without end: no tenant, no job, no session.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from threading import Thread
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app

POWERS = tuple(float(1 << power) for power in range(15))
"""Buckets for counts: 1, 2, 4 to 16,384."""
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Buckets for times, from a millisecond to five minutes."""


@contextmanager
def telling(address: str) -> Iterator[None]:
    """Tell the metrics of this process as long as the block lasts.

    Args:
        address: Where to listen: `unix:///run/queue-metrics.sock` or `host:port`.
    """
    with _bound(address) as server:
        server.set_app(make_wsgi_app())
        thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def _bound(address: str) -> WSGIServer:
    if address.startswith("unix://"):
        path = Path(address.removeprefix("unix://"))
        path.unlink(missing_ok=True)  # a killed process left it
        return _UnixServer(str(path), _Quiet)  # type: ignore[arg-type] # the class below knows what to do with it
    host, _, port = address.rpartition(":")
    return _TcpServer((host, int(port)), _Quiet)


class _TcpServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _UnixServer(_TcpServer):
    """The library's server binds to a host and a port, and asks the name of the host."""

    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "metrics", 0
        self.setup_environ()

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        connection, _ = self.socket.accept()
        return connection, ("local", 0)


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing: a scrape every few seconds is no news."""
