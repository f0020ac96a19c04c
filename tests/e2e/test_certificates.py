"""The whole box on certificates of a few seconds: turns, streams and restarts go on over many renewals."""

from collections.abc import Iterator

import pytest
from cryptography import x509

from tests.e2e.conftest import use_scripted_model
from tests.e2e.mesh import Box, box, sequences, until
from tests.model_server.script import scenario

SECONDS = 6
DELTAS = 100


@pytest.fixture(scope="module")
def hasty(model_server: str) -> Iterator[Box]:
    """A box whose certificates are renewed every three seconds."""
    with box(OIAB_DEMO_MODEL="false", OIAB_CERTIFICATE_SECONDS=str(SECONDS)) as made:
        use_scripted_model(made, model_server)
        yield made


def serial(made: Box, name: str) -> int:
    """What tells one certificate from another."""
    return x509.load_pem_x509_certificate((made.home / "certs" / name / "cert.pem").read_bytes()).serial_number


def test_a_long_turn_goes_on_over_renewals_and_a_restart(hasty: Box) -> None:
    before = {name: serial(hasty, name) for name in ("api", "worker", "envoy", "sandbox")}
    events = hasty.turn(scenario("stamped", deltas=DELTAS, interval=0.2))
    assert "completed" in events[-1]
    assert sequences(events) == list(range(1, len(events) + 1))
    assert not [name for name, was in before.items() if serial(hasty, name) == was]
    # Nothing has been restarted yet: whoever calls now has proved itself again.
    for _ in range(5):
        assert "completed" in hasty.turn("say again")[-1]
    # What starts now has only certificates that were made long after the others began.
    for name in ("worker", "api", "sandbox", "queue", "runtime", "audit"):
        hasty.kill(name)
    until(lambda: not hasty.oiab("status", check=False).returncode, 30)
    assert "completed" in hasty.turn("say still here")[-1]
    assert "until" in hasty.oiab("certificates", "list").stdout


def test_nothing_is_restarted_for_it(hasty: Box) -> None:
    assert not [
        each for each in hasty.state()["processes"] if each["name"] in {"envoy", "postgres"} and each["restarts"]
    ]
