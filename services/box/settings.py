"""What may be set about an installation: from the environment, else from the home's config.env, else a default."""

from ipaddress import ip_address
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.box.errors import BoxError
from services.box.home import Home


class Settings(BaseSettings):
    """The settings of one installation. Each is `OIAB_` and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="OIAB_", extra="ignore", frozen=True, env_ignore_empty=True)

    port: int = Field(8787, ge=1, le=65535)
    """The port of the edge: REST, SSE, gRPC and gRPC-Web."""
    bind: str = "127.0.0.1"
    """The address that the edge listens on, besides 127.0.0.1. `0.0.0.0` is every address of this machine, and `::` is
    too, with IPv6. Other machines need TLS."""
    tls_certificate: Path | None = None
    """The certificate of the edge with its chain (PEM). It is read again when it changes. Programs on this machine may
    still come without TLS."""
    tls_key: Path | None = None
    """The key of that certificate (PEM)."""
    insecure_edge: bool = False
    """Let other machines come without TLS, because something before the box sees to it."""
    database_url: SecretStr | None = None
    """A PostgreSQL of yours with pgvector and pg_trgm. Without it the embedded one runs."""
    certificate_seconds: int = Field(86400, ge=2)
    """How long the certificates of the mesh are valid. They are renewed at half their life, without a restart."""
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
        settings = Settings(_env_file=home.settings_file)  # type: ignore[call-arg]
    except ValidationError as error:
        raise SettingsRefused("; ".join(_sentence(found["loc"], found["msg"]) for found in error.errors())) from None
    refuse_open_door(settings)
    return settings


def refuse_open_door(settings: Settings) -> None:
    """Refuse an edge through which other machines would see what people say.

    Raises:
        SettingsRefused: It is not as it has to be.
    """
    try:
        outside = not ip_address(settings.bind).is_loopback
    except ValueError:
        raise SettingsRefused(f"OIAB_BIND: {settings.bind!r} is no IP address of this machine") from None
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise SettingsRefused("set OIAB_TLS_CERTIFICATE and OIAB_TLS_KEY, or neither")
    for variable, path in (("CERTIFICATE", settings.tls_certificate), ("KEY", settings.tls_key)):
        if path and not path.is_absolute():
            raise SettingsRefused(f"OIAB_TLS_{variable}: write the whole path, beginning with /")
    if outside and settings.tls_certificate is None and not settings.insecure_edge:
        raise SettingsRefused(
            "OIAB_BIND lets other machines in, and they need TLS: set OIAB_TLS_CERTIFICATE and OIAB_TLS_KEY. If "
            "something before the box sees to TLS, set OIAB_INSECURE_EDGE=true"
        )


def _sentence(location: tuple[int | str, ...], message: str) -> str:
    name = str(location[0]) if location else "a setting"
    variable = name if name.isupper() else f"OIAB_{name.upper()}"
    return f"{variable}: {message[0].lower()}{message[1:]}"
