"""Which addresses a provider may have."""

import pytest

from services.runtime.address import Address, ProviderAddressRefused, is_private


@pytest.mark.parametrize(
    ("url", "means"),
    [
        ("https://api.example.com/v1", "https://api.example.com/v1"),
        ("https://API.Example.com.:443/v1/", "https://api.example.com/v1"),
        ("http://127.0.0.1:11434/v1", "http://127.0.0.1:11434/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("http://192.168.1.20:8000", "http://192.168.1.20:8000"),
        ("http://vllm:8000/v1", "http://vllm:8000/v1"),
        ("http://host.docker.internal:1234/v1", "http://host.docker.internal:1234/v1"),
        ("https://gateway.example.com/anthropic/v1.0", "https://gateway.example.com/anthropic/v1.0"),
    ],
)
def test_addresses_of_models_are_taken(url: str, means: str) -> None:
    assert Address.parse(url).url == means


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("https://a.example", "/openai/v1"),
        ("https://a.example/", "/openai/v1"),
        ("https://a.example/openai", "/openai/v1"),
        ("https://a.example/openai/v1", "/openai/v1"),
        ("https://a.example/openai/v2", "/openai/v2"),
        ("https://a.example/open", "/open"),
    ],
)
def test_a_path_that_is_cut_short_is_completed(given: str, path: str) -> None:
    assert Address.parse(given, root="/openai/v1").path == path


@pytest.mark.parametrize(
    "url",
    [
        # Where clouds hand out credentials, in every spelling that a resolver reads.
        "http://169.254.169.254/latest",
        "http://169.254.1.1/v1",
        "http://[fe80::1]/v1",
        "http://[fe80::1%25eth0]/v1",
        "http://[::ffff:169.254.169.254]/v1",
        "http://[::ffff:a9fe:a9fe]/v1",
        "http://[64:ff9b::a9fe:a9fe]/v1",
        "http://[2002:a9fe:a9fe::]/v1",
        "http://[fd00:ec2::254]/v1",
        "http://2852039166/v1",
        "http://0xa9fea9fe/v1",
        "http://169.254.43518/v1",
        "http://0251.0376.0251.0376/v1",
        "http://169.254.169.254./v1",
        "http://metadata.google.internal/v1",
        "http://METADATA.google.internal./v1",
        "http://168.63.129.16/v1",
        "http://100.100.100.200/v1",
        # Nobody in particular.
        "http://0.0.0.0/v1",
        "http://[::]/v1",
        "http://224.0.0.1/v1",
        # Not an address of an API.
        "ftp://a.example/v1",
        "file:///etc/passwd",
        "a.example/v1",
        "//a.example/v1",
        "https://",
        "https:///v1",
        "http://fd00::1/v1",
        "https://user@a.example/v1",
        "https://user:password@a.example/v1",
        "https://@a.example/v1",
        "https://a.example/v1?key=1",
        "https://a.example/v1?",
        "https://a.example/v1#a",
        "https://a.example:0/v1",
        "https://a.example:/v1",
        "https://a.example:99999/v1",
        "https://a.example:x/v1",
        "https://a.example/../v1",
        "https://a.example/v1/./x",
        "https://a.example/v1//x",
        "https://a.example/v1%2f..",
        "https://a.example/v1\r\nx: y",
        "https://a.example\t/v1",
        "https://a.exa mple/v1",
        "https://a..example/v1",
        "https://-a.example/v1",
        "https://а.example/v1",  # noqa: RUF001 - the first letter is not an a
        "https://a.example\\@b.example/v1",
        "https://a.example/" + "v" * 3_000,
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ProviderAddressRefused):
        Address.parse(url)


def test_a_key_does_not_cross_a_public_network_in_the_clear() -> None:
    with pytest.raises(ProviderAddressRefused, match="https"):
        Address.parse("http://api.example.com/v1", has_key=True)
    assert Address.parse("http://api.example.com/v1").scheme == "http"
    assert Address.parse("http://10.1.2.3/v1", has_key=True).scheme == "http"


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("localhost", True),
        ("ollama", True),
        ("models.lan", True),
        ("models.svc", True),
        ("127.0.0.1", True),
        ("10.0.0.1", True),
        ("::1", True),
        ("fd12::1", True),
        ("8.8.8.8", False),
        ("api.example.com", False),
        ("localhost.example.com", False),
        ("mylocal.example", False),
    ],
)
def test_private_networks_are_known_by_their_names(host: str, private: bool) -> None:
    assert is_private(host) is private
