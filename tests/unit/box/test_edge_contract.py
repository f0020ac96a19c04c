"""What the edge reads from the contract, and that what it says is in it."""

from orginabox.errors.v1 import error_reason_pb2

from services.box.contract import Body, read_contract
from services.box.envoy import discovery, endpoints
from services.box.refusals import REFUSALS


def test_streams_are_found_in_the_contract() -> None:
    contract = read_contract()
    assert "orginabox.api.v1.TurnService" in contract.services
    assert not [service for service in contract.services if not service.startswith("orginabox.api.v1.")]
    assert "/v1/turns/{turn_id}/events" in contract.event_paths
    assert "/orginabox.api.v1.TurnService/StreamTurnEvents" in contract.stream_methods


def test_fields_of_bodies_are_found_in_the_contract() -> None:
    contract = read_contract()
    prompt = Body("POST", "/v1/sessions/{session_id}/prompt", "orginabox.api.v1.PromptRequest")
    assert prompt in contract.bodies
    fields = contract.messages[prompt.message]
    assert fields["requestId"] is True
    assert fields["request_id"] is True
    assert fields["model"] == "orginabox.runtime.v1.Model"
    assert contract.messages["orginabox.runtime.v1.Model"]["providerId"] is True


def test_every_refusal_of_the_edge_is_in_the_contract() -> None:
    known = error_reason_pb2.ErrorReason.keys()
    assert not [refusal.reason for refusal in REFUSALS if f"ERROR_REASON_{refusal.reason}" not in known]
    assert len({refusal.status for refusal in REFUSALS}) == len(REFUSALS)


def test_addresses_in_envoys_words() -> None:
    def address(text: str) -> object:
        return endpoints("api", text)["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]

    assert address("unix:///run/api.sock") == {"pipe": {"path": "/run/api.sock"}}
    assert address("unix:/run/api.sock") == {"pipe": {"path": "/run/api.sock"}}
    assert address("api:7001") == {"socket_address": {"address": "api", "port_value": 7001}}
    assert (discovery("unix:///run/api.sock"), discovery("api:7001")) == ("STATIC", "STRICT_DNS")
