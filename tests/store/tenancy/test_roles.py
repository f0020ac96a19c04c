"""The logins of the services, on a server of ours and of somebody else's, and where an administrator makes them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest

from services.box.errors import BoxError
from services.box.postgres import EXTENSIONS, OWNER, bring_up_to_date, prepare
from services.box.roles import Logins, RolesRefused, migrations, password_of, scram_proof
from services.kit.migrate import RolesMissing, migrate
from tests.postgres import TestServer, as_owner, as_service, postgres_server

BEFORE = {"api": "0007", "audit": "0003", "runtime": "0003", "sandbox": "0003", "queue": "0005"}
"""The first file of each schema that an earlier version did not have."""


@pytest.fixture
def theirs() -> Iterator[TestServer]:
    """A server of somebody else's, on which people prove who they are and no role of ours is known."""
    with postgres_server() as server:
        with psycopg.connect(server.url("postgres"), autocommit=True) as administrator:
            row = administrator.execute("SHOW hba_file").fetchone()
            assert row
            Path(row[0]).write_text("local all postgres trust\nlocal all all scram-sha-256\n")
            for role in administrator.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'oiab%'").fetchall():
                administrator.execute(f"DROP ROLE {role[0]}".encode())
            administrator.execute("SELECT pg_reload_conf()")
        yield server


def their_database(server: TestServer, owner: str, attributes: str = "") -> str:
    """A database as an administrator gives it to somebody: with the extensions, and a role that owns it."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as administrator:
        administrator.execute(f"CREATE ROLE {owner} LOGIN PASSWORD 'theirs' {attributes}".encode())
        administrator.execute(f"CREATE DATABASE {owner} OWNER {owner}".encode())
    with psycopg.connect(server.url(owner), autocommit=True) as administrator:
        for extension in EXTENSIONS:
            administrator.execute(f"CREATE EXTENSION {extension}".encode())
    return server.url(owner).replace("postgres@", f"{owner}:theirs@")


def sign_in(logins: Logins, service: str = "api", name: str = "OIAB_DATABASE_URL") -> psycopg.Connection:
    return psycopg.connect(logins.environment(service)[name], autocommit=True)


def test_a_role_that_may_make_roles_makes_a_database_ready(theirs: TestServer) -> None:
    url = their_database(theirs, "box", "CREATEROLE")
    logins = Logins(url, "a secret")
    for _ in range(2):
        prepare(url, logins)
    with sign_in(logins) as tenant, pytest.raises(psycopg.errors.UndefinedObject):
        tenant.execute("SELECT * FROM api.session")
    with sign_in(logins, name="OIAB_DATABASE_SYSTEM_URL") as system:
        assert system.execute("SELECT count(*) FROM api.session").fetchone() == (0,)
    with sign_in(logins, "audit") as audit, pytest.raises(psycopg.errors.InsufficientPrivilege):
        audit.execute("SELECT * FROM api.session")


def test_nobody_else_of_the_server_comes_in(theirs: TestServer) -> None:
    url = their_database(theirs, "box", "CREATEROLE")
    logins = Logins(url, "a secret")
    prepare(url, logins)
    their_database(theirs, "stranger")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(theirs.url("box").replace("postgres@", "stranger:theirs@"))
    with sign_in(logins) as tenant:
        for statement in (
            "CREATE TEMP TABLE t (a int)",
            "CREATE TABLE public.t (a int)",
            "SELECT 'a'::text <-> 'b'::text",
        ):
            with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction)):
                tenant.execute(statement.encode())


def test_an_administrator_makes_what_the_owner_may_not(theirs: TestServer) -> None:
    url = their_database(theirs, "box")
    logins = Logins(url, "a secret")
    with pytest.raises(RolesRefused, match="oiab database roles"):
        prepare(url, logins)
    script = logins.script()
    assert not any(password_of("a secret", role) in script for role in ("oiab_api", "oiab_api_system"))
    with psycopg.connect(theirs.url("box"), autocommit=True) as administrator:
        administrator.execute(script.encode())
    prepare(url, logins)
    with sign_in(logins, name="OIAB_DATABASE_SYSTEM_URL") as system:
        assert system.execute("SELECT count(*) FROM api.session").fetchone() == (0,)
    with pytest.raises(RolesRefused, match="cannot sign in"):
        prepare(url, Logins(url, "another secret"))


def test_a_server_has_one_box(theirs: TestServer) -> None:
    url, second = their_database(theirs, "box", "CREATEROLE"), their_database(theirs, "second", "SUPERUSER")
    prepare(url, Logins(url, "a secret"))
    with pytest.raises(RolesRefused, match="the database box already"):
        prepare(second, Logins(second, "another secret"))
    with psycopg.connect(theirs.url("postgres"), autocommit=True) as administrator:
        administrator.execute("DROP DATABASE box WITH (FORCE)")
    prepare(second, Logins(second, "another secret"))


@pytest.mark.parametrize("lifted", ["BYPASSRLS", "SUPERUSER", "CREATEROLE"])
def test_a_login_that_was_lifted_is_refused(theirs: TestServer, lifted: str) -> None:
    url = their_database(theirs, "box", "CREATEROLE")
    prepare(url, Logins(url, "a secret"))
    with psycopg.connect(theirs.url("postgres"), autocommit=True) as administrator:
        administrator.execute(f"ALTER ROLE oiab_queue_system {lifted}".encode())
    with pytest.raises(BoxError, match="oiab_queue_system"):
        prepare(url, Logins(url, "a secret"))


def test_a_database_of_an_earlier_version_keeps_everything(database: Callable[..., str]) -> None:
    url, tenant, other = database(), uuid4(), uuid4()
    with psycopg.connect(as_owner(url), autocommit=True) as earlier:
        for schema, folder in migrations().items():
            earlier.execute(f"CREATE SCHEMA {schema}; SET search_path = {schema}, public".encode())
            earlier.execute(
                "CREATE TABLE migration (name text PRIMARY KEY, digest text NOT NULL,"
                " apply_time timestamptz NOT NULL DEFAULT now())"
            )
            for path in sorted(folder.glob("*.sql")):
                if path.stem < BEFORE.get(schema, "9999"):
                    earlier.execute(path.read_bytes())
                    earlier.execute(
                        "INSERT INTO migration VALUES (%s, encode(sha256(%s), 'hex'))", (path.stem, path.read_bytes())
                    )
        put_rows(earlier, tenant)
        put_rows(earlier, other)
    bring_up_to_date(as_owner(url))
    bring_up_to_date(as_owner(url))
    for schema, table in (("api", "session"), ("api", "turn_event"), ("queue", "intent"), ("runtime", "runtime")):
        urls = as_service(url, schema)
        with psycopg.connect(urls.system) as system:
            assert system.execute(f"SELECT count(*) FROM {schema}.{table}".encode()).fetchone() == (2,)
        with psycopg.connect(urls.tenant) as session:
            session.execute("SELECT set_config('oiab.tenant', %s, true)", (str(tenant),))
            assert session.execute(f"SELECT tenant_id FROM {schema}.{table}".encode()).fetchall() == [(tenant,)]


def test_a_database_that_was_restored_under_another_owner_is_its_own_again(database: Callable[..., str]) -> None:
    url = database("runtime")
    with psycopg.connect(url, autocommit=True) as administrator:
        administrator.execute("DROP POLICY owner ON runtime.runtime; DROP POLICY owner ON runtime.provider")
        administrator.execute("CREATE POLICY owner ON runtime.provider TO oiab_queue USING (true)")
        administrator.execute("INSERT INTO runtime.runtime (tenant_id) VALUES (gen_random_uuid())")
    migrate(as_owner(url), "runtime", migrations()["runtime"])
    with psycopg.connect(as_owner(url), options="-c oiab.owner=works") as owner:
        assert owner.execute("SELECT count(*) FROM runtime.runtime").fetchone() == (1,)
        assert owner.execute(
            "SELECT roles FROM pg_policies WHERE tablename = 'provider' AND policyname = 'owner'"
        ).fetchall() == [(["orginabox"],)]


def put_rows(earlier: psycopg.Connection, tenant: UUID) -> None:
    """Some of what an earlier version has written for a tenant."""
    ids = {"tenant": tenant, "session": uuid4(), "turn": uuid4()}
    for statement in (
        "INSERT INTO api.session (session_id, tenant_id, user_id) VALUES (%(session)s, %(tenant)s, %(tenant)s)",
        """INSERT INTO api.turn (turn_id, ticket, tenant_id, user_id, session_id, text)
        VALUES (%(turn)s, %(turn)s, %(tenant)s, %(tenant)s, %(session)s, '')""",
        """INSERT INTO api.turn_event (turn_id, first_sequence, last_sequence, tenant_id, events)
        VALUES (%(turn)s, 1, 1, %(tenant)s, ARRAY[''::bytea])""",
        "INSERT INTO queue.intent VALUES (%(tenant)s, 'k', %(turn)s, '', now())",
        "INSERT INTO runtime.runtime (tenant_id) VALUES (%(tenant)s)",
    ):
        earlier.execute(statement.encode(), ids)


def test_a_schema_whose_logins_are_missing_says_so(database: Callable[..., str]) -> None:
    with pytest.raises(RolesMissing, match="oiab_nothing"):
        migrate(as_owner(database()), "nothing", next(iter(migrations().values())))


def test_a_proof_is_what_the_server_makes_itself(postgres: TestServer) -> None:
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as administrator:
        salt = bytes(16)
        administrator.execute(f"ALTER ROLE {OWNER} PASSWORD '{scram_proof('pencil', salt)}'".encode())
        stored = administrator.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", (OWNER,)).fetchone()
        assert stored == (scram_proof("pencil", salt),)
        administrator.execute(f"ALTER ROLE {OWNER} PASSWORD NULL".encode())
