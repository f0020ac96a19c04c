"""What runs on one machine: every process of the mesh, with what it needs and what it is told."""

import asyncio
import errno
import http.client
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from services.box import audit_environment, envoy, keyring_environment, postgres
from services.box.contract import read_contract
from services.box.errors import BoxError
from services.box.home import MARK, Home
from services.box.probes import UnixConnection, grpc_probe, http_probe
from services.box.process import Probe, ProcessSpec
from services.box.roles import Logins, external_logins
from services.box.settings import Settings
from services.box.transport import Certificate, Door, Mesh, check_certificate

ROOT = Path(__file__).parents[2]

# They are started at once: each finds the others when they are there.
SERVICES = ("audit", "queue", "runtime", "sandbox", "api", "worker")
SERVERS = ("api", "audit", "queue", "runtime", "sandbox")

# Of our own environment a process gets only this: somebody's keys and tokens are none of its business.
PASSED = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV")
PASSED_PREFIXES = ("DBUS_", "LC_", "LD_", "NODE_EXTRA_CA", "OIAB_", "OTEL_", "PYTHON", "SSL_CERT_", "XDG_RUNTIME")

SECRET = ("DATABASE", "PASSWORD", "SECRET")
"""What stands in the names of those that are not for everybody. A room that needs one is given it by name."""


class PortTaken(BoxError):
    """Another program listens on the port of the edge."""


@dataclass(frozen=True)
class Installation:
    """One home with its settings, ready to be run."""

    home: Home
    settings: Settings
    environ: Mapping[str, str]

    def processes(self, logins: Logins, database: ProcessSpec | None) -> list[ProcessSpec]:
        """Every process, the database first unless it is somebody else's."""
        edge = self.edge()
        configuration = envoy.prepare(self.home.envoy, edge, envoy.render(edge, read_contract()))
        needs = ("postgres",) if database else ()
        names = [(service, name) for service in SERVICES for name in self._replicas(service)]
        found = [self._service(service, name, needs, logins) for service, name in names]
        found.append(envoy.spec(configuration, edge, self.environment()))
        if self.settings.demo_model:
            found.append(self._demo_model())
        return [database, *found] if database else found

    def edge(self) -> envoy.Edge:
        """What Envoy is told of this installation."""
        return envoy.Edge(
            port=self.settings.port,
            admin=self.home.socket("envoy-admin"),
            model=self.home.model_folder / "model.sock",
            clusters_file=self.home.clusters_file,
            access_log=self.home.logs / "access.log",
            api_addresses=tuple(self._address(name) for name in self._replicas("api")),
            runtime_address=self._address("runtime"),
            door=self._door(),
            mesh=Mesh(
                self.home.certificates / "envoy", self.home.envoy, self.home.installation_file.read_text().strip()
            ),
            cors_origins=tuple(origin.strip() for origin in self.settings.cors_origins.split(",") if origin.strip()),
            rate_limit=self.settings.rate_limit,
        )

    def environment(self) -> dict[str, str]:
        """What every process is told."""
        passed = {
            name: value
            for name, value in self.environ.items()
            if name in PASSED or (name.startswith(PASSED_PREFIXES) and not any(word in name for word in SECRET))
        }
        addresses = {f"OIAB_{name.upper()}_ADDRESS": self._address(name) for name in SERVERS}
        return (
            passed
            | addresses
            | {
                "USER": self.environ.get("USER") or "orginabox",  # libraries fail for a user without a name
                "OIAB_HOME": str(self.home.root),
                "OIAB_CERTIFICATES": str(self.home.certificates),
                "OIAB_RUN_DIR": str(self.home.run),
                "OIAB_PORT": str(self.settings.port),
                "OIAB_DEMO_MODEL": str(self.settings.demo_model).lower(),
                "PYTHONUNBUFFERED": "1",
                "GRPC_ENABLE_FORK_SUPPORT": "0",  # our children run other programs at once
                "MALLOC_ARENA_MAX": "2",  # glibc would keep memory for each of many threads
                MARK: str(self.home.root),
            }
        )

    def open_for_business(self) -> Probe:
        """Asks whether the API answers through the edge."""
        return http_probe(
            partial(http.client.HTTPConnection, "127.0.0.1", self.settings.port, timeout=5), "/v1/healthz"
        )

    def refuse_taken_port(self) -> None:
        """Refuse to start when the port of the edge belongs to another program."""
        family = socket.AF_INET6 if ":" in self.settings.bind else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.settings.bind, self.settings.port))
            except PermissionError:
                raise PortTaken(f"port {self.settings.port} needs root; set OIAB_PORT to one above 1023") from None
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    raise PortTaken(f"OIAB_BIND: this machine has no address {self.settings.bind}") from None
                raise PortTaken(
                    f"port {self.settings.port} is taken by another program; end that, or set OIAB_PORT to a free port"
                ) from None

    def _door(self) -> Door:
        """Where people come in."""
        settings = self.settings
        if not (settings.tls_certificate and settings.tls_key):
            return Door(settings.bind)
        check_certificate(settings.tls_certificate, settings.tls_key)
        file = self.home.envoy / "edge_certificate.yaml"
        return Door(settings.bind, Certificate(settings.tls_certificate, settings.tls_key, file))

    def _replicas(self, service: str) -> tuple[str, ...]:
        """The names of the processes of a service: `api`, `api-2`, `api-3`."""
        count = self.settings.api_replicas if service == "api" else 1
        return (service, *(f"{service}-{number}" for number in range(2, count + 1)))

    def _service(self, service: str, name: str, needs: tuple[str, ...], logins: Logins) -> ProcessSpec:
        env = self.environment() | logins.environment(service)
        if service in SERVERS:
            env[f"OIAB_{service.upper()}_ADDRESS"] = self._address(name)
        if service == "api":
            env["ORGINABOX_API_KEY"] = self.home.api_key(self.environ)
        if service in keyring_environment.ROOMS:
            env |= keyring_environment.keyring_environment(self.environ)
        if service == audit_environment.ROOM:
            env |= audit_environment.audit_environment(self.environ)
        path = self.home.socket(name)
        return ProcessSpec(
            name=name,
            argv=(sys.executable, "-m", f"services.{service}"),
            env=env,
            probe=grpc_probe(path, service, self.home.certificates),
            prepare=partial(path.unlink, missing_ok=True),  # a killed one leaves its socket
            after=needs,
            stop_rank=0 if service == "worker" else 1,
        )

    def _demo_model(self) -> ProcessSpec:
        address = self.home.socket("demo-model")
        return ProcessSpec(
            name="demo-model",
            argv=(sys.executable, "-m", "services.box.demo_model", str(address)),
            env=self.environment(),
            probe=http_probe(partial(UnixConnection, address), "/health"),
            after=("api",),  # it loads for as long as it likes, but not while the others want the cores
            stop_rank=2,
            stop_seconds=3,
            optional=True,
        )

    def _address(self, name: str) -> str:
        return f"unix://{self.home.socket(name)}"


async def database(home: Home, settings: Settings, env: Mapping[str, str]) -> tuple[Logins, ProcessSpec | None]:
    """How the services sign in to the database, and its process unless it is somebody else's."""
    if settings.database_url:
        logins = external_logins(home, settings.database_url.get_secret_value())
        await asyncio.to_thread(postgres.prepare_external, logins)
        return logins, None
    passwords = {
        postgres.OWNER: home.secret("postgres_password"),
        postgres.SUPERUSER: home.secret("postgres_superuser_password"),
    }
    server = postgres.Postgres(home.postgres, home.run, passwords)
    lock = await postgres.lock_data(home.postgres)
    await asyncio.to_thread(server.create)
    return server.logins, server.spec(lock, env)
