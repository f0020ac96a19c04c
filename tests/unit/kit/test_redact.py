"""What is secret stays out of logs and answers, because the contract says so."""

from google.protobuf import struct_pb2
from orginabox.api.v1 import auth_service_pb2, identity_provider_service_pb2, provider_service_pb2
from orginabox.api.v1.identity_provider_service_pb2 import IdentityProvider

from services.kit.redact import REDACTED, clear_input_only, redacted

SECRET = "correct horse battery staple"


def test_a_password_is_not_in_what_is_logged() -> None:
    shown = redacted(auth_service_pb2.SignInRequest(handle="ada", password=SECRET))
    assert shown == {"handle": "ada", "password": REDACTED}


def test_a_secret_deep_in_a_message_is_not_in_what_is_logged() -> None:
    request = identity_provider_service_pb2.PutIdentityProviderRequest(
        identity_provider=IdentityProvider(identity_provider_id="entra", client_secret=SECRET)
    )
    assert redacted(request) == {
        "identity_provider": {"identity_provider_id": "entra", "client_secret": REDACTED},
    }


def test_a_secret_in_a_list_is_not_in_what_is_logged() -> None:
    answer = identity_provider_service_pb2.ListIdentityProvidersResponse(
        identity_providers=[IdentityProvider(client_secret=SECRET)] * 30
    )
    shown = redacted(answer)["identity_providers"]
    assert SECRET not in str(shown)
    assert shown[-1] == "and 10 more"


def test_long_values_are_cut_and_maps_are_counted() -> None:
    shown = redacted(auth_service_pb2.SignInRequest(handle="a" * 1000))
    assert shown["handle"] == f"{'a' * 200} and 800 more characters"
    assert redacted(struct_pb2.Struct(fields={"a": struct_pb2.Value(string_value="b")})) == {"fields": "1 entries"}


def test_an_answer_never_holds_what_is_for_input_only() -> None:
    answer = identity_provider_service_pb2.ListIdentityProvidersResponse(
        identity_providers=[IdentityProvider(identity_provider_id="entra", client_secret=SECRET)]
    )
    clear_input_only(answer)
    assert SECRET not in str(answer)
    assert answer.identity_providers[0].identity_provider_id == "entra"


def test_an_answer_without_such_fields_stays_as_it_is() -> None:
    answer = auth_service_pb2.SignInResponse(tokens=auth_service_pb2.TokenPair(access_token=SECRET))
    before = answer.SerializeToString()
    clear_input_only(answer)
    assert answer.SerializeToString() == before


def test_the_key_of_a_provider_is_not_in_what_is_logged() -> None:
    assert SECRET not in str(redacted(provider_service_pb2.CreateProviderRequest(api_key=SECRET)))
