"""The fake box as a process of its own, and a relay before it that can be cut, for clients in other processes."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def running_box(key: str = "") -> Iterator[int]:
    """Run a fake box; its port."""
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fake_box", str(port), key],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            _wait_for(port, process)
            yield port
        finally:
            process.kill()


def client_environment(home: Path, port: int, key: str) -> dict[str, str]:
    """The environment of a client of the box, and nothing of the person who runs the tests."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TERM") if name in os.environ}
    ours = {
        "HOME": str(home),
        "OIAB_HOME": str(home / "oiab"),
        "OIAB_PORT": str(port),
        "ORGINABOX_API_KEY": key,
        "PYTHONPATH": str(ROOT),
        "LC_ALL": "C.UTF-8",
    }
    return kept | ours


class Relay:
    """Passes connections on to a port, until it is cut."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: set[socket.socket] = set()
        self.port = free_port()
        self._listener: socket.socket | None = None
        self.join()

    def join(self) -> None:
        """Take connections."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Close every connection, and take none."""
        if self._listener:
            # A thread that waits in accept() keeps the port open beyond close().
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                return
            self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + 60
    while time.monotonic() < limit and process.poll() is None:
        with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port), 1)):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}; the fake box ended with {process.poll()}")
