"""Migrations: numbered .sql files of a service, applied at its start, one process at a time.

Each file and the mark that it was applied are one transaction, so that a process killed anywhere leaves nothing half
done. (The engines that were looked at commit the two apart, or lock with a row that outlives its process.)
"""

import hashlib
from pathlib import Path

import psycopg
import stamina
from psycopg import sql

_LOCK = "SELECT pg_advisory_xact_lock(%s)"
_MARKS = """CREATE TABLE IF NOT EXISTS migration (
    name text PRIMARY KEY, digest text NOT NULL, apply_time timestamptz NOT NULL DEFAULT now()
)"""


class MigrationChanged(Exception):
    """A file that was applied says something else now: what it would do cannot be undone."""


@stamina.retry(on=psycopg.OperationalError, attempts=None, timeout=60, wait_initial=0.05, wait_max=1)
def migrate(url: str, schema: str, folder: Path) -> None:
    """Bring the schema up to date. Waits up to a minute for a database that is still starting.

    Args:
        url: The address of the database in libpq's form.
        schema: The schema; it is made when it does not exist.
        folder: The folder of the files `0001_<what>.sql`, applied in the order of their names.

    Raises:
        MigrationChanged: A file was changed after it was applied.
    """
    options = f"-c search_path={schema},public -c lock_timeout=55s -c statement_timeout=120s"
    with psycopg.connect(url, options=options) as connection:
        connection.execute(_LOCK, (_lock_key(schema),))
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
        connection.execute(_MARKS)
        applied: dict[str, str] = dict(connection.execute("SELECT name, digest FROM migration").fetchall())
        connection.commit()
        for path in sorted(folder.glob("*.sql")):
            _apply(connection, schema, path, applied)


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
        connection.execute("INSERT INTO migration (name, digest) VALUES (%s, %s)", (path.stem, digest))


def _lock_key(schema: str) -> int:
    return int.from_bytes(hashlib.sha256(f"migrate {schema}".encode()).digest()[:8], signed=True)
