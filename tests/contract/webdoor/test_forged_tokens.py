"""What a provider says is believed only as far as it can be proved."""

import base64
import hmac
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import grpc
import pytest
from joserfc.jwk import ECKey
from orginabox.api.v1 import auth_service_pb2, role_pb2, role_service_pb2
from orginabox.api.v1 import identity_provider_service_pb2 as pb

from services.identity.attempts import Brake
from tests.contract.identity.rig import refused
from tests.contract.webdoor.rig import LOGIN, Web, field, refusal
from tests.openid_issuer import ForgingIssuer, signed, unsigned

Forge = Callable[[ForgingIssuer], Callable[[dict[str, Any]], str]]


def with_claims(**claims: Any) -> Forge:
    def forge(issuer: ForgingIssuer) -> Callable[[dict[str, Any]], str]:
        return lambda said: signed(
            {name: value for name, value in (said | claims).items() if value is not None}, issuer.key
        )

    return forge


def in_seconds(**claims: int) -> Forge:
    def forge(issuer: ForgingIssuer) -> Callable[[dict[str, Any]], str]:
        now = int(time.time())  # when the token is made, and not when this file is read
        return with_claims(**{name: now + value for name, value in claims.items()})(issuer)

    return forge


def with_key_of_ours(issuer: ForgingIssuer) -> Callable[[dict[str, Any]], str]:
    """HMAC with what everybody knows: the public key of the provider."""
    key = issuer.key.as_pem(private=False)

    def forge(said: dict[str, Any]) -> str:
        parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "kid": "first"}, said)]
        signed_part = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
        mac = base64.urlsafe_b64encode(hmac.digest(key, signed_part, "sha256")).rstrip(b"=")
        return (signed_part + b"." + mac).decode()

    return forge


FORGERIES: dict[str, Forge] = {
    "alg none": lambda _: unsigned,
    "alg HS256 with the public key": with_key_of_ours,
    "the key of somebody else": lambda _: lambda said: signed(said, ECKey.generate_key("P-256", {"kid": "first"})),
    "no such key": lambda _: lambda said: signed(said, ECKey.generate_key("P-256", {"kid": "second"})),
    "changed": lambda issuer: lambda said: signed(said, issuer.key)[:-4] + "AAAA",
    "no token": lambda _: lambda _: "not.a.token",
    "another nonce": with_claims(nonce="another"),
    "no nonce": with_claims(nonce=None),
    "another issuer": with_claims(iss="https://accounts.example"),
    "another audience": with_claims(aud="another"),
    "two audiences and no azp": with_claims(aud=["box", "another"]),
    "given to another": with_claims(azp="another"),
    "no subject": with_claims(sub=None),
    "no end": with_claims(exp=None),
    "ended": in_seconds(exp=-61, iat=-400),
    "not yet": in_seconds(nbf=120),
    "from the future": in_seconds(iat=120),
}


@pytest.mark.parametrize("name", FORGERIES)
async def test_a_token_that_does_not_verify_signs_nobody_in(web: Web, issuer: ForgingIssuer, name: str) -> None:
    await web.add_provider(issuer.url, create_users=True)
    issuer.forge = FORGERIES[name](issuer)
    browser = web.browser()
    page = await browser.get(LOGIN, params={"provider": "idp"})
    assert page.status_code == 400
    assert "does not verify" in refusal(page)
    assert "You are signed in" not in (await browser.get(LOGIN)).text
    await web.rig.audits.until("auth.login_failed", reason="IDENTITY_PROVIDER_REFUSED")


@pytest.mark.parametrize(
    "forge", [in_seconds(exp=-50, iat=-400), with_claims(aud=["box", "other"], azp="box"), with_claims(aud=["box"])]
)
async def test_what_the_standard_allows_is_allowed(web: Web, issuer: ForgingIssuer, forge: Forge) -> None:
    await web.add_provider(issuer.url, create_users=True)
    issuer.forge = forge(issuer)
    assert "You are signed in" in (await web.browser().get(LOGIN, params={"provider": "idp"})).text


async def test_a_new_key_is_looked_up_and_strangers_cannot_make_us_look_all_day(
    web: Web, issuer: ForgingIssuer
) -> None:
    await web.add_provider(issuer.url, create_users=True)
    openid = web.rig.room.federation.openid
    new = ECKey.generate_key("P-256", {"kid": "second", "use": "sig", "alg": "ES256"})
    issuer.published, issuer.key = [issuer.key, new], new
    openid._clock = lambda: time.time() + 11
    assert "You are signed in" in (await web.browser().get(LOGIN, params={"provider": "idp"})).text
    read = issuer.keys_read
    issuer.forge = FORGERIES["no such key"](issuer)
    for _ in range(3):
        await web.browser().get(LOGIN, params={"provider": "idp"})
    assert issuer.keys_read == read


async def test_the_verifier_is_the_browsers_and_not_in_the_database(web: Web, issuer: ForgingIssuer) -> None:
    await web.add_provider(issuer.url, create_users=True)
    await web.browser().get(LOGIN, params={"provider": "idp"})
    first = issuer.exchanged["code_verifier"]
    await web.browser().get(LOGIN, params={"provider": "idp"})
    assert len(first) >= 43
    assert issuer.exchanged["code_verifier"] != first


async def test_a_provider_that_is_away_is_said_to_be(web: Web, issuer: ForgingIssuer) -> None:
    await web.add_provider(issuer.url, create_users=True)
    issuer.status = 500
    page = await web.browser().get(LOGIN, params={"provider": "idp"})
    assert page.status_code == 503
    assert "answers with 500" in refusal(page)


ENTRA = {"tid": "d-1", "oid": "o-1", "sub": "pairwise", "preferred_username": "ada@acme.example", "name": "Ada"}


async def test_entra_is_known_by_directory_and_object_id(web: Web, issuer: ForgingIssuer) -> None:
    issuer.document = {"issuer": f"{issuer.url}/{{tenantid}}/v2.0"}
    issuer.claims = ENTRA | {"iss": f"{issuer.url}/d-1/v2.0"}
    await web.add_provider(issuer.url, create_users=True, directory_id="d-1")
    browser = web.browser()
    assert "You are signed in" in (await browser.get(LOGIN, params={"provider": "idp"})).text
    async with web.rig.room.desk.store._database._system.connection() as connection:
        row = await (
            await connection.execute("SELECT subject, directory_object_id FROM user_account WHERE subject <> ''")
        ).fetchone()
    assert row == {"subject": "o-1", "directory_object_id": "o-1"}
    issuer.claims = ENTRA | {"iss": f"{issuer.url}/d-2/v2.0", "tid": "d-2"}
    page = await web.browser().get(LOGIN, params={"provider": "idp"})
    assert page.status_code == 400


@pytest.mark.parametrize("subject", ["", "x" * 256, "ada\0", "é", 5, ["ada"]])
async def test_who_somebody_is_is_not_cut_to_fit(web: Web, issuer: ForgingIssuer, subject: object) -> None:
    issuer.claims = {"sub": subject}
    await web.add_provider(issuer.url, create_users=True)
    page = await web.browser().get(LOGIN, params={"provider": "idp"})
    assert page.status_code == 400, page.text


async def test_a_name_may_hold_anything(web: Web, issuer: ForgingIssuer) -> None:
    issuer.claims = {
        "sub": "ada",
        "name": "A\0da <b>",
        "preferred_username": "\0/../é",
        "email": "a@\0",
    }
    await web.add_provider(issuer.url, create_users=True)
    page = await web.browser().get(LOGIN, params={"provider": "idp"})
    assert "Ada &lt;b&gt;" in page.text


async def test_more_groups_than_a_token_holds_are_not_guessed_at(web: Web, issuer: ForgingIssuer) -> None:
    issuer.claims = {
        "sub": "ada",
        "_claim_names": {"groups": "src1"},
        "_claim_sources": {"src1": {"endpoint": "https://x"}},
    }
    await web.add_provider(issuer.url, create_users=True)
    assert "You are signed in" in (await web.browser().get(LOGIN, params={"provider": "idp"})).text
    await web.map_groups(ops="admin")
    page = await web.browser().get(LOGIN, params={"provider": "idp"})
    assert page.status_code == 400
    assert "in more groups than" in refusal(page)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"issuer": "https://accounts.example"}, "IDENTITY_PROVIDER_REFUSED"),
        ({"token_endpoint": None}, "IDENTITY_PROVIDER_REFUSED"),
        ({"token_endpoint": "http://169.254.169.254/latest"}, "IDENTITY_PROVIDER_REFUSED"),
        ({"jwks_uri": "file:///etc/passwd"}, "IDENTITY_PROVIDER_REFUSED"),
        ({"code_challenge_methods_supported": ["plain"]}, "IDENTITY_PROVIDER_REFUSED"),
    ],
)
async def test_a_provider_is_looked_at_before_it_is_kept(
    web: Web, issuer: ForgingIssuer, document: dict[str, Any], reason: str
) -> None:
    issuer.document = document
    with refused(reason):
        await web.add_provider(issuer.url)


@pytest.mark.parametrize(
    "url",
    [
        "http://idp.example/",
        "https://169.254.169.254/",
        "https://[::ffff:169.254.169.254]/",
        "https://user:word@idp.example/",
        "https://login.microsoftonline.com/common/v2.0",
    ],
)
async def test_addresses_that_are_no_providers_are_not_called(web: Web, url: str) -> None:
    with refused("IDENTITY_PROVIDER_REFUSED"):
        await web.add_provider(url)


async def test_a_secret_is_sealed_kept_and_never_shown(web: Web, issuer: ForgingIssuer) -> None:
    kept = await web.add_provider(issuer.url, client_secret="hush hush", create_users=True)
    assert not kept.client_secret
    await web.add_provider(issuer.url, create_users=True, display_name="Changed")
    listed = await web.providers.ListIdentityProviders(pb.ListIdentityProvidersRequest(), metadata=web.rig.operator)
    assert [(each.display_name, each.client_secret) for each in listed.identity_providers] == [("Changed", "")]
    async with web.rig.room.desk.store._database._system.connection() as connection:
        row = await (await connection.execute("SELECT sealed_secret FROM identity_provider")).fetchone()
    assert row is not None
    assert row["sealed_secret"].startswith("v2:k")
    issuer.document = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    web.rig.room.federation.openid._kept.clear()
    assert "You are signed in" in (await web.browser().get(LOGIN, params={"provider": "idp"})).text
    assert issuer.exchanged["client_secret"] == "hush hush"


async def test_who_is_less_than_an_owner_says_not_who_vouches_for_people(web: Web, issuer: ForgingIssuer) -> None:
    role = role_pb2.UserRole(
        name="keeper", permissions=role_pb2.Permissions(admin=role_pb2.AdminPermissions(manage_tenant=True))
    )
    await web.rig.roles.CreateRole(role_service_pb2.CreateRoleRequest(role=role), metadata=web.rig.operator)
    keeper = await web.rig.become("kay", "keeper")
    request = pb.PutIdentityProviderRequest(
        identity_provider=pb.IdentityProvider(identity_provider_id="evil", issuer=issuer.url, client_id="box")
    )
    with refused("PERMISSION_ESCALATION"):
        await web.providers.PutIdentityProvider(request, metadata=keeper)
    with refused("PERMISSION_ESCALATION"):
        await web.providers.RotateScimToken(pb.RotateScimTokenRequest(), metadata=keeper)
    owner = await web.rig.become("olga", "owner")
    await web.providers.PutIdentityProvider(request, metadata=owner)


async def test_another_issuer_does_not_inherit_the_users_of_the_one_before(web: Web, issuer: ForgingIssuer) -> None:
    await web.add_provider(issuer.url, create_users=True)
    await web.browser().get(LOGIN, params={"provider": "idp"})
    with refused("IDENTITY_PROVIDER_REFUSED"):
        await web.add_provider(issuer.url, create_users=True, directory_id="d-9")


ME = auth_service_pb2.GetMeRequest()
OUT = auth_service_pb2.SignOutRequest()


async def test_a_cookie_alone_changes_nothing(web: Web, issuer: ForgingIssuer) -> None:
    await web.add_provider(issuer.url, create_users=True)
    browser, other = web.browser(), web.browser()
    await browser.get(LOGIN, params={"provider": "idp"})
    issuer.claims = {"sub": "eve"}
    await other.get(LOGIN, params={"provider": "idp"})
    proof, wrong = browser.cookies["oiab_csrf"], other.cookies["oiab_csrf"]
    await web.rig.auth.GetMe(ME, metadata=web.cookies(browser))
    for bad in (
        {},
        {"x_oiab_csrf": wrong},
        {"x_oiab_csrf": proof, "origin": "https://evil.example"},
        {"x_oiab_csrf": proof, "origin": "null"},
        {"x_oiab_csrf": proof, "sec_fetch_site": "cross-site"},
        {"x_oiab_csrf": proof, "sec_fetch_site": "same-site"},
    ):
        with refused("CSRF_REFUSED"):
            await web.rig.auth.SignOut(OUT, metadata=web.cookies(browser, **bad))
    good = {"x_oiab_csrf": proof, "origin": "http://127.0.0.1:8787", "sec_fetch_site": "same-origin"}
    answer = await web.rig.auth.SignOut(OUT, metadata=web.cookies(browser, **good))
    assert answer.sign_ins == 1
    with refused("TOKEN_REVOKED"):
        await web.rig.auth.GetMe(ME, metadata=web.cookies(browser))
    assert "Continue with" in (await browser.get(LOGIN)).text


async def test_a_cookie_that_was_changed_is_none_of_ours(web: Web, issuer: ForgingIssuer) -> None:
    await web.add_provider(issuer.url, create_users=True)
    browser = web.browser()
    await browser.get(LOGIN, params={"provider": "idp"})
    value = browser.cookies["oiab_session"]
    for forged in (
        value[:-2] + "AA",
        value[:40] + ("A" if value[40] != "A" else "B") + value[41:],
        value + "A",
        "x",
        "é",
        "A" * 5000,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await web.rig.auth.GetMe(
                ME, metadata=(("cookie", f"oiab_session={forged}".encode().decode("ascii", "ignore")),)
            )
        assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_forms_of_other_sites_are_refused(web: Web) -> None:
    await web.rig.add("bob", "member")
    browser = web.browser()
    page = await browser.get(LOGIN)
    form = {"form": field(page, "form"), "handle": "bob", "password": "the moon was late"}
    assert (await web.browser().post(LOGIN, data=form)).status_code == 403, "another browser"
    assert (await browser.post(LOGIN, data=form | {"form": "x"})).status_code == 403
    assert (await browser.post(LOGIN, data=form, headers={"origin": "https://evil.example"})).status_code == 403
    done = await browser.post(LOGIN, data=form, headers={"origin": "http://127.0.0.1:8787"})
    assert "You are signed in" in done.text
    assert (await browser.post(f"{LOGIN}/out", data={"csrf": "x"})).status_code == 403
    out = await browser.post(f"{LOGIN}/out", data={"csrf": field(done, "csrf")})
    assert "You are signed in" not in out.text


async def test_refusals_are_pages_for_people_and_json_for_programs_and_all_are_dressed(web: Web) -> None:
    browser = web.browser()
    page = await browser.get(f"{LOGIN}/nowhere")
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    said = await browser.get(f"{LOGIN}/nowhere", headers={"accept": "application/json"})
    assert said.json()["details"][0]["reason"] == "ERROR_REASON_PATH_NOT_FOUND"
    large = await browser.post(
        LOGIN, content=b"handle=" + b"x" * 70_000, headers={"content-type": "application/x-www-form-urlencoded"}
    )
    assert large.status_code == 413
    for answer in (page, said, large):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"


async def test_an_address_from_which_many_fail_has_to_wait(
    web: Web, issuer: ForgingIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.identity.federation.ADDRESS", Brake(3, timedelta(minutes=15)))
    await web.add_provider(issuer.url, create_users=True)
    issuer.forge = FORGERIES["no token"](issuer)
    pages = [await web.browser().get(LOGIN, params={"provider": "idp"}) for _ in range(4)]
    assert [page.status_code for page in pages] == [400, 400, 400, 429]
