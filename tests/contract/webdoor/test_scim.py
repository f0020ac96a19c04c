"""A directory brings users and groups: the standard's own tester, and what Entra ID and Okta send."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest
from orginabox.api.v1 import auth_service_pb2, tenant_service_pb2, user_service_pb2
from orginabox.api.v1 import identity_provider_service_pb2 as pb
from scim2_client.engines.wsgi import WSGISCIMClient
from scim2_tester import Status, check_server

from tests.contract.identity.rig import bearer, refused
from tests.contract.webdoor.rig import BOX, LOGIN, Web
from tests.openid_issuer import ForgingIssuer

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"


def patch(*operations: dict[str, Any]) -> dict[str, Any]:
    return {"schemas": [PATCH], "Operations": list(operations)}


async def add(directory: httpx.AsyncClient, user_name: str, /, **more: Any) -> dict[str, Any]:
    answer = await directory.post("/Users", json={"schemas": [USER], "userName": user_name, **more})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    assert answer.headers["location"] == found["meta"]["location"] == f"{BOX}/scim/v2/Users/{found['id']}"
    return found


async def group(directory: httpx.AsyncClient, name: str, *members: str) -> dict[str, Any]:
    said = {"schemas": [GROUP], "displayName": name, "members": [{"value": member} for member in members]}
    answer = await directory.post("/Groups", json=said)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def roles(web: Web, user_id: str) -> list[str]:
    request = user_service_pb2.GetUserRequest(user_id=user_id)
    return sorted((await web.rig.users.GetUser(request, metadata=web.rig.operator)).user.roles)


async def test_the_testers_of_the_standard_find_nothing(web: Web) -> None:
    directory, loop = web.directory(await web.scim_token()), asyncio.get_running_loop()

    def app(environ: dict[str, Any], start: Any) -> list[bytes]:
        # The tester is not asynchronous, and the database belongs to our loop.
        target = f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}".rstrip("?")
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        headers = {"content-type": environ.get("CONTENT_TYPE", "application/scim+json")}
        request = directory.request(environ["REQUEST_METHOD"], f"{BOX}{target}", content=body, headers=headers)
        answer = asyncio.run_coroutine_threadsafe(request, loop).result(30)
        start(f"{answer.status_code} {answer.reason_phrase}", list(answer.headers.items()))
        return [answer.content]

    def check() -> list[Any]:
        return list(check_server(WSGISCIMClient(app, base_url=f"{BOX}/scim/v2")))

    results = await asyncio.to_thread(check)
    bad = [
        f"{each.title} {each.status}: {each.reason}"
        for each in results
        if each.status not in {Status.SUCCESS, Status.SKIPPED, Status.COMPLIANT}
    ]
    assert not bad, "\n".join(bad)


async def test_only_the_newest_token_opens_and_only_its_tenant(web: Web) -> None:
    old = await web.scim_token()
    new = await web.scim_token()
    for token in (old, "", "oiab_scim_guess"):
        answer = await web.directory(token).get("/Users")
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    found = (await web.directory(new).get("/Users")).json()
    assert found["totalResults"] == 0, "the operator of the box is nobody's business"
    operator = "00000000-0000-7000-8000-000000000002"
    assert (await web.directory(new).delete(f"/Users/{operator}")).status_code == 404
    said = {"schemas": [GROUP], "displayName": "g", "members": [{"value": operator}]}
    assert (await web.directory(new).post("/Groups", json=said)).status_code == 400


async def test_entra_id_brings_somebody_and_takes_them_away(web: Web, issuer: ForgingIssuer) -> None:
    directory = web.directory(await web.scim_token())
    said = {
        "externalId": "o-1",
        "active": True,
        "emails": [{"primary": True, "type": "work", "value": "Ada@Acme.example"}],
        "name": {"formatted": "Ada Lovelace", "familyName": "Lovelace", "givenName": "Ada"},
        "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User": {"department": "Engines"},
    }
    ada = await add(directory, "Ada@Acme.example", **said)
    assert (ada["userName"], ada["displayName"], ada["active"]) == ("ada@acme.example", "Ada Lovelace", True)
    by_name = await directory.get("/Users", params={"filter": 'userName eq "ADA@acme.example"'})
    assert [each["id"] for each in by_name.json()["Resources"]] == [ada["id"]]
    again = await directory.post("/Users", json={"schemas": [USER], "userName": "ada@acme.example"})
    assert (again.status_code, again.json()["scimType"]) == (409, "uniqueness")

    issuer.claims = {"sub": "pairwise", "oid": "o-1", "tid": "d-1"}
    await web.add_provider(issuer.url, directory_id="d-1")
    browser = web.browser()
    assert "You are signed in" in (await browser.get(LOGIN, params={"provider": "idp"})).text
    me = await web.rig.auth.GetMe(auth_service_pb2.GetMeRequest(), metadata=web.cookies(browser))
    assert me.user.user_id == ada["id"]

    changed = await directory.patch(
        f"/Users/{ada['id']}",
        json=patch(
            {"op": "Replace", "path": 'emails[type eq "work"].value', "value": "countess@acme.example"},
            {"op": "Add", "path": "name.formatted", "value": "Countess of Lovelace"},
            {"op": "Replace", "path": "active", "value": "False"},
        ),
    )
    assert changed.status_code == 200, changed.text
    found = changed.json()
    assert (found["displayName"], found["emails"][0]["value"]) == ("Countess of Lovelace", "countess@acme.example")
    assert found["active"] is False
    with refused("USER_SUSPENDED"):
        await web.rig.auth.GetMe(auth_service_pb2.GetMeRequest(), metadata=web.cookies(browser))
    assert (await web.browser().get(LOGIN, params={"provider": "idp"})).status_code == 403
    record = await web.rig.audits.until("admin.user_update", status="suspended")
    assert (record.actor, record.target) == ("service:scim", f"user:{ada['id']}")


async def test_okta_turns_somebody_off_without_a_path(web: Web) -> None:
    directory = web.directory(await web.scim_token())
    joe = await add(directory, "joe", displayName="Joe", emails=[{"value": "joe@x.example"}])
    off = await directory.patch(f"/Users/{joe['id']}", json=patch({"op": "replace", "value": {"active": False}}))
    assert off.json()["active"] is False
    on = await directory.patch(f"/Users/{joe['id']}", json=patch({"op": "replace", "value": {"active": "true"}}))
    assert on.json()["active"] is True
    put = await directory.put(f"/Users/{joe['id']}", json={"schemas": [USER], "userName": "joseph", "active": True})
    assert (put.json()["userName"], put.json().get("emails")) == ("joseph", None)


async def test_who_has_left_has_no_way_back_in_and_the_name_is_free(web: Web, issuer: ForgingIssuer) -> None:
    directory = web.directory(await web.scim_token())
    await web.map_groups(ops="admin")
    kim = await add(directory, "kim", externalId="k-1")
    await group(directory, "ops", kim["id"])
    issuer.claims = {"sub": "k-1"}
    await web.add_provider(issuer.url)
    assert "You are signed in" in (await web.browser().get(LOGIN, params={"provider": "idp"})).text
    assert (await directory.delete(f"/Users/{kim['id']}")).status_code == 204
    assert (await directory.get(f"/Users/{kim['id']}")).status_code == 404
    assert (await web.browser().get(LOGIN, params={"provider": "idp"})).status_code == 403
    assert await roles(web, kim["id"]) == []
    other = await add(directory, "kim")
    assert other["id"] != kim["id"]
    assert await roles(web, other["id"]) == ["member"]


async def test_groups_are_roles(web: Web) -> None:
    directory = web.directory(await web.scim_token())
    await web.map_groups(ops="admin", sales="viewer")
    ann, ben = await add(directory, "ann"), await add(directory, "ben")
    ops = await group(directory, "ops", ann["id"])
    assert (await roles(web, ann["id"]), await roles(web, ben["id"])) == (["admin", "member"], ["member"])
    url = f"/Groups/{ops['id']}"
    entra_add = {"op": "Add", "path": "members", "value": [{"value": ben["id"]}]}
    assert (await directory.patch(url, json=patch(entra_add))).status_code == 200
    assert await roles(web, ben["id"]) == ["admin", "member"]
    entra_remove = {"op": "Remove", "path": "members", "value": [{"value": ann["id"]}]}
    assert (await directory.patch(url, json=patch(entra_remove))).status_code == 200
    assert await roles(web, ann["id"]) == ["member"]
    okta_remove = {"op": "remove", "path": f'members[value eq "{ben["id"]}"]'}
    assert (await directory.patch(url, json=patch(okta_remove))).status_code == 200
    assert await roles(web, ben["id"]) == ["member"]
    renamed = {"op": "replace", "value": {"id": ops["id"], "displayName": "sales"}}
    await directory.patch(url, json=patch(entra_add))
    assert (await directory.patch(url, json=patch(renamed))).status_code == 200
    assert await roles(web, ben["id"]) == ["member", "viewer"]
    assert (await directory.delete(url)).status_code == 204
    assert await roles(web, ben["id"]) == ["member"]
    await web.rig.audits.until("admin.group_delete")


async def test_roles_of_groups_count_in_running_sign_ins(web: Web) -> None:
    directory = web.directory(await web.scim_token())
    await web.map_groups(ops="admin")
    user_id = await web.rig.add("lou", "member")
    who = bearer((await web.rig.sign_in("lou")).access_token)
    assert "admin.manage_users" not in await web.rig.may(who)
    ops = await group(directory, "ops", user_id)
    assert "admin.manage_users" in await web.rig.may(who)
    await directory.put(f"/Groups/{ops['id']}", json={"schemas": [GROUP], "displayName": "ops"})
    assert "admin.manage_users" not in await web.rig.may(who)


async def test_the_last_owner_of_a_tenant_stays(web: Web) -> None:
    directory = web.directory(await web.scim_token())
    owner = await web.rig.add("olga", "owner")
    other_owners = web.rig.room.desk.store._database
    async with other_owners._system.connection() as connection:
        await connection.execute("DELETE FROM user_role WHERE user_id = '00000000-0000-7000-8000-000000000002'")
    off = await directory.patch(f"/Users/{owner}", json=patch({"op": "replace", "path": "active", "value": False}))
    assert off.status_code == 400
    assert (await directory.delete(f"/Users/{owner}")).status_code == 400


async def test_pages_and_filters(web: Web) -> None:
    directory = web.directory(await web.scim_token())
    made = [await add(directory, f"user{number}", externalId=f"x{number}") for number in range(5)]
    page = (await directory.get("/Users", params={"startIndex": "2", "count": "2"})).json()
    assert (page["totalResults"], page["startIndex"], page["itemsPerPage"]) == (5, 2, 2)
    assert [each["id"] for each in page["Resources"]] == [each["id"] for each in made[1:3]]
    for asked, count in [
        ('externalId eq "x3"', 1),
        ('externalId eq "X3"', 0),
        ('userName eq "user1" and externalId eq "x1"', 1),
        (f'id eq "{made[0]["id"]}"', 1),
        ('id eq "none"', 0),
    ]:
        found = (await directory.get("/Users", params={"filter": asked})).json()
        assert found["totalResults"] == count, asked
    for asked in ('userName co "user"', 'title eq "x"', "userName eq", 'userName eq "a" or userName eq "b"'):
        answer = await directory.get("/Users", params={"filter": asked})
        assert (answer.status_code, answer.json()["scimType"]) == (400, "invalidFilter"), asked
    past = (await directory.get("/Users", params={"startIndex": "9"})).json()
    assert past["totalResults"] == 5
    assert past.get("Resources", []) == []
    assert (await directory.get("/Users", params={"count": "0"})).json()["totalResults"] == 5


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"schemas": 5}', b'{"userName": ""}', b"[" * 100_000, b'{"userName": "a\\u0000b"}']
)
async def test_what_is_no_user_is_refused_in_words(web: Web, body: bytes) -> None:
    directory = web.directory(await web.scim_token())
    answer = await directory.post("/Users", content=body, headers={"content-type": "application/scim+json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]
    assert (await directory.get(f"/Users/{uuid4()}")).status_code == 404
    assert (await directory.get("/Users/none")).status_code == 404


async def test_another_tenants_users_are_not_there(web: Web) -> None:
    request = tenant_service_pb2.CreateTenantRequest(
        slug="other", name="Other", owner_handle="oz", owner_password="the sun was late, too"
    )
    await web.rig.tenants.CreateTenant(request, metadata=web.rig.operator)
    oz = bearer((await web.rig.sign_in("oz", "the sun was late, too", tenant="other")).access_token)
    theirs = web.directory((await web.providers.RotateScimToken(pb.RotateScimTokenRequest(), metadata=oz)).token)
    ours = web.directory(await web.scim_token())
    ann = await add(ours, "ann")
    assert (await theirs.get(f"/Users/{ann['id']}")).status_code == 404
    assert (
        await theirs.patch(f"/Users/{ann['id']}", json=patch({"op": "replace", "path": "active", "value": False}))
    ).status_code == 404
    said = {"schemas": [GROUP], "displayName": "g", "members": [{"value": ann["id"]}]}
    assert (await theirs.post("/Groups", json=said)).status_code == 400
    assert [each["userName"] for each in (await theirs.get("/Users")).json()["Resources"]] == ["oz"]
