"""The user token: whom it is believed from, for whom, and for how long."""

import base64
import json
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from services.kit.caller import Caller
from services.kit.certificates import Authority, new_installation_id, write_issued
from services.kit.errors import Unauthenticated
from services.kit.gate import Call
from services.kit.mesh import MeshIdentity, serve_as
from services.kit.policy import Access, Rule
from services.kit.user_token import HEADER, LONGEST_SECONDS, UserTokens, hand_over, tokens_of
from tests.identities import authority, identity

SOMEBODY = Caller(
    tenant_id=uuid4(),
    user_id=uuid4(),
    permissions=frozenset({"agents.run", "sessions.read"}),
    sign_in_id=uuid4(),
    agent_session=str(uuid4()),
    channel="rest",
    ip_address="203.0.113.7",
    user_agent="a program",
)


@pytest.fixture
def queue() -> UserTokens:
    """What Queue reads tokens with."""
    return UserTokens(identity("queue"))


def claims(**changed: Any) -> dict[str, Any]:
    """What a good token says, and what is changed of it."""
    now = int(time.time())
    good = {
        "sub": str(SOMEBODY.user_id),
        "tid": str(SOMEBODY.tenant_id),
        "perms": ["admin.everything"],
        "channel": "",
        "ip": "",
        "ua": "",
        "aud": "queue",
        "iat": now - 5,
        "exp": now + 50,
        "jti": "1",
    }
    return {name: value for name, value in (good | changed).items() if value is not None}


def x5c(of: MeshIdentity) -> list[str]:
    """A certificate as a token carries it."""
    return [base64.b64encode(of.credentials.certificate.public_bytes(Encoding.DER)).decode()]


def signed(by: MeshIdentity, carrying: MeshIdentity | None = None, **changed: Any) -> str:
    """A token with the certificate of one and the signature of another."""
    return jwt.encode(claims(**changed), by.credentials.key, "ES256", {"x5c": x5c(carrying or by)})


def issued(folder: Path, by: Authority, name: str = "api", life: timedelta = timedelta(hours=1)) -> MeshIdentity:
    """An identity that is not that of the tests."""
    write_issued(folder / name, by.issue(name, life))
    return MeshIdentity(folder / name)


def test_a_caller_arrives_as_they_were(queue: UserTokens) -> None:
    for somebody in (SOMEBODY, Caller(uuid4(), uuid4())):
        assert queue.read(UserTokens(identity("api")).of(somebody, "queue")) == somebody


def test_a_hand_made_token_is_believed_when_all_is_right(queue: UserTokens) -> None:
    """So that each refusal below is for its own reason."""
    assert queue.read(signed(identity("api"))).may("admin.everything")


def test_the_life_of_a_token_is_short(queue: UserTokens) -> None:
    token = UserTokens(identity("api")).of(SOMEBODY, "queue")
    told = jwt.decode(token, options={"verify_signature": False})
    assert told["exp"] - told["iat"] <= LONGEST_SECONDS
    assert told["jti"]


def refused(queue: UserTokens, token: str, why: str) -> None:
    """A token is not believed, the reason is known to us, and the caller learns nothing of it."""
    for _ in range(2):  # what is kept of it lets it in no more than it is
        with pytest.raises(Unauthenticated) as caught:
            queue.read(token)
        assert why in str(caught.value.__cause__)
        assert why not in caught.value.message


def changed_in_transit(_: Path) -> str:
    """Another user in a good token."""
    head, body, signature = signed(identity("api")).split(".")
    told = json.loads(base64.urlsafe_b64decode(body + "=="))
    told["sub"] = str(uuid4())
    forged = base64.urlsafe_b64encode(json.dumps(told).encode()).rstrip(b"=").decode()
    return f"{head}.{forged}.{signature}"


def without_a_signature(_: Path) -> str:
    return jwt.encode(claims(), "", "none", {"x5c": x5c(identity("api"))})


def signed_with_the_public_key(_: Path) -> str:
    """HS256 with what everybody knows of Api. The library refuses to make it, so it is made by hand."""
    import hmac

    def part(value: object) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    public = identity("api").credentials.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    body = part({"alg": "HS256", "typ": "JWT", "x5c": x5c(identity("api"))}) + b"." + part(claims())
    return (body + b"." + base64.urlsafe_b64encode(hmac.digest(public, body, "sha256")).rstrip(b"=")).decode()


def by_another_authority(folder: Path) -> str:
    return signed(issued(folder, Authority.create(folder / "ca", new_installation_id())))


def by_an_authority_that_takes_our_name(folder: Path) -> str:
    return signed(issued(folder, Authority.create(folder / "ca", identity("api").installation)))


def by_an_expired_certificate(folder: Path) -> str:
    return signed(issued(folder, authority(), life=timedelta(seconds=-1)))


def beyond_its_certificate(folder: Path) -> str:
    return signed(issued(folder, authority(), life=timedelta(seconds=20)))


def by_nobodys_key(_: Path) -> str:
    return jwt.encode(claims(), ec.generate_private_key(ec.SECP256R1()), "ES256", {"x5c": x5c(identity("api"))})


def with_two_certificates(_: Path) -> str:
    chain = x5c(identity("worker")) + x5c(identity("api"))
    return jwt.encode(claims(), identity("worker").credentials.key, "ES256", {"x5c": chain})


FORGED: dict[str, tuple[Callable[[Path], str], str]] = {
    "changed in transit": (changed_in_transit, "Signature verification failed"),
    "no signature": (without_a_signature, "alg"),
    "the public key as a secret": (signed_with_the_public_key, "alg"),
    "a worker's certificate": (lambda _: signed(identity("worker")), "not Api"),
    "a worker's key under Api's certificate": (
        lambda _: signed(identity("worker"), identity("api")),
        "Signature verification failed",
    ),
    "nobody's key": (by_nobodys_key, "Signature verification failed"),
    "another installation": (by_another_authority, "not of this installation"),
    "another authority of our name": (by_an_authority_that_takes_our_name, "not of this installation"),
    "an expired certificate": (by_an_expired_certificate, "not of this installation"),
    "longer than its signer": (beyond_its_certificate, "longer than its signer"),
    "two certificates": (with_two_certificates, "one certificate"),
    "no certificate": (
        lambda _: jwt.encode(claims(), identity("api").credentials.key, "ES256"),
        "one certificate",
    ),
    "no DER": (
        lambda _: jwt.encode(claims(), identity("api").credentials.key, "ES256", {"x5c": ["AAAA"]}),
        "asn1",
    ),
    "for another service": (lambda _: signed(identity("api"), aud="runtime"), "Audience"),
    "for several services": (lambda _: signed(identity("api"), aud=["queue", "runtime"]), "strict"),
    "expired": (lambda _: signed(identity("api"), iat=int(time.time()) - 60, exp=int(time.time()) - 1), "expired"),
    "not yet": (lambda _: signed(identity("api"), iat=int(time.time()) + 20), "not yet valid"),
    "too long": (lambda _: signed(identity("api"), exp=int(time.time()) + 3600), "too long"),
    "no end": (lambda _: signed(identity("api"), exp=None), "exp"),
    "no receiver": (lambda _: signed(identity("api"), aud=None), "aud"),
    "no user": (lambda _: signed(identity("api"), sub=None), "sub"),
    "no tenant": (lambda _: signed(identity("api"), tid=None), "tid"),
    "a user that is none": (lambda _: signed(identity("api"), sub="root"), "badly formed"),
    "nothing": (lambda _: "", "segments"),
    "noise": (lambda _: "a.b.c", "header"),
}


@pytest.mark.parametrize("kind", FORGED)
def test_what_is_not_believed(queue: UserTokens, kind: str, tmp_path: Path) -> None:
    make, why = FORGED[kind]
    refused(queue, make(tmp_path), why)


def test_a_token_is_worth_nothing_to_another_service(queue: UserTokens) -> None:
    token = UserTokens(identity("api")).of(SOMEBODY, "queue")
    assert queue.read(token) == SOMEBODY
    refused(UserTokens(identity("runtime")), token, "udience")


def brought_by(peer: str, token: str | None) -> Call:
    """A call of a service on a user's behalf."""
    metadata = {} if token is None else {HEADER: token}
    return Call(Rule("/x.Y/Z", Access.INTERNAL), "/x.Y/Z", metadata, peer, cast("Any", None))


def test_only_api_brings_a_users_word() -> None:
    serve_as(identity("queue"))
    token = UserTokens(identity("api")).of(SOMEBODY, "queue")
    assert hand_over(brought_by("api", token)) == SOMEBODY
    assert hand_over(brought_by("api", None)) is None
    assert hand_over(brought_by("worker", None)) is None
    for peer in ("worker", "envoy", ""):
        with pytest.raises(Unauthenticated, match="only Api"):
            hand_over(brought_by(peer, token))
    with pytest.raises(Unauthenticated):
        hand_over(brought_by("api", ""))


def test_what_was_believed_ends_in_time(queue: UserTokens, monkeypatch: pytest.MonkeyPatch) -> None:
    token = UserTokens(identity("api")).of(SOMEBODY, "queue")
    assert queue.read(token) == SOMEBODY
    later = time.time() + LONGEST_SECONDS
    monkeypatch.setattr(time, "time", lambda: later)
    assert queue._read.get(next(iter(queue._read._found))) is None


def test_the_same_token_is_used_again_for_half_its_life(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, now = UserTokens(identity("api")), time.time()
    first = tokens.of(SOMEBODY, "queue")
    assert tokens.of(SOMEBODY, "queue") is first
    assert tokens.of(SOMEBODY, "runtime") != first
    monkeypatch.setattr(time, "time", lambda: now + LONGEST_SECONDS / 2)
    assert tokens.of(SOMEBODY, "queue") != first


def test_a_token_does_not_outlive_a_short_certificate(queue: UserTokens, tmp_path: Path) -> None:
    token = UserTokens(issued(tmp_path, authority(), life=timedelta(seconds=4))).of(SOMEBODY, "queue")
    assert jwt.decode(token, options={"verify_signature": False})["exp"] <= time.time() + 4
    assert queue.read(token) == SOMEBODY


def test_what_is_kept_has_a_bound() -> None:
    tokens = UserTokens(identity("api"))
    tokens._minted._most = 10
    for _ in range(50):
        tokens.of(Caller(uuid4(), uuid4()), "queue")
    assert len(tokens._minted._found) == 10


def test_tokens_are_kept_by_process() -> None:
    assert tokens_of(identity("api")) is tokens_of(identity("api"))
