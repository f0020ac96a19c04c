"""Migrations: numbered .sql files of a service, applied before it starts, by the owner of its tables.

Each file, the policies of the tables in it and the mark that it was applied are one transaction, so that a process
killed anywhere leaves nothing half done, and no table is ever there without its policies. (The engines that were looked
at commit file and mark apart, or lock with a row that outlives its process.)
"""

import hashlib
from pathlib import Path

import psycopg
import stamina
from psycopg import sql

from services.kit.queries import load_queries
from services.kit.tenancy import service_roles

_LOCK = "SELECT pg_advisory_xact_lock(%s)"
_MARKS = """CREATE TABLE IF NOT EXISTS migration (
    name text PRIMARY KEY, digest text NOT NULL, apply_time timestamptz NOT NULL DEFAULT now()
)"""
_PROTECT = load_queries(Path(__file__).with_name("protect.sql"))


class MigrationChanged(Exception):
    """A file that was applied says something else now: what it would do cannot be undone."""


class RolesMissing(Exception):
    """The logins of the service are not there."""


@stamina.retry(on=psycopg.OperationalError, attempts=None, timeout=60, wait_initial=0.05, wait_max=1)
def migrate(url: str, schema: str, folder: Path) -> None:
    """Bring the schema up to date. Waits up to a minute for a database that is still starting.

    Args:
        url: The address of the database in libpq's form, for the role that owns the tables.
        schema: The schema; it is made when it does not exist. Its service's two logins must be there.
        folder: The folder of the files `0001_<what>.sql`, applied in the order of their names.

    Raises:
        MigrationChanged: A file was changed after it was applied.
        RolesMissing: A login of the service is not there.
    """
    # The owner sees rows only when it says so: a migration that changes rows has to see them all.
    options = f"-c search_path={schema},public -c lock_timeout=55s -c statement_timeout=120s -c oiab.owner=works"
    with psycopg.connect(url, options=options) as connection:
        connection.execute(_LOCK, (_lock_key(schema),))
        _require_roles(connection, schema)
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
        connection.execute(_MARKS)
        connection.execute(_protect("prepare", schema))
        applied: dict[str, str] = dict(connection.execute("SELECT name, digest FROM migration").fetchall())
        connection.commit()
        for path in sorted(folder.glob("*.sql")):
            _apply(connection, schema, path, applied)
        connection.execute(_LOCK, (_lock_key(schema),))
        connection.execute("SELECT protect_tables()")
        connection.execute("REVOKE ALL ON migration FROM " + ", ".join(service_roles(schema).both))
        connection.execute(_protect("finish", schema))


def _apply(connection: psycopg.Connection, schema: str, path: Path, applied: dict[str, str]) -> None:
    text = path.read_bytes()
    digest = hashlib.sha256(text).hexdigest()
    if applied.get(path.stem, digest) != digest:
        raise MigrationChanged(f"{path.name} was changed after it was applied; put the change into a new file")
    if path.stem in applied:
        return
    with connection.transaction():
        connection.execute(_LOCK, (_lock_key(schema),))
        # Whoever had the lock before may have applied it since we looked.
        if connection.execute("SELECT 1 FROM migration WHERE name = %s", (path.stem,)).fetchone():
            return
        connection.execute(text)
        connection.execute("SELECT protect_tables()")
        connection.execute("INSERT INTO migration (name, digest) VALUES (%s, %s)", (path.stem, digest))


def _require_roles(connection: psycopg.Connection, schema: str) -> None:
    wanted = service_roles(schema).both
    rows = connection.execute("SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = ANY(%s)", (list(wanted),))
    if missing := set(wanted) - {name for (name,) in rows}:
        raise RolesMissing(f"the role {min(missing)} is not there; `oiab database roles` says how to make it")


def _protect(part: str, schema: str) -> sql.Composed:
    roles = service_roles(schema)
    return sql.SQL(_PROTECT[part]).format(
        schema=sql.Identifier(schema),
        schema_name=sql.Literal(schema),
        tenant_name=sql.Literal(roles.tenant),
        tenant=sql.Identifier(roles.tenant),
        system=sql.Identifier(roles.system),
    )


def _lock_key(schema: str) -> int:
    return int.from_bytes(hashlib.sha256(f"migrate {schema}".encode()).digest()[:8], signed=True)
