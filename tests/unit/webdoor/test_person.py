"""Who an identity provider says somebody is."""

from typing import Any
from uuid import uuid4

import pytest

from services.identity.federation import Person, person_of, proof_of
from services.identity.identity_provider import IdentityProvider, IdentityProviderRefused

PLAIN = IdentityProvider(uuid4(), "idp", "https://idp.example", "box")
ENTRA = IdentityProvider(uuid4(), "entra", "https://login.microsoftonline.com/d/v2.0", "box", directory_id="d")


def person(provider: IdentityProvider = PLAIN, **claims: Any) -> Person:
    return person_of(provider, {"sub": "ada"} | claims)


@pytest.mark.parametrize("subject", ["\ud800", "a\0", "", "x" * 256, None, 5])
def test_a_subject_is_taken_as_it_is_or_not_at_all(subject: object) -> None:
    with pytest.raises(IdentityProviderRefused):
        person(sub=subject)
    with pytest.raises(IdentityProviderRefused):
        person(ENTRA, oid=subject)


def test_what_is_no_text_is_left_out() -> None:
    found = person(name="A\ud800d\0a", preferred_username="\ud800", email="a@\ud800")
    assert (found.name, found.preferred, found.email) == ("Ada", "", "")


@pytest.mark.parametrize(("said", "verified"), [(True, "a@b"), ("true", ""), (1, ""), (None, ""), (False, "")])
def test_a_mail_address_is_verified_when_it_is_said_so_plainly(said: object, verified: str) -> None:
    assert person(email="a@b", email_verified=said).verified_email == verified


@pytest.mark.parametrize(
    ("claims", "groups"),
    [
        ({}, frozenset()),
        ({"groups": ["a", "b"]}, {"a", "b"}),
        ({"groups": "a"}, {"a"}),
        ({"_claim_names": {"groups": "src"}}, None),
        ({"hasgroups": True}, None),
        ({"_claim_names": {"other": "src"}}, frozenset()),
    ],
)
def test_groups(claims: dict[str, Any], groups: object) -> None:
    assert person(**claims).groups == groups


@pytest.mark.parametrize("groups", [5, {"a": 1}, ["x"] * 3000])
def test_what_is_no_list_of_groups_is_refused(groups: object) -> None:
    with pytest.raises(IdentityProviderRefused):
        person(groups=groups)


def test_entra_is_asked_for_the_object_id_and_its_name_in_the_directory_does_not_count() -> None:
    found = person(ENTRA, sub="pairwise", oid="o-1")
    assert (found.subject, found.object_id) == ("o-1", "o-1")


def test_each_sign_in_has_a_nonce_and_a_verifier_of_its_own() -> None:
    one, two, other = proof_of("secret", "a"), proof_of("secret", "b"), proof_of("other", "a")
    assert len({one.nonce, one.verifier, two.nonce, two.verifier, other.nonce, other.verifier}) == 6
    assert 43 <= len(one.verifier) <= 128
