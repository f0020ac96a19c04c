"""Whatever is sent to the door, it answers in its own words and with no fault."""

import json
import random
from typing import Any

import httpx

from tests.contract.webdoor.rig import BOX, LOGIN, Web

COUNT = 400
LEAVES: list[Any] = [
    *(None, True, False, 0, -1, 1e308, 2**70, "", "x", "True", "ada", "a@b", "\u0000", "\ud800", "é" * 300, "members"),
    *("00000000-0000-7000-8000-000000000002", "urn:ietf:params:scim:schemas:core:2.0:User", "%s'\"--;", "x" * 5000),
]
NAMES = [
    *("schemas", "userName", "displayName", "emails", "active", "externalId", "members", "name", "value", "type", "id"),
    *("meta", "Operations", "op", "path", "primary", "$ref", "groups", "password", "x", "", "USERNAME"),
]
PATHS = [
    *("active", "members", 'members[value eq "x"]', 'emails[type eq "work"].value', "name.formatted", "userName", "id"),
    *(
        "meta.location",
        "members[",
        "a.b.c.d",
        "",
        "urn:x:y",
        'members[value eq "x" or not (value pr)]',
        "emails.value",
        "x[]",
    ),
]
FILTERS = [
    *(
        'userName eq "x"',
        'userName eq "\u0000"',
        "userName eq 5",
        "userName eq",
        "(((",
        'a eq "b" and ' * 200 + 'a eq "b"',
    ),
    *(
        'not (userName eq "x")',
        'emails[value eq "x"]',
        'emails[type eq "work" and value eq "x"]',
        "userName pr",
        "\\",
        "é",
    ),
    *(
        'id eq "x"',
        "externalId eq null",
        "userName eq true",
        "(" * 3000,
        'meta.created gt "2020"',
        'userName eq "x" or',
    ),
]


def anything(dice: random.Random, depth: int = 0) -> Any:
    kind = dice.random()
    if depth > 3 or kind < 0.4:
        return dice.choice(LEAVES)
    if kind < 0.6:
        return [anything(dice, depth + 1) for _ in range(dice.randrange(4))]
    return {dice.choice(NAMES): anything(dice, depth + 1) for _ in range(dice.randrange(6))}


def operation(dice: random.Random) -> dict[str, Any]:
    found = {"op": dice.choice(["add", "Replace", "remove", "x", None])}
    if dice.random() < 0.8:
        found["path"] = dice.choice(PATHS)
    if dice.random() < 0.8:
        found["value"] = anything(dice)
    return found


async def test_a_directory_that_talks_nonsense_is_refused_in_words(web: Web) -> None:
    dice = random.Random(4)
    directory = web.directory(await web.scim_token())
    user = (await directory.post("/Users", json={"schemas": [LEAVES[17]], "userName": "ada"})).json()["id"]
    statuses = set()
    group = (await directory.post("/Groups", json={"displayName": "ops"})).json()["id"]
    for number in range(COUNT):
        body = anything(dice)
        if dice.random() < 0.5:
            body = {"schemas": [LEAVES[17]], "userName": f"u{number}", dice.choice(NAMES): dice.choice(LEAVES)}
        patch = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [operation(dice)]}
        method, path, sent = dice.choice(
            [
                ("POST", "/Users", body),
                ("PUT", f"/Users/{user}", body),
                ("PATCH", f"/Users/{user}", patch),
                ("POST", "/Groups", body),
                ("PUT", f"/Groups/{group}", body),
                ("PATCH", f"/Groups/{group}", patch),
                ("POST", "/.search", body),
            ]
        )
        answer = await directory.request(method, path, content=json.dumps(sent))
        refuse_fault(answer, (method, path, sent))
        statuses.add((method, answer.status_code))
        asked = {
            "filter": dice.choice(FILTERS),
            "count": str(dice.choice([-1, 0, 10**30, "x", ""])),
            "startIndex": str(dice.choice([-5, 0, 2**63, "x"])),
            "attributes": str(dice.choice(NAMES)),
        }
        kept = {name: asked[name] for name in dice.sample(sorted(asked), 2)}
        refuse_fault(await directory.get(dice.choice(["/Users", "/Groups", f"/Users/{user}"]), params=kept), kept)

    assert {("POST", 201), ("POST", 400), ("PUT", 200), ("PATCH", 200), ("PATCH", 400)} <= statuses


async def test_a_browser_that_talks_nonsense_is_refused_in_words(web: Web) -> None:
    dice = random.Random(4)
    browser = web.browser()
    browser.follow_redirects = False
    texts = [str(leaf)[:2000] for leaf in LEAVES if leaf != "\ud800"]
    for _ in range(COUNT):
        query = {
            name: dice.choice(texts)
            for name in dice.sample(["provider", "tenant", "redirect", "state", "code", "user_code"], 3)
        }
        url = dice.choice([LOGIN, f"{BOX}/v1/auth/callback", f"{BOX}/v1/auth/device/page"])
        refuse_fault(await browser.get(url, params=query), query)
        form = {
            name: dice.choice(texts)
            for name in ("form", "handle", "password", "csrf", "user_code", "decision", "tenant")
        }
        where = dice.choice([LOGIN, f"{LOGIN}/out", f"{BOX}/v1/auth/device/page"])
        kind = dice.choice(
            ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json", ""]
        )
        refuse_fault(
            await browser.post(where, content=httpx.QueryParams(form).__str__(), headers={"content-type": kind}), form
        )


def refuse_fault(answer: httpx.Response, sent: object) -> None:
    assert answer.status_code < 500, f"{str(sent)[:600]}: {answer.text[:300]}"
    assert "Traceback" not in answer.text
    assert "psycopg" not in answer.text
