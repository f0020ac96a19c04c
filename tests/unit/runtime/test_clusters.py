"""Providers as Envoy clusters."""

import json
from typing import Any

import pytest

from services.kit.ids import DEFAULT_TENANT
from services.runtime.clusters import cluster_name, clusters_file, trusted_certificates
from services.runtime.dialect import ProviderKind
from services.runtime.provider import Provider, demo_provider

CA = "/etc/ca.pem"


def provider(url: str, provider_id: str = "acme") -> Provider:
    return Provider.wanted(DEFAULT_TENANT, provider_id, ProviderKind.OPENAI_COMPATIBLE, base_url=url, models=["m"])


def cluster(*providers: Provider) -> Any:
    (found,) = json.loads(clusters_file(providers, CA))["resources"]
    return found


def test_another_address_is_another_cluster_and_another_path_is_not() -> None:
    first = provider("https://a.example/v1")
    assert cluster_name(first) == cluster_name(provider("https://a.example/v2"))
    assert cluster_name(first) != cluster_name(provider("https://b.example/v1"))
    assert cluster_name(first) != cluster_name(provider("http://a.example/v1"))
    assert cluster_name(first) != cluster_name(provider("https://a.example:8443/v1"))
    assert cluster_name(first) != cluster_name(provider("https://a.example/v1", "other"))


def test_tls_names_the_host_and_checks_it() -> None:
    tls = cluster(provider("https://a.example/v1"))["transport_socket"]["typed_config"]
    assert tls["sni"] == "a.example"
    assert tls["common_tls_context"]["validation_context"] == {
        "trusted_ca": {"filename": CA},
        "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "a.example"}}],
    }


def test_a_number_is_checked_as_a_number() -> None:
    made = cluster(provider("https://10.0.0.1:8443/v1"))
    tls = made["transport_socket"]["typed_config"]
    assert "sni" not in tls
    (name,) = tls["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"]
    assert name["san_type"] == "IP_ADDRESS"
    assert made["type"] == "STATIC"


def test_http_is_plain() -> None:
    made = cluster(provider("http://vllm:8000/v1"))
    assert "transport_socket" not in made
    (endpoint,) = made["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"] == {
        "address": {"socket_address": {"address": "vllm", "port_value": 8000}},
        "hostname": "vllm:8000",
    }


def test_the_demo_model_is_a_socket() -> None:
    made = cluster(demo_provider(DEFAULT_TENANT, "/run/demo.sock", preferred=True))
    (endpoint,) = made["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"] == {"pipe": {"path": "/run/demo.sock"}}


def test_the_same_providers_make_the_same_file() -> None:
    first, second = provider("https://a.example/v1"), provider("https://b.example/v1", "other")
    assert clusters_file([first, second], CA) == clusters_file([second, first, first], CA)


def test_certificates_are_those_that_were_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", __file__)
    assert trusted_certificates() == __file__
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    assert trusted_certificates() not in {"/nowhere", ""}
