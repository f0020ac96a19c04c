"""Whose rows the database shows: a scope, set by a call or a loop, in which every transaction runs.

The scope is a tenant, or the system: what walks all tenants, such as the loops that look after what has to happen.
There is no third way, so that forgetting the scope is a fault that is seen, and not a door that is open.

A scope holds for what is called within its block, and for tasks that begin there. Do not yield to a caller within one:
an async generator would leave its scope to whoever reads it.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from typing import Literal
from uuid import UUID


class System(Enum):
    """The scope that is of no tenant."""

    SYSTEM = "system"


SYSTEM = System.SYSTEM
Scope = UUID | Literal[System.SYSTEM]

_CURRENT: ContextVar[Scope] = ContextVar("scope")


class ScopeMissing(RuntimeError):
    """A transaction was opened by code that did not say for whom: a fault of ours."""


@dataclass(frozen=True)
class DatabaseUrls:
    """The addresses of the database in libpq's form: one for each of the two logins of a service."""

    tenant: str
    system: str


@dataclass(frozen=True)
class ServiceRoles:
    """The two logins of a service. Neither owns what is in its schema, so neither can change its rules."""

    tenant: str
    """Sees the rows of the tenant that its transaction names, and without one nothing."""
    system: str
    """Sees the rows of every tenant."""

    @property
    def both(self) -> tuple[str, str]:
        """The names of the two."""
        return (self.tenant, self.system)


def service_roles(schema: str) -> ServiceRoles:
    """The logins of the service that a schema belongs to."""
    return ServiceRoles(f"oiab_{schema}", f"oiab_{schema}_system")


def scope() -> Scope:
    """For whom the current call or loop works.

    Raises:
        ScopeMissing: Nobody said so.
    """
    try:
        return _CURRENT.get()
    except LookupError:
        raise ScopeMissing("say for whom: `with as_tenant(tenant_id):` or, in a loop, `with as_system():`") from None


@contextmanager
def within(wanted: Scope) -> Iterator[None]:
    """Work for a tenant or for the system until the block ends."""
    token = _CURRENT.set(wanted)
    try:
        yield
    finally:
        # A cut stream is closed from another context, which never knew of the scope.
        with suppress(ValueError):
            _CURRENT.reset(token)


def as_tenant(tenant_id: UUID) -> AbstractContextManager[None]:
    """Work for one tenant until the block ends: the database shows and takes only what is theirs."""
    if not isinstance(tenant_id, UUID):
        raise TypeError("a tenant is named by a UUID")
    return within(tenant_id)


def as_system() -> AbstractContextManager[None]:
    """Work for nobody in particular until the block ends: the database shows what is everybody's."""
    return within(SYSTEM)
