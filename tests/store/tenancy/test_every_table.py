"""Every table of every schema, as somebody who may not see its rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql

from services.box.roles import migrations
from services.kit.tenancy import service_roles
from tests.postgres import TestServer, as_owner, as_service
from tests.store.tenancy.filled import Table, fill, insertion, tables

SCHEMAS = tuple(migrations())

OF_NOBODY = {
    "audit.checkpoint": "a signature covers the ends of all tenants' chains",
    "audit.publication": "how far the signatures have come to their second places",
    "queue.worker_session": "workers serve every tenant",
    "queue.paused_kind": "kinds are paused for all tenants",
}
"""The tables without a tenant, and why they have none. Only the system reaches them."""

KEPT_FROM_TENANTS = {"audit.stream_cursor"}
"""Tables that only the system uses, although each row is some tenant's."""

APPEND_ONLY = {"audit.record", "audit.checkpoint", "audit.checkpoint_head"}
"""What no login of a service changes or removes."""

ONE, OTHER = uuid4(), uuid4()


@dataclass(frozen=True)
class Filled:
    """A database in which every table has a row of one tenant."""

    url: str
    administrator: psycopg.Connection[Any]
    tables: list[Table]

    def of_tenants(self) -> list[Table]:
        """The tables in which a tenant has rows for its service to show."""
        return [
            table
            for table in self.tables
            if table.of_tenants and not table.partition and str(table) not in KEPT_FROM_TENANTS
        ]


@pytest.fixture(scope="module")
def filled(postgres: TestServer) -> Iterator[Filled]:
    url = postgres.database(*SCHEMAS)
    with psycopg.connect(url, autocommit=True) as administrator:
        every = tables(administrator, *SCHEMAS)
        fill(administrator, every, ONE)
        yield Filled(url, administrator, every)
    postgres.drop(url)


def login(filled: Filled, schema: str, tenant: UUID | str | None, *, system: bool = False) -> psycopg.Connection[Any]:
    """A session of a service, as its store has it in a transaction."""
    urls = as_service(filled.url, schema)
    connection = psycopg.connect(urls.system if system else urls.tenant, autocommit=True)
    if tenant is not None:
        connection.execute("SELECT set_config('oiab.tenant', %s, false)", (str(tenant),))
    return connection


def count(connection: psycopg.Connection[Any], table: Table) -> int:
    row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(table.identifier)).fetchone()
    assert row
    return int(row[0])


def test_every_table_has_its_policies_and_they_bind_its_owner_too(filled: Filled) -> None:
    assert len(filled.tables) > 30
    found = filled.administrator.execute(
        "SELECT schemaname || '.' || tablename, policyname, roles, cmd, qual, with_check FROM pg_policies"
    ).fetchall()
    for table in filled.tables:
        roles = service_roles(table.schema)
        assert table.secured, table
        assert table.forced, table
        policies = {name: rest for of, name, *rest in found if of == str(table)}
        assert policies["system"] == [[roles.system], "ALL", "true", "true"], table
        assert policies["owner"][0] == ["orginabox"], table
        assert set(policies) == ({"system", "owner", "tenant"} if table.of_tenants else {"system", "owner"}), table
        if table.of_tenants:
            owners, command, using, check = policies["tenant"]
            assert (owners, command) == ([roles.tenant], "ALL"), table
            assert using == check, table
            assert "current_setting('oiab.tenant'" in using, table
            assert using.startswith("(tenant_id = "), table


def test_a_table_without_a_tenant_says_why(filled: Filled) -> None:
    assert {str(table) for table in filled.tables if not table.of_tenants} == set(OF_NOBODY)


def test_every_tenant_is_named_by_a_uuid_and_always(filled: Filled) -> None:
    rows = filled.administrator.execute(
        "SELECT table_schema || '.' || table_name FROM information_schema.columns"
        " WHERE column_name = 'tenant_id' AND (is_nullable = 'YES' OR data_type <> 'uuid') AND table_schema = ANY (%s)",
        (list(SCHEMAS),),
    ).fetchall()
    assert rows == []


def test_a_tenant_sees_its_rows_and_nobody_elses(filled: Filled) -> None:
    for table in filled.of_tenants():
        with login(filled, table.schema, ONE) as mine, login(filled, table.schema, OTHER) as others:
            assert count(mine, table) == 1, table
            assert count(others, table) == 0, table
        with login(filled, table.schema, None, system=True) as system:
            assert count(system, table) == 1, table


def test_another_tenant_changes_and_removes_nothing(filled: Filled) -> None:
    for table in filled.of_tenants():
        with login(filled, table.schema, OTHER) as others:
            for change in ("UPDATE {} SET tenant_id = tenant_id", "DELETE FROM {}"):
                try:
                    touched = others.execute(sql.SQL(change).format(table.identifier)).rowcount
                except psycopg.errors.InsufficientPrivilege:
                    touched = 0  # not even its own
                assert touched == 0, table
        row = filled.administrator.execute(sql.SQL("SELECT count(*) FROM {}").format(table.identifier)).fetchone()
        assert row == (1,), table


def test_a_row_is_put_in_the_name_of_nobody_else(filled: Filled) -> None:
    for table in filled.of_tenants():
        with login(filled, table.schema, OTHER) as others:
            for foreign in (ONE, uuid4()):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    others.execute(insertion(filled.administrator, table, foreign))
        # Nor is one given away.
        with login(filled, table.schema, ONE) as mine, pytest.raises(psycopg.errors.InsufficientPrivilege):
            mine.execute(sql.SQL("UPDATE {} SET tenant_id = {}").format(table.identifier, sql.Literal(OTHER)))


@pytest.mark.parametrize("forged", [None, "", "everybody", "*", f"{ONE}' OR '1'='1"], ids=repr)
def test_without_a_tenant_nothing_is_answered(filled: Filled, forged: str | None) -> None:
    for table in filled.of_tenants():
        with login(filled, table.schema, forged) as nobody, pytest.raises(psycopg.Error) as refused:
            count(nobody, table)
        assert refused.value.sqlstate in {"42704", "22P02"}, table


def test_a_tenant_that_does_not_exist_has_nothing(filled: Filled) -> None:
    for table in filled.of_tenants():
        with login(filled, table.schema, UUID(int=0)) as nobody:
            assert count(nobody, table) == 0, table


def test_a_service_reaches_no_other_schema_and_makes_nothing(filled: Filled) -> None:
    for schema in SCHEMAS:
        for system in (False, True):
            with login(filled, schema, ONE, system=system) as session:
                for table in filled.tables:
                    if table.schema != schema:
                        with pytest.raises(psycopg.errors.InsufficientPrivilege):
                            count(session, table)
                for statement in (
                    f"CREATE TABLE {schema}.own (a int)",
                    "CREATE TABLE public.own (a int)",
                    "CREATE SCHEMA own",
                    f"SELECT * FROM {schema}.migration",
                    "SET ROLE orginabox",
                    "ALTER ROLE CURRENT_USER BYPASSRLS",
                ):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        session.execute(statement.encode())


def test_a_service_changes_no_rule_of_its_tables(filled: Filled) -> None:
    for table in filled.tables:
        with login(filled, table.schema, ONE, system=True) as session:
            for statement in (
                "ALTER TABLE {} DISABLE ROW LEVEL SECURITY",
                "ALTER TABLE {} NO FORCE ROW LEVEL SECURITY",
                "DROP POLICY tenant ON {}",
                "CREATE POLICY open ON {} USING (true)",
                "TRUNCATE {}",
                "DROP TABLE {}",
            ):
                with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedObject)):
                    session.execute(sql.SQL(statement).format(table.identifier))


def test_a_table_of_nobody_and_a_partition_are_out_of_a_tenants_reach(filled: Filled) -> None:
    for table in filled.tables:
        if table in filled.of_tenants():
            continue
        with login(filled, table.schema, ONE) as tenant, pytest.raises(psycopg.errors.InsufficientPrivilege):
            count(tenant, table)


@pytest.mark.parametrize("name", sorted(APPEND_ONLY))
def test_no_login_changes_what_is_for_ever(filled: Filled, name: str) -> None:
    (table,) = (table for table in filled.tables if str(table) == name)
    for system in (False, True):
        with login(filled, table.schema, ONE, system=system) as session:
            for change in (
                "UPDATE {} SET tenant_id = tenant_id" if table.of_tenants else "DELETE FROM {}",
                "DELETE FROM {}",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    session.execute(sql.SQL(change).format(table.identifier))


def test_the_owner_sees_rows_only_when_it_says_so(filled: Filled) -> None:
    for table in filled.of_tenants():
        with psycopg.connect(as_owner(filled.url), autocommit=True) as owner:
            assert count(owner, table) == 0, table
            owner.execute("SET oiab.owner = 'works'")
            assert count(owner, table) == 1, table


def test_a_service_does_not_become_the_owner_by_saying_so(filled: Filled) -> None:
    for table in filled.of_tenants():
        with login(filled, table.schema, OTHER) as others:
            others.execute("SET oiab.owner = 'works'")
            assert count(others, table) == 0, table


def test_a_partition_made_while_the_service_runs_is_as_closed(filled: Filled) -> None:
    with login(filled, "api", None, system=True) as system:
        assert system.execute("SELECT api.make_turn_event_partition(api.month_from_now(9))").fetchone() == (True,)
    with login(filled, "api", ONE) as tenant, pytest.raises(psycopg.errors.InsufficientPrivilege):
        tenant.execute("SELECT api.make_turn_event_partition(api.month_from_now(10))")
    for table in tables(filled.administrator, "api"):
        if table.partition:
            assert table.secured, table
            assert table.forced, table
            with login(filled, "api", OTHER) as others, pytest.raises(psycopg.errors.InsufficientPrivilege):
                count(others, table)
