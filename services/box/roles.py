"""The logins of the database: one role owns the tables and changes them, and two for each service only use them.

No role is above row-level security, so that a managed server, which gives such a role to nobody, will do. The password
of a role is made of one secret and the role's name; the server is told a proof of it (SCRAM), so that it stands in no
log.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.box.errors import BoxError
from services.box.home import Home
from services.kit.tenancy import service_roles

ROOMS = Path(__file__).parents[1]
# A schema belongs to the service of its name. These are others' guests.
GUESTS = {"identity": "api"}

SCRAM_ROUNDS = 4096
# Stands in the comment of a role, before the name of the database that it is for.
_MARK = "Org in a Box in the database "

_OTHER_BOX = """
SELECT other.datname FROM pg_catalog.pg_database other
JOIN pg_catalog.pg_shdescription said
    ON said.description = %s || other.datname AND said.classoid = 'pg_catalog.pg_authid'::regclass
JOIN pg_catalog.pg_roles role ON role.oid = said.objoid AND role.rolname = ANY(%s)
WHERE other.datname <> current_database()
"""


class RolesRefused(BoxError):
    """The logins of the services are not as they have to be."""


def migrations() -> dict[str, Path]:
    """The folder of the migrations of each schema."""
    return {folder.parent.name: folder for folder in sorted(ROOMS.glob("*/migrations"))}


@dataclass(frozen=True)
class Logins:
    """How the services sign in to the database.

    Attributes:
        url: The address of the database in libpq's form, for the role that owns the tables.
        secret: What the passwords are made of.
    """

    url: str
    secret: str

    def environment(self, service: str) -> dict[str, str]:
        """What a service is told of the database: its own schema by the plain names, those of its guests by theirs."""
        found = {}
        for schema in migrations():
            if GUESTS.get(schema, schema) == service:
                prefix = "OIAB_" if schema == service else f"OIAB_{schema.upper()}_"
                tenant, system = service_roles(schema).both
                found[f"{prefix}DATABASE_URL"] = self._as(tenant)
                found[f"{prefix}DATABASE_SYSTEM_URL"] = self._as(system)
        return found

    def script(self) -> str:
        """What an administrator of the server runs when the owner may not make roles."""
        return "\n".join(
            [
                "-- Made by `oiab database roles`. Run it once in the database of the box, as an administrator:",
                "-- it makes the logins of the services, and gives each the password that the box knows.",
                *_statements(self.secret),
                "",
            ]
        )

    def make(self, connection: Any) -> None:
        """Make the roles and give them their passwords.

        Raises:
            psycopg.errors.InsufficientPrivilege: The role of the connection may not.
            RolesRefused: They belong to the box of another database: a server has one set of roles.
        """
        row = connection.execute(_OTHER_BOX, (_MARK, list(_roles()))).fetchone()
        if row:
            raise RolesRefused(
                f"this PostgreSQL server holds the box of the database {row[0]} already, and roles are shared by all "
                "databases of a server; give each box a server of its own"
            )
        connection.execute("\n".join(_statements(self.secret)))

    def check(self) -> None:
        """Make sure that every role can sign in.

        Raises:
            RolesRefused: One cannot.
        """
        import psycopg

        for role in _roles():
            try:
                psycopg.connect(self._as(role), connect_timeout=5).close()
            except psycopg.OperationalError:
                raise RolesRefused(
                    f"the role in OIAB_DATABASE_URL may not make roles, and {role} cannot sign in: let an "
                    "administrator of that database run what `oiab database roles` prints"
                ) from None

    def _as(self, role: str) -> str:
        from psycopg.conninfo import make_conninfo

        return make_conninfo(self.url, user=role, password=password_of(self.secret, role))


def external_logins(home: Home, url: str) -> Logins:
    """How the services sign in to a database of yours. The same for ever, since an administrator may have set it."""
    return Logins(url, home.secret("postgres_roles"))


def refuse_unbound(connection: Any) -> None:
    """Refuse roles that somebody has lifted above row-level security, or lets make others.

    Raises:
        RolesRefused: One is.
    """
    row = connection.execute(
        "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = ANY(%s)"
        " AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication) ORDER BY rolname",
        (list(_roles()),),
    ).fetchone()
    if row:
        raise RolesRefused(
            f"the role {row[0]} may do more than use its tables; run ALTER ROLE {row[0]} "
            "NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOREPLICATION as an administrator"
        )


def password_of(secret: str, role: str) -> str:
    """The password of a role."""
    return hmac.digest(secret.encode(), role.encode(), "sha256").hex()


def scram_proof(password: str, salt: bytes) -> str:
    """What a server keeps of a password (RFC 5803): it can check the password by it, and nobody can sign in with it."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, SCRAM_ROUNDS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt64, stored64, server64 = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${SCRAM_ROUNDS}:{salt64}${stored64}:{server64}"


def _roles() -> Sequence[str]:
    return [role for schema in migrations() for role in service_roles(schema).both]


def _statements(secret: str) -> Iterator[str]:
    # Names of roles are ours, and a proof has no quote in it.
    for role in _roles():
        proof = scram_proof(password_of(secret, role), secrets.token_bytes(16))
        yield f"DO $$ BEGIN CREATE ROLE {role}; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
        yield f"ALTER ROLE {role} LOGIN PASSWORD '{proof}';"
    # Nobody else of the server has a right to the database; where it is another's, only its owner could say so.
    yield f"""DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY[{", ".join(f"'{role}'" for role in _roles())}] LOOP
        EXECUTE format('COMMENT ON ROLE %I IS %L', role, '{_MARK}' || current_database());
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
    END LOOP;
    IF pg_has_role((SELECT datdba FROM pg_database WHERE datname = current_database()), 'USAGE') THEN
        EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
        REVOKE ALL ON SCHEMA public FROM PUBLIC;
    END IF;
END
$$;"""  # noqa: S608 - the names are ours, and everything else is quoted by the server
