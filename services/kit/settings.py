"""What a service is told by its environment, read in one place."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.kit.mesh import MeshIdentity
from services.kit.tenancy import DatabaseUrls


class MeshSettings(BaseSettings):
    """Where the parts of the mesh are. Every value is an environment variable with the prefix `OIAB_`.

    Addresses are in gRPC's form: `unix:///run/queue.sock` or `host:port`.
    """

    model_config = SettingsConfigDict(env_prefix="OIAB_", frozen=True, extra="ignore")

    home: Path = Field(default=Path.home() / ".orginabox", description="Where the installation keeps its data.")
    run_dir: Path | None = Field(default=None, description="Where sockets are. Default: `run` in the home.")
    certificates: Path | None = Field(
        default=None,
        description="Where the certificates of the mesh are, a folder for each service. Default: `certs` in the home.",
    )
    database_url: str = Field(
        default="",
        description="The address of PostgreSQL in libpq's form, for the service's own login. What a tenant does runs "
        "with it.",
    )
    database_system_url: str = Field(
        default="",
        description="The same for the service's second login, with which it does what is of no single tenant.",
    )
    api_address: str = Field(default="", description="Where Api listens. Empty: its socket in the run folder.")
    web_address: str = Field(
        default="",
        description="Where Api listens for browsers and directories. Empty: a socket beside its own, such as "
        "`api-web.sock`.",
    )
    queue_address: str = Field(default="", description="Where Queue listens. Empty: its socket in the run folder.")
    sandbox_address: str = Field(default="", description="Where Sandbox listens. Empty: its socket in the run folder.")
    runtime_address: str = Field(default="", description="Where Runtime listens. Empty: its socket in the run folder.")
    audit_address: str = Field(default="", description="Where Audit listens. Empty: its socket in the run folder.")
    worker_address: str = Field(default="", description="Where Worker listens. Empty: its socket in the run folder.")
    metrics_address: str = Field(
        default="",
        description="Where the service tells its metrics to Prometheus over HTTP. Empty: a socket beside its own, such "
        "as `queue-metrics.sock`.",
    )
    log_level: str = Field(default="info", description="debug, info, warning or error.")

    def database_urls(self) -> DatabaseUrls:
        """The addresses of the database for the two logins of the service."""
        return DatabaseUrls(self.database_url, self.database_system_url)

    def run_folder(self) -> Path:
        """The folder of the sockets."""
        return self.run_dir or self.home / "run"

    def identity(self, service: str) -> MeshIdentity:
        """Who a service is in the mesh."""
        return MeshIdentity.load((self.certificates or self.home / "certs") / service)

    def address(self, service: str) -> str:
        """The address of a service: as set, else its socket in the run folder."""
        return getattr(self, f"{service}_address") or f"unix://{self.run_folder() / service}.sock"

    def web_at(self, service: str) -> str:
        """Where a service listens for browsers: as set, else a socket beside its own."""
        own = self.address(service)
        if self.web_address or not own.startswith("unix://"):
            return self.web_address
        return beside(own, "web")

    def metrics_at(self, service: str) -> str:
        """The address of a service's metrics: as set, else a socket beside its own or in the run folder."""
        if self.metrics_address:
            return self.metrics_address
        own = self.address(service)
        return beside(own if own.startswith("unix://") else f"unix://{self.run_folder() / service}.sock", "metrics")


def beside(address: str, name: str) -> str:
    """The socket beside another that serves something else: `api-metrics.sock` beside `api.sock`."""
    socket = Path(address.removeprefix("unix://"))
    return f"unix://{socket.with_name(f'{socket.stem}-{name}.sock')}"
