"""The whole way: a real browser, Envoy, Api, a certified OpenID provider, and the command line that waits."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.mesh import OIAB, ROOT, Box, box
from tests.e2e.webdoor.chromium import Tab, chromium
from tests.openid_provider import CLIENT_SECRET, open_id_provider

PASSWORD = "the moon was late"


@pytest.fixture(scope="module")
def door() -> Iterator[Box]:
    """A box with a user, whose identity providers may be on this machine."""
    with box(OIAB_DEMO_MODEL="false", OIAB_SSO_PRIVATE_NETWORKS="true") as made:
        oiab(made, "user", "add", "ada", "--role", "member", OIAB_USER_PASSWORD=PASSWORD)
        yield made


def oiab(made: Box, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (*OIAB, *words), env=made.env | env, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT
    )


async def sign_in(tab: Tab, password: str = PASSWORD) -> None:
    await tab.run(
        f"document.querySelector('#handle').value = 'ada'; document.querySelector('#password').value = '{password}'"
    )
    await tab.run("document.querySelector('form button').click()")


async def test_the_terminal_is_let_in_by_a_browser(door: Box, tmp_path: Path) -> None:
    waiting = await asyncio.create_subprocess_exec(
        *OIAB, "login", env=door.env, cwd=ROOT, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
    )
    assert waiting.stderr is not None
    url, said = "", ""
    async with asyncio.timeout(60):
        while "user_code=" not in url:
            line = (await waiting.stderr.readline()).decode()
            said += line
            url = next((word for word in line.split() if word.startswith("http")), "")
    async with chromium() as tab:
        await tab.open(url)
        await sign_in(tab, "not the password")
        await tab.until("document.querySelector('[role=alert]')")
        await sign_in(tab)
        await tab.until("document.querySelector('.code-shown')")
        assert url.rpartition("=")[2] in await tab.text()
        assert "the same as yours" in await tab.text()
        await tab.picture(tmp_path / "device.png")
        await tab.press("button[value=approve]", "document.title.startsWith('Done')")
        refused = [each for each in tab.complaints if "Content Security Policy" in each]
        assert not refused
    async with asyncio.timeout(30):
        assert await waiting.wait() == 0
    assert "ada" in oiab(door, "whoami").stdout
    oiab(door, "logout")


async def test_somebody_new_signs_in_at_the_provider_and_calls_the_api_with_the_cookie(door: Box) -> None:
    async with open_id_provider(f"{door.url}/v1/auth/callback") as idp, chromium() as tab:
        await idp.put("grace", name="Grace H", preferred_username="grace", groups=["ops"])
        words = (
            "sso",
            "put",
            "acme",
            "--issuer",
            idp.url,
            "--client-id",
            "box",
            "--create-users",
            "--scope",
            "profile",
        )
        done = oiab(door, *words, OIAB_SSO_CLIENT_SECRET=CLIENT_SECRET)
        assert done.stdout.strip() == f"{door.url}/v1/auth/callback"
        assert "acme" in oiab(door, "sso", "list").stdout
        await tab.open(f"{door.url}/v1/auth/login")
        await tab.run("document.cookie = 'test_account=grace; path=/'")
        await tab.press("a.button", "document.title.startsWith('Signed in')")
        assert "Grace H" in await tab.text()
        await tab.open(f"{door.url}/v1/healthz")
        call = "fetch('/v1/sessions', {method: 'POST', body: '{}', headers: %s}).then(answer => answer.status)"
        assert await tab.run(call % "{}") == 403
        proof = "{'x-oiab-csrf': document.cookie.match(/oiab_csrf=([^;]+)/)[1]}"
        assert await tab.run(call % proof) == 200
        assert "oiab_session" not in str(await tab.run("document.cookie"))
        await tab.open(f"{door.url}/v1/auth/login")
        await tab.press("form button", "document.title.startsWith('Sign in')")
        await tab.open(f"{door.url}/v1/healthz")
        assert await tab.run("fetch('/v1/auth/me').then(answer => answer.status)") == 401
        oiab(door, "sso", "delete", "acme", "--yes")


def test_a_directory_comes_through_the_edge(door: Box) -> None:
    token = oiab(door, "sso", "scim-token").stdout.strip()
    with httpx.Client(
        base_url=f"{door.url}/scim/v2", headers={"authorization": f"Bearer {token}"}, trust_env=False
    ) as directory:
        made = directory.post(
            "/Users", json={"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": "joe"}
        )
        assert made.status_code == 201
        assert made.headers["location"].startswith(f"{door.url}/scim/v2/Users/")
        assert directory.get("/Users", params={"filter": 'userName eq "joe"'}).json()["totalResults"] == 1
        assert directory.delete(f"/Users/{made.json()['id']}").status_code == 204
        assert directory.get("/Nothing").status_code == 404


def test_nobody_but_the_edge_reaches_the_door(door: Box) -> None:
    socket = door.home / "run" / "api-web.sock"
    assert socket.exists()
    transport = httpx.HTTPTransport(uds=str(socket), verify=False)
    with httpx.Client(transport=transport) as stranger, pytest.raises(httpx.TransportError):
        stranger.get("https://api/v1/auth/login")
