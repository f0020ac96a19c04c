"""A database with all schemas, and in every table a row of one tenant, whatever the table is."""

from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg import sql

from services.kit.ids import new_id

_TABLES = """
SELECT n.nspname AS schema, c.relname AS name, c.relispartition AS partition,
       c.relrowsecurity AS secured, c.relforcerowsecurity AS forced,
       EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname = ANY (%s)
ORDER BY 1, 2
"""
_COLUMNS = """
SELECT a.attname, t.typname, t.typtype, t.typelem <> 0 AND t.typlen = -1, t.oid
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
  AND a.attgenerated = '' AND a.attidentity = '' AND (a.attnotnull OR a.attname = 'tenant_id')
ORDER BY a.attnum
"""
_PLAIN: dict[str, LiteralString] = {
    "uuid": "gen_random_uuid()",
    "text": "gen_random_uuid()::text",
    "bool": "false",
    "bytea": "decode(repeat('00', 32), 'hex')",
    "jsonb": "'{}'::jsonb",
    "json": "'{}'::json",
    "timestamptz": "now()",
    "interval": "interval '1 second'",
    "float8": "1",
    "int2": "1",
    "int4": "1",
    "int8": "(random() * 1e9)::bigint",
}


@dataclass(frozen=True)
class Table:
    """A table as the catalogue has it."""

    schema: str
    name: str
    partition: bool
    secured: bool
    forced: bool
    of_tenants: bool

    @property
    def identifier(self) -> sql.Identifier:
        """The table in a statement."""
        return sql.Identifier(self.schema, self.name)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def tables(connection: psycopg.Connection[Any], *schemas: str) -> list[Table]:
    """Every table of the schemas, beside the marks of `migrate`."""
    found = connection.execute(_TABLES, (list(schemas),)).fetchall()
    return [Table(*row) for row in found if row[1] != "migration"]


def insertion(connection: psycopg.Connection[Any], table: Table, tenant_id: UUID) -> sql.Composed:
    """The statement that puts a row of a tenant into a table."""
    columns = connection.execute(_COLUMNS, (str(table),)).fetchall()
    values = [_value(connection, tenant_id, *column) for column in columns]
    return sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        table.identifier,
        sql.SQL(", ").join(sql.Identifier(name) for name, *_ in columns),
        sql.SQL(", ").join(values),
    )


def fill(connection: psycopg.Connection[Any], every: list[Table], tenant_id: UUID) -> None:
    """Put a row of a tenant into every table that has tenants, past all rules but the policies'."""
    connection.execute("SET session_replication_role = replica")
    for table in every:
        if table.of_tenants and not table.partition:
            _lift(connection, table)
            connection.execute(insertion(connection, table, tenant_id))
    connection.execute("RESET session_replication_role")


def _lift(connection: psycopg.Connection[Any], table: Table) -> None:
    """Drop what makes a row of nonsense impossible."""
    rules = connection.execute(
        "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype IN ('c', 'f') AND conislocal",
        (str(table),),
    ).fetchall()
    for (name,) in rules:
        connection.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table.identifier, sql.Identifier(name)))


def _value(
    connection: psycopg.Connection[Any], tenant_id: UUID, name: str, kind: str, category: str, array: bool, oid: int
) -> sql.Composable:
    if name == "tenant_id":
        return sql.Literal(tenant_id)
    if name == "turn_id":
        return sql.Literal(new_id())  # its time decides in which partition it lies
    if array:
        return sql.SQL("'{{}}'").format()
    if category == "e":
        row = connection.execute("SELECT enumlabel FROM pg_enum WHERE enumtypid = %s LIMIT 1", (oid,)).fetchone()
        assert row
        return sql.Literal(row[0])
    return sql.SQL(_PLAIN[kind])
