"""What identity is told by its environment."""

from typing import Self

from pydantic import Field

from services.kit.keyring.settings import KeyringSettings
from services.kit.settings import MeshSettings
from services.kit.tenancy import DatabaseUrls


class IdentitySettings(KeyringSettings):
    """The settings of identity, which runs within Api."""

    identity_database_url: str = Field(
        default="", description="The address of PostgreSQL for identity's own login, since it has a schema of its own."
    )
    identity_database_system_url: str = Field(default="", description="The same for identity's second login.")
    api_key_remote: bool = Field(
        default=False,
        description="Whether the key of the box opens it from other machines, too. People should sign in instead.",
    )
    public_url: str = Field(
        default="",
        description="The address at which browsers find the box, such as `https://box.example`. Default: the "
        "port of the box on this machine.",
    )
    port: int = Field(default=8787, description="The port of the box on this machine.")
    sso_private_networks: bool = Field(
        default=False,
        description="Whether identity providers may be on private networks, and on this machine without TLS.",
    )

    @classmethod
    def of(cls, mesh: MeshSettings) -> Self:
        """The settings of identity in a process that has read those of the mesh."""
        return cls(**mesh.model_dump(include=set(MeshSettings.model_fields)))

    def identity_urls(self) -> DatabaseUrls:
        """The addresses of the database for identity's two logins."""
        return DatabaseUrls(self.identity_database_url, self.identity_database_system_url)

    def url(self) -> str:
        """The address at which browsers find the box, without a slash at its end."""
        return self.public_url.rstrip("/") or f"http://127.0.0.1:{self.port}"
