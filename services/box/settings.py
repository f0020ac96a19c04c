"""What may be set about an installation: from the environment, else from the home's config.env, else a default."""

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.box.errors import BoxError
from services.box.home import Home


class Settings(BaseSettings):
    """The settings of one installation. Each is `OIAB_` and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="OIAB_", extra="ignore", frozen=True, env_ignore_empty=True)

    port: int = Field(8787, ge=1, le=65535)
    """The port of the edge on 127.0.0.1: REST, SSE, gRPC and gRPC-Web."""
    database_url: SecretStr | None = None
    """A PostgreSQL of yours with pgvector and pg_trgm. Without it the embedded one runs."""
    demo_model: bool = True
    """Whether the small demo model runs."""
    cors_origins: str = ""
    """Web origins that may call the API besides those of this machine, with commas between them."""
    rate_limit: int = Field(1000, ge=1)
    """How many requests a second the edge takes in all, so that a runaway client cannot drown the box."""

    api_replicas: int = Field(1, ge=1, le=16)
    """How many processes serve the API. Any of them serves any turn; each takes a core when many read."""

    @property
    def address(self) -> str:
        """Where clients find the installation."""
        return f"http://127.0.0.1:{self.port}"


class SettingsRefused(BoxError):
    """A setting has a value that it cannot have."""


def read_settings(home: Home) -> Settings:
    """The settings of a home."""
    try:
        return Settings(_env_file=home.settings_file)  # type: ignore[call-arg]
    except ValidationError as error:
        raise SettingsRefused("; ".join(_sentence(found["loc"], found["msg"]) for found in error.errors())) from None


def _sentence(location: tuple[int | str, ...], message: str) -> str:
    name = str(location[0]) if location else "a setting"
    variable = name if name.isupper() else f"OIAB_{name.upper()}"
    return f"{variable}: {message[0].lower()}{message[1:]}"
