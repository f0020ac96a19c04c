"""A real PostgreSQL for tests: one server per run, one template per room, one clone per test."""

import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from services.box.postgres import EXTENSIONS, OWNER, binary, own_namespace
from services.box.roles import migrations
from services.kit.migrate import migrate
from services.kit.tenancy import DatabaseUrls, service_roles

SPARE_SCHEMA = "room"
"""A schema that no service has, for tests of what all schemas have in common."""

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
        """The address of a database for its administrator, who is above all policies."""
        return f"postgresql://postgres@/{database}?host={quote(str(self._folder))}"

    def database(self, *rooms: str) -> str:
        """The address of a new database with the schemas of the rooms, for its administrator."""
        if rooms not in self._templates:
            self._templates[rooms] = self._make_template(rooms)
        name = f"test_{uuid.uuid4().hex}"
        self._administer(f"CREATE DATABASE {name} OWNER {OWNER} TEMPLATE {self._templates[rooms]} STRATEGY file_copy")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Remove a database, whoever is connected to it."""
        self._administer(f"DROP DATABASE IF EXISTS {conninfo_to_dict(url)['dbname']} WITH (FORCE)")

    def _make_template(self, rooms: tuple[str, ...]) -> str:
        name = "_".join(("template", *rooms))
        self._administer(f"CREATE DATABASE {name} OWNER {OWNER}")
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            for extension in EXTENSIONS:
                connection.execute(f"CREATE EXTENSION {extension}".encode())
        for room in rooms:
            migrate(as_owner(self.url(name)), room, ROOMS / room / "migrations")
        return name

    def _administer(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())


def make_roles(url: str) -> None:
    """Make the roles that an installation has on a server: the owner of the tables, and the logins of the services."""
    schemas = sorted({*migrations(), SPARE_SCHEMA})
    with psycopg.connect(url, autocommit=True) as administrator:
        there = {name for (name,) in administrator.execute("SELECT rolname FROM pg_roles")}
        for role in {OWNER, *(role for schema in schemas for role in service_roles(schema).both)} - there:
            administrator.execute(f"CREATE ROLE {role} LOGIN".encode())


def as_environment(url: str, schema: str) -> dict[str, str]:
    """The same in the environment of a process of the service."""
    return {f"OIAB_{name.upper()}": value for name, value in as_settings(url, schema).items()}


def as_administrator(url: str) -> str:
    """The address for who is above all policies, of a database whose address is another's."""
    return make_conninfo(url, user="postgres")


def as_owner(url: str) -> str:
    """The address for the role that owns the tables, and that migrations run as."""
    return make_conninfo(url, user=OWNER)


def as_service(url: str, schema: str) -> DatabaseUrls:
    """The addresses for the two logins of a service: what a service under test is given."""
    roles = service_roles(schema)
    return DatabaseUrls(make_conninfo(url, user=roles.tenant), make_conninfo(url, user=roles.system))


def as_settings(url: str, schema: str) -> dict[str, str]:
    """The same as settings of the service."""
    urls = as_service(url, schema)
    return {"database_url": urls.tenant, "database_system_url": urls.system}


@contextmanager
def postgres_server(flags: Sequence[str] = FAST) -> Iterator[TestServer]:
    """Run a server of the embedded PostgreSQL in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="oiab-pg-") as folder:
        data = Path(folder, "data")
        _quiet(*own_namespace(), str(binary("initdb")), "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync")
        server = subprocess.Popen(
            (*own_namespace(), str(binary("postgres")), "-D", str(data), "-k", folder, "-h", "", *flags),
            stderr=subprocess.DEVNULL,
            env=os.environ | {"LC_ALL": "C.UTF-8"},
        )
        try:
            made = TestServer(Path(folder))
            _wait_until_ready(made)
            make_roles(made.url("postgres"))
            yield made
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
