"""Several terminals share one sign-in: one of them at a time renews it, and a lost answer is asked for again."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from orginabox.api.v1 import auth_service_pb2

from gateways.sdk import CredentialsFile, SharedSignIn, SignedIn, Unauthenticated
from services.identity.auth_handler import AuthHandler
from services.kit.errors import DomainError
from services.kit.status import abort, refusal_to_status
from tests.contract.identity.rig import Rig, bearer

PROGRAM = """
import asyncio, sys
from pathlib import Path
from gateways.sdk import CredentialsFile, SharedSignIn
print(asyncio.run(SharedSignIn(CredentialsFile(Path(sys.argv[1])), sys.argv[2])()))
"""


@asynccontextmanager
async def door(rig: Rig, folder: Path) -> AsyncIterator[str]:
    """The room at an address that a client of the SDK can call."""
    handler = AuthHandler(rig.room.desk, "", operator_key=False)

    async def refresh(request: auth_service_pb2.RefreshTokensRequest, context: Any) -> Any:
        try:
            return await handler.RefreshTokens(request, context)
        except DomainError as refusal:
            await abort(context, refusal_to_status(refusal))

    method = grpc.unary_unary_rpc_method_handler(
        refresh,
        request_deserializer=auth_service_pb2.RefreshTokensRequest.FromString,
        response_serializer=auth_service_pb2.RefreshTokensResponse.SerializeToString,
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("orginabox.api.v1.AuthService", {"RefreshTokens": method}),)
    )
    address = f"unix://{folder / 's.sock'}"
    server.add_insecure_port(address)
    await server.start()
    yield address
    await server.stop(0)


def kept(pair: auth_service_pb2.TokenPair, *, ends: timedelta = timedelta()) -> SignedIn:
    """A sign-in whose access token has to be renewed."""
    return SignedIn("ada", pair.access_token, datetime.now(UTC) + ends, pair.refresh_token)


async def test_an_access_token_is_used_until_it_is_about_to_end(tmp_path: Path) -> None:
    file = CredentialsFile(tmp_path / "credentials.json")
    assert await SharedSignIn(file, "nowhere")() == ""
    file.put("nowhere", SignedIn("ada", "token", datetime.now(UTC) + timedelta(minutes=1), "refresh"))
    assert await SharedSignIn(file, "nowhere")() == "token"
    file.put("nowhere", SignedIn("ada", "oiab_pat_x"))
    assert await SharedSignIn(file, "nowhere")() == "oiab_pat_x"


async def test_the_file_is_only_its_owners_and_keeps_the_other_boxes(tmp_path: Path) -> None:
    file = CredentialsFile(tmp_path / "deep" / "credentials.json")
    file.put("one", SignedIn("ada", "a"))
    file.put("two", SignedIn("bob", "b"))
    file.put("one", None)
    assert file.get("one") is None
    assert file.get("two") == SignedIn("bob", "b")
    assert file.path.stat().st_mode & 0o777 == 0o600
    for damaged in ("", "[]", '{"boxes": []}', '{"boxes": {"two": {"accessExpireTime": "never"}}}'):
        file.path.write_text(damaged)
        assert file.get("two") is None


async def test_many_terminals_at_once_use_each_refresh_token_once(rig: Rig, tmp_path: Path) -> None:
    await rig.add("ada")
    pair = await rig.sign_in("ada")
    async with door(rig, tmp_path) as address:
        file = CredentialsFile(tmp_path / "credentials.json")
        file.put(address, kept(pair))
        programs = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", PROGRAM, str(file.path), address, stdout=asyncio.subprocess.PIPE
            )
            for _ in range(4)
        ]
        said = [(await program.communicate())[0].decode().strip() for program in programs]
    assert len(set(said)) == 1
    assert said[0] != pair.access_token
    await rig.auth.GetMe(auth_service_pb2.GetMeRequest(), metadata=bearer(said[0]))


async def test_a_terminal_that_was_killed_before_the_answer_asks_for_it_again(rig: Rig, tmp_path: Path) -> None:
    await rig.add("ada")
    pair, request_id = await rig.sign_in("ada"), str(uuid4())
    async with door(rig, tmp_path) as address:
        file = CredentialsFile(tmp_path / "credentials.json")
        file.put(address, replace(kept(pair), pending=request_id))
        lost = await rig.auth.RefreshTokens(
            auth_service_pb2.RefreshTokensRequest(refresh_token=pair.refresh_token, request_id=request_id)
        )
        token = await SharedSignIn(file, address)()
        found = file.get(address)
    assert found is not None
    assert (found.refresh_token, found.pending) == (lost.tokens.refresh_token, "")
    await rig.auth.GetMe(auth_service_pb2.GetMeRequest(), metadata=bearer(token))


async def test_a_sign_in_that_has_ended_says_so(rig: Rig, tmp_path: Path) -> None:
    await rig.add("ada")
    pair = await rig.sign_in("ada")
    await rig.auth.SignOut(auth_service_pb2.SignOutRequest(), metadata=bearer(pair.access_token))
    async with door(rig, tmp_path) as address:
        file = CredentialsFile(tmp_path / "credentials.json")
        file.put(address, kept(pair))
        with pytest.raises(Unauthenticated) as refused:
            await SharedSignIn(file, address)()
    assert refused.value.reason == "TOKEN_REVOKED"
