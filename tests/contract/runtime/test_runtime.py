"""Runtime as the other services see it."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import grpc
import psycopg
import pytest
import structlog
from orginabox.runtime.v1 import provider_pb2 as provider
from orginabox.runtime.v1 import runtime_service_pb2 as pb

from services.kit.keyring.file_master import FileMaster
from services.kit.status import reason_of
from tests.contract.runtime.rig import TENANT, Runtime, runtime

KEY = "sk-a-key-that-nobody-may-see"


@pytest.fixture
def url(database: Callable[..., str]) -> str:
    return database("runtime")


@pytest.fixture
async def rt(url: str, tmp_path: Path) -> AsyncIterator[Runtime]:
    async with runtime(url, tmp_path) as running:
        yield running


def local(provider_id: str = "vllm", **values: object) -> provider.Provider:
    """A provider that needs no key."""
    return provider.Provider(
        provider_id=provider_id,
        kind=provider.PROVIDER_KIND_OPENAI_COMPATIBLE,
        **{"base_url": "http://vllm:8000/v1", "models": ["m"]} | values,  # type: ignore[arg-type]
    )


def claude(**values: object) -> provider.Provider:
    """A provider that needs only a key."""
    return provider.Provider(
        provider_id="anthropic",
        kind=provider.PROVIDER_KIND_ANTHROPIC,
        **values,  # type: ignore[arg-type]
    )


async def refused(call: Awaitable[object]) -> str:
    """The reason of a refusal."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return reason_of(error.value)


async def test_a_fresh_box_runs_on_the_demo_model(rt: Runtime, tmp_path: Path) -> None:
    status = (await rt.status()).status
    assert status.demo
    assert status.in_sync
    assert status.applied_revision == status.staged_revision
    assert status.HasField("apply_time")
    assert (status.default_model.provider_id, status.default_model.model_id) == ("demo", "smollm2-135m")
    assert [model.provider_id for model in status.models] == ["demo"]
    assert json.loads((tmp_path / "runtime/applied/runtime.json").read_text())["revision"] == status.applied_revision
    (demo,) = await rt.providers()
    assert demo.built_in
    assert demo.preferred
    assert demo.kind == provider.PROVIDER_KIND_DEMO
    assert "demo-model.sock" in (tmp_path / "envoy/clusters.yaml").read_text()


async def test_a_change_is_staged_and_an_apply_promotes_it(rt: Runtime, tmp_path: Path) -> None:
    before = (await rt.status()).status
    await rt.create(claude(), key=KEY)

    staged = (await rt.status()).status
    assert not staged.in_sync
    assert staged.applied_revision == before.applied_revision
    assert staged.demo
    assert (tmp_path / "runtime/staged").resolve().name == staged.staged_revision
    assert (tmp_path / "runtime/applied").resolve().name == staged.applied_revision
    assert "anthropic" not in (tmp_path / "envoy/clusters.yaml").read_text()

    answer = await rt.apply()
    assert answer.changed
    assert answer.status.in_sync
    assert not answer.status.demo
    assert answer.status.default_model.model_id == "claude-sonnet-4-5"
    assert [(model.provider_id, model.model_id) for model in answer.status.models] == [
        ("anthropic", "claude-sonnet-4-5"),
        ("anthropic", "claude-opus-4-7"),
        ("demo", "smollm2-135m"),
    ]
    assert (tmp_path / "runtime/applied").resolve().name == staged.staged_revision
    assert "api.anthropic.com" in (tmp_path / "envoy/clusters.yaml").read_text()

    again = await rt.apply()
    assert not again.changed
    assert again.status == answer.status


async def test_taking_a_change_back_is_in_sync_again(rt: Runtime) -> None:
    before = (await rt.status()).status
    await rt.create(local())
    await rt.delete("vllm")
    assert (await rt.status()).status == before


async def test_exactly_one_provider_is_preferred(rt: Runtime) -> None:
    assert await rt.preferred() == ["demo"]
    await rt.create(local("first"))
    assert await rt.preferred() == ["first"]
    await rt.create(local("second"))
    assert await rt.preferred() == ["first"]
    await rt.create(local("third", preferred=True))
    assert await rt.preferred() == ["third"]
    await rt.update(local("second", preferred=True), "preferred")
    assert await rt.preferred() == ["second"]
    await rt.delete("second")
    assert await rt.preferred() == ["first"], "the oldest of those that are left"
    await rt.update(local("first"), "preferred")
    assert await rt.preferred() == ["demo"], "who takes the preference away gets the demo model"
    await rt.delete("first")
    await rt.delete("third")
    assert await rt.preferred() == ["demo"]


async def test_a_repeated_request_answers_with_what_the_first_made(rt: Runtime) -> None:
    request = str(uuid4())
    first = await rt.create(claude(), key=KEY, request_id=request)
    assert await rt.create(claude(), key=KEY, request_id=request) == first

    assert await refused(rt.create(claude(), key="sk-another", request_id=request)) == "REQUEST_ID_REUSED"
    assert await refused(rt.create(local(), request_id=request)) == "REQUEST_ID_REUSED"
    assert await refused(rt.create(claude(), key=KEY, request_id=str(uuid4()))) == "PROVIDER_EXISTS"
    assert len(await rt.providers()) == 2


async def test_requests_at_the_same_time_make_one_provider(rt: Runtime) -> None:
    request = str(uuid4())
    answers = await asyncio.gather(*(rt.create(local(), request_id=request) for _ in range(10)))
    assert len({answer.SerializeToString(deterministic=True) for answer in answers}) == 1

    found = await asyncio.gather(*(rt.create(local(f"p{number}")) for number in range(10)))
    assert len(found) == 10
    assert await rt.preferred() == ["vllm"]
    assert len((await rt.apply()).status.models) == 12


async def test_an_update_changes_what_the_mask_names(rt: Runtime) -> None:
    await rt.create(local(models=["a", "b"], default_model="b"), key=KEY)

    masked = await rt.update(local(base_url="http://other:1/v1", models=["c"]), "base_url")
    assert (masked.base_url, list(masked.models)) == ("http://other:1/v1", ["a", "b"])
    unmasked = await rt.update(provider.Provider(provider_id="vllm", models=["b", "c"]))
    assert (unmasked.base_url, list(unmasked.models), unmasked.default_model) == ("http://other:1/v1", ["b", "c"], "b")
    assert unmasked.has_api_key
    assert unmasked.preferred
    assert unmasked.create_time == masked.create_time
    assert unmasked.update_time.ToNanoseconds() > masked.update_time.ToNanoseconds()


async def test_another_key_alone_is_something_to_apply(rt: Runtime) -> None:
    await rt.create(claude(), key=KEY)
    await rt.apply()
    await rt.update(provider.Provider(provider_id="anthropic"), key="sk-new")
    assert not (await rt.status()).status.in_sync
    assert (await rt.apply()).changed


async def test_refusals(rt: Runtime) -> None:
    await rt.create(local())
    assert await refused(rt.update(local("none"), "models")) == "PROVIDER_NOT_FOUND"
    assert await refused(rt.delete("none")) == "PROVIDER_NOT_FOUND"
    assert await refused(rt.update(local("demo"), "models")) == "PROVIDER_BUILT_IN"
    assert await refused(rt.delete("demo")) == "PROVIDER_BUILT_IN"
    assert await refused(rt.create(local("demo"))) == "PROVIDER_EXISTS"
    assert await refused(rt.create(local("vllm"))) == "PROVIDER_EXISTS"
    assert await refused(rt.create(local("a", base_url="http://169.254.169.254"))) == "PROVIDER_ADDRESS_REFUSED"
    assert await refused(rt.update(local(base_url="file:///x"), "base_url")) == "PROVIDER_ADDRESS_REFUSED"
    assert await refused(rt.create(provider.Provider(provider_id="a"))) == "INVALID_ARGUMENT"
    assert await refused(rt.create(local("Not A Name"))) == "INVALID_ARGUMENT"
    assert await refused(rt.create(claude())) == "INVALID_ARGUMENT"
    assert await refused(rt.update(local(), "kind")) == "INVALID_ARGUMENT"
    assert await refused(rt.update(local(models=[]), "models")) == "INVALID_ARGUMENT"
    assert await refused(rt.create(local("a"), tenant="no")) == "INVALID_ARGUMENT"
    assert [found.provider_id for found in await rt.providers()] == ["demo", "vllm"]


async def test_pages_go_on_where_they_ended(rt: Runtime) -> None:
    for name in ("echo", "alpha", "zulu"):
        await rt.create(local(name))
    seen, token = [], ""
    while True:
        page = await rt.stub.ListProviders(pb.ListProvidersRequest(tenant_id=TENANT, page_size=1, page_token=token))
        seen += [found.provider_id for found in page.providers]
        token = page.next_page_token
        if not token:
            break
    assert seen == ["alpha", "demo", "echo", "zulu"]

    other = pb.ListProvidersRequest(tenant_id=str(uuid4()), page_token="eyJ4IjoxfQ")
    assert await refused(rt.stub.ListProviders(other)) == "PAGE_TOKEN_INVALID"


async def test_tenants_do_not_see_each_other(rt: Runtime) -> None:
    other = str(uuid4())
    await rt.create(local())
    await rt.create(local(), tenant=other)
    await rt.create(local("theirs"), tenant=other)
    await rt.apply(other)

    assert [found.provider_id for found in await rt.providers()] == ["demo", "vllm"]
    assert not (await rt.status()).status.in_sync
    ours, theirs = await rt.token(), await rt.token(tenant=other)
    assert (await rt.check("/theirs/models", "GET", authorization=f"Bearer {ours}")).denied_response.status.code == 404
    assert (await rt.check("/theirs/models", "GET", authorization=f"Bearer {theirs}")).HasField("ok_response")


async def test_a_key_is_nowhere_to_be_seen(rt: Runtime, url: str, tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        await rt.create(claude(), key=KEY)
        await rt.apply()
        await refused(rt.create(claude(), key=KEY))
        token = await rt.token()
        answer = await rt.check("/anthropic/messages", x_api_key=token)
        await rt.check("/anthropic/messages", x_api_key=token + "x")
        told = str(await rt.providers()) + str(await rt.status())
    assert KEY in str(answer), "the door is the one place"
    assert KEY not in str(logs) + told
    assert token not in str(logs)
    with psycopg.connect(url) as connection:
        for table in ("provider", "applied_provider", "model_token"):
            rows = str(connection.execute(f"SELECT * FROM runtime.{table}".encode()).fetchall())
            assert KEY not in rows
            assert token not in rows
    written = _all_files(tmp_path)
    assert "api.anthropic.com" in written
    assert KEY not in written
    assert token not in written


async def test_with_another_master_key_nothing_is_applied_and_no_call_goes_out(url: str, tmp_path: Path) -> None:
    async with runtime(url, tmp_path) as rt:
        await rt.create(claude(), key=KEY)
        await rt.apply()
        token = await rt.token()
    master = FileMaster.open(tmp_path / "secrets/keyring")
    (tmp_path / "secrets/keyring").unlink()

    async with runtime(url, tmp_path, keyring_lost=f"file:{master.fingerprint}") as rt:
        answer = await rt.check("/anthropic/messages", x_api_key=token)
        assert answer.denied_response.status.code == 401
        assert "cannot be read" in answer.denied_response.body
        await rt.create(local())
        assert await refused(rt.apply()) == "KEYRING_MISMATCH"
        assert (await rt.check("/demo/models", "GET", authorization=f"Bearer {token}")).HasField("ok_response")

        await rt.update(provider.Provider(provider_id="anthropic"), key=KEY)
        await rt.apply()
        assert (await rt.check("/anthropic/messages", x_api_key=token)).HasField("ok_response")


async def test_files_that_are_lost_come_back_at_the_start(url: str, tmp_path: Path) -> None:
    async with runtime(url, tmp_path) as rt:
        await rt.create(claude(), key=KEY)
        before = (await rt.apply()).status
        await rt.create(local())
        token = await rt.token()
    shutil.rmtree(tmp_path / "runtime")
    (tmp_path / "envoy/clusters.yaml").unlink()

    async with runtime(url, tmp_path) as rt:
        status = (await rt.status()).status
        assert status.applied_revision == before.applied_revision
        assert (tmp_path / "runtime/applied").resolve().name == before.applied_revision
        assert (tmp_path / "runtime/staged").resolve().name == status.staged_revision
        assert "api.anthropic.com" in (tmp_path / "envoy/clusters.yaml").read_text()
        assert (await rt.check("/anthropic/messages", x_api_key=token)).HasField("ok_response")


async def test_a_change_whose_bundle_cannot_be_written_is_no_change(
    rt: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("services.runtime.folders._write_files", _full_disk)
        assert await refused(rt.create(local())) == "INTERNAL"
    assert [found.provider_id for found in await rt.providers()] == ["demo"]
    assert (await rt.status()).status.in_sync
    await rt.create(local())


def _all_files(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.rglob("*") if path.is_file())


def _full_disk(folder: Path, files: object) -> None:
    raise OSError("no space left on device")


async def test_the_door_says_what_leaves(rt: Runtime) -> None:
    await rt.create(claude(), key=KEY)
    await rt.apply()
    answer = await rt.check("/anthropic/messages?beta=true", x_api_key=await rt.token(), x_session_id="ses_1")

    put = {option.header.key: option.header.value for option in answer.ok_response.headers}
    assert put.pop("x-oiab-cluster").startswith(f"provider-{TENANT}-anthropic-")
    assert put == {":path": "/v1/messages?beta=true", "x-api-key": KEY}
    removed = set(answer.ok_response.headers_to_remove)
    assert {"authorization", "api-key", "cookie", "openai-organization", "x-session-id"} <= removed
    assert not removed & set(put)


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": ""}, {"authorization": "Basic abc"}, {"authorization": "Bearer "}, {"x_api_key": "no"}],
)
async def test_the_door_stays_shut_without_a_token(rt: Runtime, headers: dict[str, str]) -> None:
    answer = await rt.check("/demo/chat/completions", **headers)
    assert answer.denied_response.status.code == 401
    assert json.loads(answer.denied_response.body)["error"]["type"] == "authentication_error"
    assert answer.status.code != 0


async def test_a_new_token_ends_the_one_before(rt: Runtime) -> None:
    sandbox = str(uuid4())
    old = await rt.token(sandbox)
    other = await rt.token()
    assert (await rt.check("/demo/models", "GET", authorization=f"Bearer {old}")).HasField("ok_response")
    new = await rt.token(sandbox)

    assert (await rt.check("/demo/models", "GET", authorization=f"Bearer {old}")).HasField("denied_response")
    assert (await rt.check("/demo/models", "GET", authorization=f"bearer {new}")).HasField("ok_response")
    assert (await rt.check("/demo/models", "GET", authorization=f"Bearer {other}")).HasField("ok_response")


async def test_a_restart_applies_nothing_that_waits(url: str, tmp_path: Path) -> None:
    other = str(uuid4())
    async with runtime(url, tmp_path) as rt:
        await rt.create(local())
        await rt.create(local(), tenant=other)

    async with runtime(url, tmp_path) as rt:
        for tenant in (TENANT, other):
            status = (await rt.status(tenant)).status
            assert status.demo
            assert not status.in_sync
        assert (tmp_path / "runtime/tenants" / other / "applied/runtime.json").exists()
