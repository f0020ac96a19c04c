"""Every room that seals has the same table of data keys, and lets the database watch over them."""

from pathlib import Path

import pytest

KEY = "(tenant_id, sealed_by) REFERENCES data_key (tenant_id, key_id)"
TABLES = {"runtime": ("provider", "applied_provider"), "identity": ("identity_provider",)}
TABLE = Path("services/kit/keyring/data_key_table.sql").read_text()


@pytest.mark.parametrize(("room", "tables"), TABLES.items())
def test_a_room_has_the_table_and_the_foreign_keys(room: str, tables: tuple[str, ...]) -> None:
    migrations = "".join(path.read_text() for path in sorted(Path("services", room, "migrations").glob("*.sql")))
    assert TABLE in migrations
    for table in tables:
        assert f"{table}_data_key FOREIGN KEY {KEY}" in migrations
