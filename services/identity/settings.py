"""What identity is told by its environment."""

from pydantic import Field

from services.kit.settings import MeshSettings


class IdentitySettings(MeshSettings):
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

    def url(self) -> str:
        """The address at which browsers find the box, without a slash at its end."""
        return self.public_url.rstrip("/") or f"http://127.0.0.1:{self.port}"
