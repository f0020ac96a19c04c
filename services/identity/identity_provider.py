"""An identity provider: the noun, and what is refused of it."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from services.kit.errors import DomainError, Kind

SCOPES = ("profile", "email")
GROUPS_CLAIM = "groups"
_OF_ANY_DIRECTORY = ("/common/", "/organizations/", "/consumers/", "/{tenantid}/")


class IdentityProviderNotFound(DomainError):
    """The tenant has no such identity provider."""

    kind = Kind.NOT_FOUND
    reason = "IDENTITY_PROVIDER_NOT_FOUND"


class IdentityProviderUnavailable(DomainError):
    """The identity provider cannot be reached, or answers with errors."""

    kind = Kind.UNAVAILABLE
    reason = "IDENTITY_PROVIDER_UNAVAILABLE"


class IdentityProviderRefused(DomainError):
    """What the identity provider says cannot be accepted."""

    kind = Kind.FAILED_PRECONDITION
    reason = "IDENTITY_PROVIDER_REFUSED"


@dataclass(frozen=True)
class IdentityProvider:
    """Where the people of a tenant sign in.

    Attributes:
        sealed_secret: The secret of the client, as the keyring keeps it. Empty: it has none, and PKCE has to do.
        directory_id: The directory (`tid`) that tokens must come from. Empty: it is not looked at.
    """

    tenant_id: UUID
    identity_provider_id: str
    issuer: str
    client_id: str
    display_name: str = ""
    sealed_secret: str = field(default="", repr=False)
    scopes: tuple[str, ...] = ()
    groups_claim: str = ""
    create_users: bool = False
    directory_id: str = ""
    update_time: datetime | None = None

    @property
    def name(self) -> str:
        """What the audit log calls it."""
        return f"identity_provider:{self.identity_provider_id}"

    @property
    def shown(self) -> str:
        """What people call it."""
        return self.display_name or self.identity_provider_id

    @property
    def record(self) -> str:
        """What its secret is bound to when it is sealed."""
        return f"identity_provider:{self.tenant_id}:{self.identity_provider_id}"

    @property
    def asked_scopes(self) -> tuple[str, ...]:
        """What a sign-in asks it for."""
        return tuple(dict.fromkeys(("openid", *(self.scopes or SCOPES))))

    @property
    def groups_in(self) -> str:
        """The claim that lists a user's groups."""
        return self.groups_claim or GROUPS_CLAIM

    @property
    def of_directories(self) -> bool:
        """Whether it tells users apart by directory and object id, as Entra ID does."""
        return bool(self.directory_id) or "login.microsoftonline." in self.issuer

    def checked(self) -> "IdentityProvider":
        """The identity provider, if what is said of it can be.

        Raises:
            IdentityProviderRefused: It cannot.
        """
        if not self.directory_id and any(part in f"{self.issuer}/" for part in _OF_ANY_DIRECTORY):
            raise IdentityProviderRefused(
                "this issuer signs people of every directory in; say which directory is yours (directory_id), "
                "or take the issuer of your own directory"
            )
        return self

    def issued_by(self, directory_id: str) -> str:
        """Its issuer as tokens name it: Entra ID puts the directory in."""
        return self.issuer.replace("{tenantid}", directory_id)
