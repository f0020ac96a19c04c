"""A real PostgreSQL for tests: one server per run, one template per room, one clone per test."""

import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from services.box.postgres import EXTENSIONS, binary, own_namespace
from services.kit.migrate import migrate

ROOMS = Path(__file__).parents[1] / "services"

# Nothing of a test run has to survive the machine.
FAST = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "max_connections=200")


class TestServer:
    """A running server that hands out databases."""

    __test__ = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._templates: dict[tuple[str, ...], str] = {}

    def url(self, database: str) -> str:
        """The address of a database."""
        return f"postgresql://postgres@/{database}?host={quote(str(self._folder))}"

    def database(self, *rooms: str) -> str:
        """The address of a new database with the schemas of the rooms."""
        if rooms not in self._templates:
            self._templates[rooms] = self._make_template(rooms)
        name = f"test_{uuid.uuid4().hex}"
        self._administer(f"CREATE DATABASE {name} TEMPLATE {self._templates[rooms]} STRATEGY file_copy")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Remove a database, whoever is connected to it."""
        self._administer(f"DROP DATABASE IF EXISTS {conninfo_to_dict(url)['dbname']} WITH (FORCE)")

    def _make_template(self, rooms: tuple[str, ...]) -> str:
        name = "_".join(("template", *rooms))
        self._administer(f"CREATE DATABASE {name}")
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            for extension in EXTENSIONS:
                connection.execute(f"CREATE EXTENSION {extension}".encode())
        for room in rooms:
            migrate(self.url(name), room, ROOMS / room / "migrations")
        return name

    def _administer(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())


@contextmanager
def postgres_server() -> Iterator[TestServer]:
    """Run a server of the embedded PostgreSQL in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="oiab-pg-") as folder:
        data = Path(folder, "data")
        _quiet(*own_namespace(), str(binary("initdb")), "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync")
        server = subprocess.Popen(
            (*own_namespace(), str(binary("postgres")), "-D", str(data), "-k", folder, "-h", "", *FAST),
            stderr=subprocess.DEVNULL,
            env=os.environ | {"LC_ALL": "C.UTF-8"},
        )
        try:
            _wait_until_ready(TestServer(Path(folder)))
            yield TestServer(Path(folder))
        finally:
            server.send_signal(2)
            server.wait(20)


def _wait_until_ready(server: TestServer) -> None:
    for _ in range(200):
        try:
            psycopg.connect(server.url("postgres")).close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("the test server did not come up")


def _quiet(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)
