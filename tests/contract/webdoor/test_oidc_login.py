"""People sign in at a certified OpenID provider, from the page to their roles."""

from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from orginabox.api.v1 import auth_service_pb2, user_pb2, user_service_pb2
from orginabox.api.v1 import identity_provider_service_pb2 as pb

from tests.contract.identity.rig import refused
from tests.contract.webdoor.rig import LOGIN, Web, field, refusal
from tests.openid_provider import CLIENT_SECRET, OpenIdProvider

SCOPES = ["profile", "email", "groups"]


async def signed_in(web: Web, account: str) -> httpx.AsyncClient:
    browser = web.browser(account)
    page = await browser.get(LOGIN, params={"provider": "idp"})
    assert "You are signed in" in page.text, page.text
    return browser


async def user_of(web: Web, browser: httpx.AsyncClient) -> user_pb2.User:
    answer = await web.rig.auth.GetMe(auth_service_pb2.GetMeRequest(), metadata=web.cookies(browser))
    found: user_pb2.User = answer.user
    return found


@pytest.mark.parametrize(("client", "secret"), [("box", CLIENT_SECRET), ("public", "")])
async def test_a_new_user_is_added_with_the_roles_of_their_groups(
    web: Web, idp: OpenIdProvider, client: str, secret: str
) -> None:
    await idp.put("ada", name="Ada L", email="ada@x.example", preferred_username="Ada@X", groups=["staff", "ops"])
    await web.add_provider(idp.url, client, client_secret=secret, create_users=True, scopes=SCOPES)
    await web.map_groups(ops="admin")
    browser = await signed_in(web, "ada")
    me = await user_of(web, browser)
    assert (me.handle, me.display_name, me.email) == ("ada@x", "Ada L", "ada@x.example")
    assert sorted(me.roles) == ["admin", "member"]
    assert me.identity_provider == "idp"
    again = await user_of(web, await signed_in(web, "ada"))
    assert again.user_id == me.user_id
    await web.rig.audits.until("auth.login", method="oidc")
    await web.rig.audits.until("admin.user_create", by="idp")


async def test_the_page_offers_the_provider_and_goes_where_it_was_asked(web: Web, idp: OpenIdProvider) -> None:
    await idp.put("eve", name="Eve")
    await web.add_provider(idp.url, client_secret=CLIENT_SECRET, create_users=True, display_name="Acme <sso>")
    browser = web.browser("eve")
    page = await browser.get(LOGIN, params={"redirect": "/v1/auth/device/page"})
    assert "Continue with Acme &lt;sso&gt;" in page.text
    assert "script" not in page.text
    done = await browser.get(LOGIN, params={"provider": "idp", "redirect": "/v1/auth/device/page"})
    assert done.url.path == "/v1/auth/device/page"
    assert "Type the code" in done.text


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example", "//evil.example", "/\\evil.example", "/%0d%0aset-cookie:x".replace("%0d%0a", "\r\n")],
)
async def test_nobody_is_sent_to_another_site(web: Web, elsewhere: str) -> None:
    await web.rig.add("bob", "member")
    browser = web.browser()
    page = await browser.get(LOGIN, params={"redirect": elsewhere})
    assert field(page, "redirect") == ""
    form = {"form": field(page, "form"), "handle": "bob", "password": "the moon was late", "redirect": elsewhere}
    answer = await browser.post(LOGIN, data=form, follow_redirects=False)
    assert answer.headers["location"] == "/v1/auth/login"


async def test_groups_count_anew_at_every_sign_in_and_direct_roles_stay(web: Web, idp: OpenIdProvider) -> None:
    await idp.put("joe", name="Joe", groups=["ops"])
    await web.add_provider(idp.url, client_secret=CLIENT_SECRET, create_users=True, scopes=SCOPES)
    await web.map_groups(ops="admin", sales="viewer")
    first = await signed_in(web, "joe")
    assert sorted((await user_of(web, first)).roles) == ["admin", "member"]
    await idp.put("joe", name="Joe", groups=["sales"])
    assert sorted((await user_of(web, await signed_in(web, "joe"))).roles) == ["member", "viewer"]
    assert sorted((await user_of(web, first)).roles) == ["member", "viewer"], "it counts for the sign-in before, too"
    await idp.put("joe", name="Joe")
    assert list((await user_of(web, await signed_in(web, "joe"))).roles) == ["member"]
    await web.rig.audits.until("auth.role_change", by="groups")


async def test_who_was_not_added_stays_out(web: Web, idp: OpenIdProvider) -> None:
    await idp.put("mallory", name="M", email="boss@x.example", email_verified=True)
    await web.add_provider(idp.url, client_secret=CLIENT_SECRET)
    await web.rig.add("boss", "owner")  # has a password, so it was not made for this
    page = await web.browser("mallory").get(LOGIN, params={"provider": "idp"})
    assert page.status_code == 403
    assert "Nobody has added you" in refusal(page)
    await web.rig.audits.until("auth.login_failed", reason="TENANT_NOT_PROVISIONED")


@pytest.mark.parametrize("verified", [True, False, "true", None])
async def test_an_account_that_waits_is_found_by_a_verified_mail_address_only(
    web: Web, idp: OpenIdProvider, *, verified: object
) -> None:
    request = user_service_pb2.CreateUserRequest(handle="grace", email="Grace@X.example", roles=["admin"])
    await web.rig.users.CreateUser(request, metadata=web.rig.operator)
    await idp.put("g-1", name="G", email="grace@x.example", email_verified=verified)
    await web.add_provider(idp.url, client_secret=CLIENT_SECRET)
    page = await web.browser("g-1").get(LOGIN, params={"provider": "idp"})
    assert ("You are signed in" in page.text) is (verified is True)
    if verified is True:
        await idp.put("g-2", name="Other", email="grace@x.example", email_verified=True)
        other = await web.browser("g-2").get(LOGIN, params={"provider": "idp"})
        assert other.status_code == 403, "an account that is somebody's waits for nobody"


async def test_who_is_suspended_stays_out(web: Web, idp: OpenIdProvider) -> None:
    await idp.put("tim", name="Tim", preferred_username="tim")
    await web.add_provider(idp.url, client_secret=CLIENT_SECRET, create_users=True)
    browser = await signed_in(web, "tim")
    user = user_pb2.User(user_id="tim", status=user_pb2.USER_STATUS_SUSPENDED)
    request = user_service_pb2.UpdateUserRequest(user=user)
    await web.rig.users.UpdateUser(request, metadata=web.rig.operator)
    page = await web.browser("tim").get(LOGIN, params={"provider": "idp"})
    assert page.status_code == 403
    assert "may not use this box" in refusal(page)
    assert "You are signed in" not in (await browser.get(LOGIN)).text


async def test_a_provider_that_goes_lets_nobody_in_who_is_on_the_way(web: Web, idp: OpenIdProvider) -> None:
    await idp.put("zoe", name="Zoe")
    await web.add_provider(idp.url, client_secret=CLIENT_SECRET, create_users=True)
    browser = web.browser("zoe")
    away = await browser.get(LOGIN, params={"provider": "idp"}, follow_redirects=False)
    deleted = pb.DeleteIdentityProviderRequest(identity_provider_id="idp")
    await web.providers.DeleteIdentityProvider(deleted, metadata=web.rig.operator)
    with refused("IDENTITY_PROVIDER_NOT_FOUND", identityProviderId="idp"):
        await web.providers.DeleteIdentityProvider(deleted, metadata=web.rig.operator)
    assert (await browser.get(away.headers["location"])).status_code == 401
    assert (await web.browser("zoe").get(LOGIN, params={"provider": "idp"})).status_code == 404


async def test_pkce_cannot_be_taken_away(web: Web, idp: OpenIdProvider) -> None:
    await idp.put("kim", name="Kim")
    await web.add_provider(idp.url, client_secret=CLIENT_SECRET, create_users=True)
    browser = web.browser("kim")
    away = await browser.get(LOGIN, params={"provider": "idp"}, follow_redirects=False)
    asked = parse_qs(urlsplit(away.headers["location"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    challenge = asked["code_challenge"][0]
    # Somebody in between asks for another challenge, for which they would have the verifier.
    forged = away.headers["location"].replace(challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")
    page = await browser.get(forged)
    assert page.status_code == 400
    assert "does not accept this sign-in" in refusal(page)


async def test_a_sign_in_ends_once_and_in_the_browser_that_began_it(web: Web, idp: OpenIdProvider) -> None:
    await idp.put("lea", name="Lea")
    await web.add_provider(idp.url, client_secret=CLIENT_SECRET, create_users=True)
    mine, other = web.browser("lea"), web.browser("lea")
    away = await mine.get(LOGIN, params={"provider": "idp"}, follow_redirects=False)
    back = away.headers["location"]
    while "/v1/auth/callback" not in back:
        step = await mine.get(back, follow_redirects=False)
        back = str(httpx.URL(back).join(step.headers["location"]))
    strange = await other.get(back)
    assert strange.status_code == 401
    assert "was not begun in this browser" in refusal(strange)
    # The stranger has used it up: whoever came with it, it is good for nobody now.
    assert (await mine.get(back)).status_code == 401

    browser = web.browser("lea")
    away = await browser.get(LOGIN, params={"provider": "idp"}, follow_redirects=False)
    back = away.headers["location"]
    while "/v1/auth/callback" not in back:
        step = await browser.get(back, follow_redirects=False)
        back = str(httpx.URL(back).join(step.headers["location"]))
    kept = dict(browser.cookies)
    assert "You are signed in" in (await browser.get(back)).text
    thief = web.browser()
    thief.cookies.update(kept)
    assert (await thief.get(back)).status_code == 401, "state and code are used up, even with the browser's secret"


async def test_who_gives_up_at_the_provider_is_told_so(web: Web, idp: OpenIdProvider) -> None:
    await web.add_provider(idp.url, client_secret=CLIENT_SECRET, create_users=True)
    page = await web.browser().get(LOGIN, params={"provider": "idp"})
    assert refusal(page) == "The sign-in was cancelled"
