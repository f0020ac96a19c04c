"""Providers as Envoy clusters: the file that Envoy watches, and the names by which the model door sends calls."""

import hashlib
import json
import os
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import certifi

from services.runtime.address import Address
from services.runtime.provider import Provider

_CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

# Where systems keep the certificates that they trust.
_CA_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def cluster_name(provider: Provider) -> str:
    """The name of the provider's cluster.

    The address is part of the name: after a change of it, a call with the new key cannot reach the old address while
    Envoy has not yet read the new file.
    """
    digest = hashlib.sha256(_origin(provider.address).encode()).hexdigest()[:12]
    return f"provider-{provider.tenant_id}-{provider.provider_id}-{digest}"


def clusters_file(providers: Iterable[Provider], trusted_ca: str) -> str:
    """The content of the file: a DiscoveryResponse as JSON, which is YAML too."""
    found = {cluster_name(provider): provider.address for provider in providers}
    resources = [_cluster(name, address, trusted_ca) for name, address in sorted(found.items())]
    text = json.dumps(resources, sort_keys=True)
    version = hashlib.sha256(text.encode()).hexdigest()[:16]
    return json.dumps({"version_info": version, "resources": resources}, indent=2) + "\n"


def trusted_certificates() -> str:
    """The file of the certificates that are trusted: as set, else the system's, else those of a package."""
    named = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    for path in (named, *_CA_FILES):
        if path and Path(path).is_file():
            return path
    return certifi.where()


def _origin(address: Address) -> str:
    return address.socket or f"{address.scheme}://{address.authority}"


def _cluster(name: str, address: Address, trusted_ca: str) -> dict[str, Any]:
    tls = address.scheme == "https"
    cluster: dict[str, Any] = {
        "@type": _CLUSTER,
        "name": name,
        **_discovery(address),
        "connect_timeout": "5s",
        "per_connection_buffer_limit_bytes": 1_048_576,
        "load_assignment": {
            "cluster_name": name,
            # The name is what Envoy writes into the Host header.
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": _endpoint(address), "hostname": address.authority}}]}
            ],
        },
        "typed_extension_protocol_options": {
            _HTTP: {
                "@type": f"type.googleapis.com/{_HTTP}",
                # A server that a company runs itself often closes after five seconds; a call must not meet that.
                "common_http_protocol_options": {"idle_timeout": "60s" if tls else "4s"},
                # By TLS the two sides agree on HTTP/2 or 1.1; without it nobody asks, and 1.1 is what all know.
                **({"auto_config": {}} if tls else {"explicit_http_config": {"http_protocol_options": {}}}),
            }
        },
        "upstream_connection_options": {
            "tcp_keepalive": {"keepalive_time": 30, "keepalive_interval": 10, "keepalive_probes": 3}
        },
        "circuit_breakers": {
            "thresholds": [{"max_connections": 1024, "max_pending_requests": 1024, "max_requests": 4096}]
        },
    }
    if tls:
        cluster["transport_socket"] = _transport(address, trusted_ca)
    return cluster


def _discovery(address: Address) -> dict[str, Any]:
    if address.socket or address.is_ip:
        return {"type": "STATIC"}
    # Vendors have many addresses that change all the time: the newest is taken for each new connection, and those
    # that are open stay. Both families are asked for, and the one that answers first is used.
    return {
        "type": "LOGICAL_DNS",
        "dns_lookup_family": "ALL",
        "respect_dns_ttl": True,
        "dns_refresh_rate": "30s",
        "dns_failure_refresh_rate": {"base_interval": "1s", "max_interval": "10s"},
    }


def _endpoint(address: Address) -> dict[str, Any]:
    if address.socket:
        return {"pipe": {"path": address.socket}}
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def _transport(address: Address, trusted_ca: str) -> dict[str, Any]:
    """TLS to this host and no other: any host's certificate is valid, so the name in it is checked."""
    name = {"san_type": "IP_ADDRESS" if address.is_ip else "DNS", "matcher": {"exact": address.host}}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": _TLS,
            **({} if address.is_ip else {"sni": address.host}),
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "validation_context": {
                    "trusted_ca": {"filename": trusted_ca},
                    "match_typed_subject_alt_names": [name],
                },
            },
        },
    }
