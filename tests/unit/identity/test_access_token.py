"""Access tokens: forged, changed, replayed elsewhere, downgraded, expired."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from services.identity.access_token import LIFE, AccessTokens, SigningKey
from services.identity.sign_in import TokenExpired, TokenInvalid

KEY, OLD_KEY, FOREIGN_KEY = (SigningKey(bytes([number]) * 32) for number in (1, 2, 3))
TOKENS = AccessTokens([KEY, OLD_KEY])
USER, TENANT, SIGN_IN = uuid4(), uuid4(), uuid4()


def now() -> datetime:
    return datetime.now(UTC)


def signed(tokens: AccessTokens = TOKENS, at: datetime | None = None) -> str:
    return tokens.sign(USER, TENANT, SIGN_IN, ["member"], at or now())


def claims(**changes: Any) -> dict[str, Any]:
    seconds = int(now().timestamp())
    found = {
        "sub": str(USER),
        "tid": str(TENANT),
        "sid": str(SIGN_IN),
        "roles": ["owner"],
        "iat": seconds,
        "exp": seconds + 60,
        "jti": "x",
    }
    return {name: value for name, value in (found | changes).items() if value is not None}


def forged(key: Any = KEY.secret, algorithm: str = "HS256", kid: object = KEY.key_id, **changes: Any) -> str:
    headers = {"kid": kid} if kid is not None else {}
    return jwt.encode(claims(**changes), key, algorithm, headers=headers)


def raw(header: dict[str, Any], signature: bytes = b"") -> str:
    parts = (json.dumps(header).encode(), json.dumps(claims()).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def test_a_token_says_who_and_until_when() -> None:
    found = TOKENS.verify(signed())
    assert (found.user_id, found.tenant_id, found.sign_in_id, found.roles) == (USER, TENANT, SIGN_IN, ("member",))
    assert timedelta() < found.expire_time - now() <= LIFE
    assert jwt.get_unverified_header(signed()) == {"alg": "HS256", "typ": "JWT", "kid": KEY.key_id}


def test_the_key_before_still_verifies_and_a_key_that_is_gone_does_not() -> None:
    assert TOKENS.verify(signed(AccessTokens([OLD_KEY]))).user_id == USER
    with pytest.raises(TokenInvalid):
        AccessTokens([KEY]).verify(signed(AccessTokens([OLD_KEY])))


def test_an_ended_token_says_so() -> None:
    with pytest.raises(TokenExpired):
        TOKENS.verify(signed(at=now() - LIFE - timedelta(seconds=10)))


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
PUBLIC = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

FORGERIES = {
    "alg none": lambda: raw({"alg": "none", "typ": "JWT", "kid": KEY.key_id}),
    "alg None, otherwise written": lambda: raw({"alg": "nOnE", "kid": KEY.key_id}),
    "alg none with a signature": lambda: raw({"alg": "none", "kid": KEY.key_id}, b"signature"),
    "no kid": lambda: forged(kid=None),
    "unknown kid": lambda: forged(kid="0" * 16),
    "kid of another key": lambda: forged(kid=OLD_KEY.key_id),
    "kid as a path": lambda: forged(kid="../../dev/null"),
    "foreign key": lambda: forged(FOREIGN_KEY.secret),
    "foreign key with its kid": lambda: forged(FOREIGN_KEY.secret, kid=FOREIGN_KEY.key_id),
    "empty key": lambda: forged(b" "),
    "the kid as the key": lambda: forged(KEY.key_id.encode()),
    "HS384 with our key": lambda: forged(algorithm="HS384"),
    "HS512 with our key": lambda: forged(algorithm="HS512"),
    "RS256": lambda: forged(RSA, "RS256"),
    "ES256": lambda: forged(EC, "ES256"),
    "PS256": lambda: forged(RSA, "PS256"),
    "EdDSA header": lambda: raw({"alg": "EdDSA", "kid": KEY.key_id}, b"s" * 64),
    "an embedded key": lambda: jwt.encode(
        claims(), FOREIGN_KEY.secret, "HS256",
        headers={"kid": FOREIGN_KEY.key_id, "jwk": {"kty": "oct", "k": "AwMD"}, "jku": "https://evil.example"},
    ),
    "no exp": lambda: forged(exp=None),
    "no iat": lambda: forged(iat=None),
    "no sub": lambda: forged(sub=None),
    "no tid": lambda: forged(tid=None),
    "no sid": lambda: forged(sid=None),
    "no jti": lambda: forged(jti=None),
    "no roles": lambda: forged(roles=None),
    "issued in the future": lambda: forged(iat=int(now().timestamp()) + 3600),
    "not a user": lambda: forged(sub="root"),
    "a list as tenant": lambda: forged(tid=["a"]),
    "exp as text": lambda: forged(exp="never"),
    "exp beyond the calendar": lambda: forged(exp=10**18),
    "longer than 15 minutes": lambda: forged(exp=int(now().timestamp()) + 24 * 3600),
    "not before an hour": lambda: forged(nbf=int(now().timestamp()) + 3600),
    "nothing": lambda: "",
    "dots": lambda: "..",
    "very long": lambda: "a" * 5000 + ".b.c",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")  # forgers are not careful
@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forgery_is_refused(kind: str) -> None:
    with pytest.raises(TokenInvalid):
        TOKENS.verify(FORGERIES[kind]())  # type: ignore[no-untyped-call]


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=63))
def test_a_token_with_one_other_sign_is_refused(place: int, by: int) -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = signed()
    at = place % (len(token) - 1)  # of the last sign some bits are no bits of the signature
    changed = "A" if token[at] == "." else alphabet[(alphabet.index(token[at]) + by) % 64]
    with pytest.raises(TokenInvalid):
        TOKENS.verify(token[:at] + changed + token[at + 1 :])


@given(st.text())
def test_any_text_is_refused_as_a_token(text: str) -> None:
    with pytest.raises(TokenInvalid):
        TOKENS.verify(text)


def test_a_key_of_another_length_is_none() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SigningKey(b"short")
