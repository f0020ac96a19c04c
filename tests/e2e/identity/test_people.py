"""People through the edge: REST with cookies of nobody, gRPC, and the command line, on a whole box."""

import json
import stat
import subprocess
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from orginabox.api.v1 import auth_service_pb2, auth_service_pb2_grpc

from tests.e2e.mesh import OIAB, ROOT, Box, box, until

PASSWORD = "the moon was late"


@pytest.fixture(scope="module")
def people() -> Iterator[Box]:
    """A box with a user."""
    with box(OIAB_DEMO_MODEL="false") as made:
        oiab(made, "user", "add", "ada", "--role", "member", OIAB_USER_PASSWORD=PASSWORD)
        yield made


def oiab(made: Box, *words: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return subprocess.run(
        (*OIAB, *words), env=made.env | env, capture_output=True, text=True, check=check, timeout=60, cwd=ROOT
    )


def http(made: Box, token: str = "", **headers: str) -> httpx.Client:
    """A REST client with a token, or without."""
    told = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(base_url=made.url, headers=told | headers, timeout=30, trust_env=False)


def sign_in(made: Box) -> dict[str, str]:
    with http(made) as client:
        answer = client.post("/v1/auth/sign-in", json={"handle": "ada", "password": PASSWORD})
        tokens: dict[str, str] = answer.raise_for_status().json()["tokens"]
        return tokens


def reason(answer: httpx.Response) -> str:
    return str(answer.json()["details"][0]["reason"]).removeprefix("ERROR_REASON_")


def test_a_user_signs_in_by_rest_and_is_known_by_grpc(people: Box) -> None:
    tokens = sign_in(people)
    with http(people, tokens["accessToken"]) as client:
        assert client.get("/v1/auth/me").raise_for_status().json()["user"]["handle"] == "ada"
        assert client.post("/v1/sessions", json={}).raise_for_status().json()["sessionId"]
        refused = client.get("/v1/admin/users")
        assert (refused.status_code, reason(refused)) == (403, "PERMISSION_DENIED")
    with grpc.insecure_channel(f"127.0.0.1:{people.port}") as channel:
        stub: Any = auth_service_pb2_grpc.AuthServiceStub(channel)  # type: ignore[arg-type]  # it takes either kind
        metadata = (("authorization", f"Bearer {tokens['accessToken']}"),)
        assert stub.GetMe(auth_service_pb2.GetMeRequest(), metadata=metadata).user.handle == "ada"
        renewed = stub.RefreshTokens(auth_service_pb2.RefreshTokensRequest(refresh_token=tokens["refreshToken"]))
        with pytest.raises(grpc.RpcError):
            stub.RefreshTokens(auth_service_pb2.RefreshTokensRequest(refresh_token=tokens["refreshToken"]))
    for token in (tokens["accessToken"], renewed.tokens.access_token):
        with http(people, token) as client:
            refused = client.get("/v1/auth/me")
            assert (refused.status_code, reason(refused)) == (401, "TOKEN_REVOKED")


def test_the_address_of_a_client_is_envoys_word_and_not_the_clients(people: Box) -> None:
    for headers in ({"x-forwarded-for": "203.0.113.9"}, {"x-forwarded-for": "203.0.113.9, 198.51.100.1"}):
        with http(people, people.key, **headers) as client:
            client.get("/v1/auth/me").raise_for_status()
    tokens = sign_in(people)
    with http(people, tokens["accessToken"], **{"x-forwarded-for": "203.0.113.9"}) as client:
        (found,) = [each for each in client.get("/v1/auth/sign-ins").json()["signIns"] if each["current"]]
    assert found["ipAddress"] == "127.0.0.1"


@pytest.mark.parametrize("forged", ["", "x", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "oiab_pat_1", "null"])
def test_a_forged_token_is_told_nothing(people: Box, forged: str) -> None:
    with http(people, forged) as client:
        for path in ("/v1/auth/me", "/v1/sessions", "/v1/admin/users", "/v1/box/tenants"):
            answer = client.get(path)
            assert answer.status_code == 401
            assert set(answer.json()) == {"code", "message", "details"}


def test_signing_out_by_rest_counts_at_once(people: Box) -> None:
    tokens = sign_in(people)
    with http(people, tokens["accessToken"]) as client:
        assert client.post("/v1/auth/logout", json={}).raise_for_status().json()["signIns"] == 1
        assert reason(client.get("/v1/auth/me")) == "TOKEN_REVOKED"


def test_a_sign_in_outlives_a_killed_api(people: Box) -> None:
    tokens = sign_in(people)
    people.kill("api")
    with http(people, tokens["accessToken"]) as client:
        until(lambda: client.get("/v1/auth/me").status_code != 503, 30)
        assert client.get("/v1/auth/me").raise_for_status().json()["user"]["handle"] == "ada"


def test_the_terminal_signs_in_and_forgets(people: Box) -> None:
    assert "operator" in oiab(people, "whoami").stdout
    assert "ada" in oiab(people, "login", "--password", "-u", "ada", OIAB_PASSWORD=PASSWORD).stderr
    file = people.home / "credentials.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    me = json.loads(oiab(people, "whoami", "--json").stdout)
    assert me["user"]["handle"] == "ada"
    assert "(this one)" in oiab(people, "whoami", "--sign-ins").stdout
    refused = oiab(people, "user", "list", check=False)
    assert refused.returncode == 1
    assert "admin.manage_users" in refused.stderr
    assert "operator" in oiab(people, "whoami", ORGINABOX_API_KEY=people.key).stdout
    expired = json.loads(file.read_text())
    expired["boxes"][people.url]["accessExpireTime"] = "2020-01-01T00:00:00+00:00"
    before = expired["boxes"][people.url]["refreshToken"]
    file.write_text(json.dumps(expired))
    assert "ada" in oiab(people, "whoami").stdout
    assert json.loads(file.read_text())["boxes"][people.url]["refreshToken"] != before
    assert "Signed out" in oiab(people, "logout").stderr
    assert "operator" in oiab(people, "whoami").stdout


def test_the_terminal_says_when_a_sign_in_holds_no_more(people: Box) -> None:
    oiab(people, "login", "--password", "-u", "ada", OIAB_PASSWORD=PASSWORD)
    with http(people, people.key) as client:
        client.post("/v1/admin/users/ada:revokeSignIns", json={}).raise_for_status()
    refused = oiab(people, "whoami", check=False)
    assert (refused.returncode, "oiab login" in refused.stderr) == (4, True)
    oiab(people, "logout")


def test_a_program_uses_an_api_token(people: Box) -> None:
    oiab(people, "login", "--password", "-u", "ada", OIAB_PASSWORD=PASSWORD)
    made = oiab(people, "token", "create", "ci", "-s", "agents.read")
    token = made.stdout.strip()
    oiab(people, "logout")
    with http(people, token) as client:
        assert client.get("/v1/sessions").raise_for_status()
        assert reason(client.post("/v1/sessions", json={})) == "PERMISSION_DENIED"
    oiab(people, "login", "--token", OIAB_TOKEN=token)
    assert "agents.read" in oiab(people, "whoami").stdout
    listed = oiab(people, "token", "list").stdout.split("\t")
    assert listed[1:3] == ["ci", token[:21]]
    oiab(people, "token", "revoke", listed[0])
    assert oiab(people, "whoami", check=False).returncode == 4
    oiab(people, "logout")


def test_who_manages_people_does_it_from_the_terminal(people: Box) -> None:
    assert "no roles" in oiab(people, "role", "unassign", "ada", "member").stderr
    oiab(people, "role", "create", "research", "--allow", "agents.run", "--tool", "*", "--deny-tool", "bash")
    assert "denied tools   bash" in oiab(people, "role", "show", "research").stdout
    oiab(people, "role", "update", "research", "--allow", "agents.read", "--monthly-limit", "5")
    assert "$5" in oiab(people, "role", "show", "research").stdout
    oiab(people, "role", "assign", "ada", "research")
    assert oiab(people, "user", "roles", "ada").stdout.split() == ["research"]
    oiab(people, "user", "suspend", "ada")
    assert "suspended" in oiab(people, "user", "show", "ada").stdout
    refused = oiab(people, "login", "--password", "-u", "ada", OIAB_PASSWORD=PASSWORD, check=False)
    assert "ask an administrator" in refused.stderr
    oiab(people, "user", "activate", "ada")
    oiab(people, "user", "password", "ada", OIAB_USER_PASSWORD="another long one")
    assert oiab(people, "login", "--password", "-u", "ada", OIAB_PASSWORD=PASSWORD, check=False).returncode == 4
    oiab(people, "user", "password", "ada", OIAB_USER_PASSWORD=PASSWORD)
    oiab(people, "role", "delete", "research", "--yes")
    oiab(people, "role", "assign", "ada", "member")
    oiab(people, "tenant", "set", "--default-role", "viewer", "--group", "it=admin")
    assert "it has the role admin" in oiab(people, "tenant", "show").stdout
    oiab(people, "tenant", "create", "acme", "--owner", "eve", OIAB_USER_PASSWORD=PASSWORD)
    assert [line.split("\t")[0] for line in oiab(people, "tenant", "list").stdout.splitlines()] == ["acme", "default"]


def test_what_people_do_is_on_record(people: Box) -> None:
    sign_in(people)
    said = oiab(people, "audit", "--action", "auth.*").stdout
    assert "auth.login" in said


def test_help_teaches(people: Box) -> None:
    for words in (("login",), ("user",), ("role",), ("token",), ("tenant",), ("role", "create")):
        told = oiab(people, *words, "--help")
        assert told.returncode == 0
        assert "oiab" in told.stdout
