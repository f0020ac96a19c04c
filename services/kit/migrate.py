"""Migrations: numbered .sql files of a service, applied by yoyo at its start, one process at a time."""

import hashlib
from pathlib import Path
from urllib.parse import quote

import psycopg
import stamina
from psycopg.conninfo import conninfo_to_dict
from yoyo import get_backend, read_migrations


@stamina.retry(on=psycopg.OperationalError, attempts=None, timeout=60, wait_initial=0.05, wait_max=1)
def migrate(url: str, schema: str, folder: Path) -> None:
    """Bring the schema up to date.

    Waits up to a minute for a database that is still starting. An advisory lock lets one process migrate at a time; it
    ends with its connection, so a process killed halfway leaves nothing to clean up (yoyo's own lock row would stay).

    Args:
        url: The address of the database in libpq's form.
        schema: The schema; it is made when it does not exist.
        folder: The folder of the files `0001_<what>.sql`, applied in order, each in a transaction.
    """
    key = int.from_bytes(hashlib.sha256(f"migrate {schema}".encode()).digest()[:8], signed=True)
    with psycopg.connect(url, autocommit=True, options="-c lock_timeout=55s") as lock:
        lock.execute("SELECT pg_advisory_lock(%s)", (key,))
        lock.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}".encode())
        backend = get_backend(_yoyo_url(url, schema))
        try:
            backend.apply_migrations(backend.to_apply(read_migrations(str(folder))))
        finally:
            backend.connection.close()


def _yoyo_url(url: str, schema: str) -> str:
    """The same address in yoyo's form: all of it as query parameters, so that a socket folder is as good as a host."""
    parts = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    database = parts.pop("dbname", "")
    parts["options"] = f"-c search_path={schema},public -c lock_timeout=4s -c statement_timeout=60s"
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parts.items())
    return f"postgresql+psycopg:///{quote(database, safe='')}?{query}"
