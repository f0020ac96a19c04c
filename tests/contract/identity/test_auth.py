"""Signing in, staying in, and getting out."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import jwt
import psycopg
import pytest
from orginabox.api.v1 import auth_service_pb2 as pb
from orginabox.api.v1 import user_pb2, user_service_pb2

from services.identity import device_operations
from services.kit.caller import Caller
from services.kit.ids import DEFAULT_TENANT, OPERATOR
from services.kit.keyring import INSTALLATION
from services.kit.keyring.file_master import FileMaster
from tests.contract.identity.rig import ELSEWHERE, HERE, PASSWORD, Rig, bearer, linked, refused, running, until

ME = pb.GetMeRequest()


async def refresh(rig: Rig, token: str, request_id: str = "") -> pb.TokenPair:
    return (await rig.auth.RefreshTokens(pb.RefreshTokensRequest(refresh_token=token, request_id=request_id))).tokens


async def test_a_user_signs_in_and_is_known(rig: Rig) -> None:
    user_id = await rig.add("ada", "member")
    answer = await rig.auth.SignIn(
        pb.SignInRequest(handle=" Ada ", password=PASSWORD, device="desk"), metadata=(("x-forwarded-for", HERE),)
    )
    assert answer.user.user_id == user_id
    assert list(answer.user.roles) == ["member"]
    claims = jwt.decode(answer.tokens.access_token, options={"verify_signature": False})
    assert set(claims) == {"sub", "tid", "sid", "roles", "iat", "exp", "jti"}
    assert claims["exp"] - claims["iat"] == 900
    life = answer.tokens.refresh_expire_time.ToDatetime(UTC) - datetime.now(UTC)
    assert timedelta(days=6, hours=23) < life <= timedelta(days=7)
    found = await rig.auth.GetMe(ME, metadata=bearer(answer.tokens.access_token))
    assert (found.user.handle, found.tenant_id, found.tenant_name) == ("ada", str(DEFAULT_TENANT), "Default")
    assert found.user.HasField("sign_in_time")
    record = await rig.audits.until("auth.login")
    assert (record.user_id, record.actor, record.ip_address) == (user_id, f"user:{user_id}", HERE)


async def test_a_user_signs_in_by_mail_unless_two_have_the_address(rig: Rig) -> None:
    await rig.users.CreateUser(
        user_service_pb2.CreateUserRequest(handle="ada", email="Ada@Example.com", password=PASSWORD),
        metadata=rig.operator,
    )
    assert (await rig.sign_in("ada@example.com")).access_token
    await rig.users.CreateUser(
        user_service_pb2.CreateUserRequest(handle="bob", email="ada@example.com"), metadata=rig.operator
    )
    with refused("CREDENTIALS_REFUSED"):
        await rig.sign_in("ada@example.com")


async def test_which_of_handle_and_password_was_wrong_is_not_told(rig: Rig) -> None:
    await rig.add("ada")
    await rig.users.CreateUser(user_service_pb2.CreateUserRequest(handle="bob"), metadata=rig.operator)
    for handle, password, tenant in (
        ("ada", "wrong", ""),
        ("eve", PASSWORD, ""),
        ("bob", PASSWORD, ""),
        ("operator", PASSWORD, ""),
        ("ada", PASSWORD, "no-such-tenant"),
    ):
        with refused("CREDENTIALS_REFUSED"):
            await rig.sign_in(handle, password, tenant=tenant)
    record = await rig.audits.until("auth.login_failed")
    assert record.ip_address == HERE


async def test_guessing_is_slowed_and_the_user_is_not_kept_out(rig: Rig) -> None:
    await rig.add("ada")
    await rig.sign_in("ada", address=HERE)
    for _ in range(5):
        with refused("CREDENTIALS_REFUSED"):
            await rig.sign_in("ada", "wrong", address=ELSEWHERE)
    with refused("TOO_MANY_ATTEMPTS"):
        await rig.sign_in("ada", address=ELSEWHERE)  # not even with the right password
    assert (await rig.sign_in("ada", address=HERE)).access_token
    await asyncio.sleep(1.1)
    assert (await rig.sign_in("ada", address=ELSEWHERE)).access_token
    for _ in range(4):
        with refused("CREDENTIALS_REFUSED"):  # a right one has cleared the count
            await rig.sign_in("ada", "wrong", address=ELSEWHERE)


async def test_many_guesses_at_once_gain_nothing(rig: Rig) -> None:
    await rig.add("ada")
    guesses = [rig.sign_in("ada", f"wrong {number}", address=ELSEWHERE) for number in range(30)]
    answers = await asyncio.gather(*guesses, return_exceptions=True)
    looked_at = [answer for answer in answers if "wrong" in str(answer) and "too many" not in str(answer)]
    assert len(looked_at) <= 6


async def test_strangers_from_many_addresses_do_not_keep_a_user_out(rig: Rig, database: Callable[..., str]) -> None:
    await rig.add("ada")
    await rig.sign_in("ada", address=HERE)
    slowed = False
    for number in range(25):
        try:
            await rig.sign_in("ada", "wrong", address=f"203.0.113.{number}")
        except Exception as error:  # noqa: BLE001 - which refusal it is, is the point
            slowed = slowed or "too many" in str(error)
    assert slowed
    assert (await rig.sign_in("ada", address=HERE)).access_token


async def test_a_refresh_gives_a_new_pair_and_reads_the_roles_anew(rig: Rig) -> None:
    await rig.add("ada", "viewer")
    first = await rig.sign_in("ada")
    await rig.users.AssignRole(
        user_service_pb2.AssignRoleRequest(user_id="ada", role_id="member"), metadata=rig.operator
    )
    second = await refresh(rig, first.refresh_token)
    assert second.refresh_token != first.refresh_token
    claims = jwt.decode(second.access_token, options={"verify_signature": False})
    assert claims["roles"] == ["member", "viewer"]
    assert "agents.run" in await rig.may(bearer(second.access_token))


async def test_a_second_use_ends_the_sign_in_for_both(rig: Rig) -> None:
    await rig.add("ada")
    first, other = await rig.sign_in("ada"), await rig.sign_in("ada")
    second = await refresh(rig, first.refresh_token)
    with refused("TOKEN_REUSED"):
        await refresh(rig, first.refresh_token)
    with refused("TOKEN_REVOKED"):
        await refresh(rig, second.refresh_token)
    for pair in (first, second):
        with refused("TOKEN_REVOKED"):
            await rig.auth.GetMe(ME, metadata=bearer(pair.access_token))
    assert await rig.auth.GetMe(ME, metadata=bearer(other.access_token))
    assert (await rig.audits.until("auth.token_reuse")).target.startswith("sign_in:")


async def test_of_two_who_come_at_once_one_is_first_and_the_other_ends_the_sign_in(rig: Rig) -> None:
    await rig.add("ada")
    pair = await rig.sign_in("ada")
    uses = (refresh(rig, pair.refresh_token, str(uuid4())) for _ in range(8))
    answers = await asyncio.gather(*uses, return_exceptions=True)
    won = [answer for answer in answers if isinstance(answer, pb.TokenPair)]
    assert len(won) == 1
    with refused("TOKEN_REVOKED"):
        await refresh(rig, won[0].refresh_token)
    with refused("TOKEN_REVOKED"):
        await rig.auth.GetMe(ME, metadata=bearer(won[0].access_token))


async def test_a_lost_answer_is_given_again(rig: Rig) -> None:
    await rig.add("ada")
    pair, request_id = await rig.sign_in("ada"), str(uuid4())
    repeats = (refresh(rig, pair.refresh_token, request_id) for _ in range(8))
    answers = await asyncio.gather(*repeats)
    assert len({answer.refresh_token for answer in answers}) == 1
    following = await refresh(rig, answers[0].refresh_token)
    with refused("TOKEN_REUSED"):
        await refresh(rig, pair.refresh_token, request_id)  # by now the answer has arrived
    with refused("TOKEN_REVOKED"):
        await refresh(rig, following.refresh_token)


async def test_a_revocation_beats_a_refresh_that_runs_with_it(rig: Rig) -> None:
    await rig.add("ada")
    for _ in range(10):
        pair = await rig.sign_in("ada")
        who = bearer(pair.access_token)
        answers = await asyncio.gather(
            refresh(rig, pair.refresh_token, str(uuid4())),
            rig.auth.SignOut(pb.SignOutRequest(), metadata=who),
            return_exceptions=True,
        )
        tokens = [pair.access_token]
        if isinstance(answers[0], pb.TokenPair):
            tokens.append(answers[0].access_token)
            with refused("TOKEN_REVOKED"):
                await refresh(rig, answers[0].refresh_token)
        for token in tokens:
            with refused("TOKEN_REVOKED"):
                await rig.auth.GetMe(ME, metadata=bearer(token))


async def test_a_refresh_token_opens_nothing_else_and_nothing_else_refreshes(rig: Rig) -> None:
    await rig.add("ada")
    pair = await rig.sign_in("ada")
    with refused("UNAUTHENTICATED"):
        await rig.auth.GetMe(ME, metadata=bearer(pair.refresh_token))
    for token in (pair.access_token, "oiab_ref_", pair.refresh_token[:-1], "x"):
        with refused("TOKEN_INVALID"):
            await refresh(rig, token)


async def test_an_ended_sign_in_says_so(rig: Rig, url: str) -> None:
    await rig.add("ada")
    pair = await rig.sign_in("ada")
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE identity.refresh_token SET expire_time = now()")
    with refused("TOKEN_EXPIRED"):
        await refresh(rig, pair.refresh_token)


async def test_no_token_is_stored(rig: Rig, url: str) -> None:
    await rig.add("ada")
    pair = await refresh(rig, (await rig.sign_in("ada")).refresh_token, str(uuid4()))
    with psycopg.connect(url) as connection:
        tables = ("refresh_token", "sign_in", "user_account", "audit_outbox")
        text = str([connection.execute(f"SELECT * FROM identity.{table}".encode()).fetchall() for table in tables])
    for secret in (pair.refresh_token, pair.access_token, PASSWORD):
        assert secret not in text


async def test_signing_out_counts_at_once(rig: Rig) -> None:
    await rig.add("ada")
    here, there = await rig.sign_in("ada"), await rig.sign_in("ada")
    answer = await rig.auth.SignOut(pb.SignOutRequest(), metadata=bearer(here.access_token))
    assert answer.sign_ins == 1
    with refused("TOKEN_REVOKED"):
        await rig.auth.GetMe(ME, metadata=bearer(here.access_token))
    third = await rig.sign_in("ada")
    answer = await rig.auth.SignOut(pb.SignOutRequest(everywhere=True), metadata=bearer(there.access_token))
    assert answer.sign_ins == 2
    with refused("TOKEN_REVOKED"):
        await rig.auth.GetMe(ME, metadata=bearer(third.access_token))
    assert (await rig.audits.until("auth.logout", everywhere=True)).payload["sign_ins"] == 2


async def test_the_sign_ins_of_a_user_are_listed_and_ended_one_by_one(rig: Rig) -> None:
    await rig.add("ada")
    who = [bearer((await rig.sign_in("ada")).access_token) for _ in range(3)]
    stranger = await rig.become("bob")
    page = await rig.auth.ListSignIns(pb.ListSignInsRequest(page_size=2), metadata=who[2])
    assert [each.current for each in page.sign_ins] == [True, False]
    assert page.sign_ins[0].device == "test"
    rest = await rig.auth.ListSignIns(pb.ListSignInsRequest(page_token=page.next_page_token), metadata=who[2])
    assert len(rest.sign_ins) == 1
    assert not rest.next_page_token
    with refused("PAGE_TOKEN_INVALID"):
        await rig.auth.ListSignIns(pb.ListSignInsRequest(page_token=page.next_page_token), metadata=stranger)
    request = pb.RevokeSignInRequest(sign_in_id=page.sign_ins[1].sign_in_id)
    with refused("SIGN_IN_NOT_FOUND"):
        await rig.auth.RevokeSignIn(request, metadata=stranger)
    await rig.auth.RevokeSignIn(request, metadata=who[2])
    with refused("TOKEN_REVOKED"):
        await rig.auth.GetMe(ME, metadata=who[1])
    with refused("SIGN_IN_NOT_FOUND"):
        await rig.auth.RevokeSignIn(request, metadata=who[2])


async def test_a_new_password_ends_the_other_sign_ins(rig: Rig) -> None:
    await rig.add("ada")
    here, there = await rig.sign_in("ada"), await rig.sign_in("ada")
    who = bearer(here.access_token)
    with refused("CREDENTIALS_REFUSED"):
        await rig.auth.ChangePassword(
            pb.ChangePasswordRequest(old_password="wrong", new_password="another long one"), metadata=who
        )
    with refused("PASSWORD_REFUSED"):
        await rig.auth.ChangePassword(
            pb.ChangePasswordRequest(old_password=PASSWORD, new_password="password1234"), metadata=who
        )
    await rig.auth.ChangePassword(
        pb.ChangePasswordRequest(old_password=PASSWORD, new_password="another long one"), metadata=who
    )
    await rig.auth.GetMe(ME, metadata=who)
    with refused("TOKEN_REVOKED"):
        await rig.auth.GetMe(ME, metadata=bearer(there.access_token))
    with refused("CREDENTIALS_REFUSED"):
        await rig.sign_in("ada")
    assert await rig.sign_in("ada", "another long one")


async def test_the_old_password_is_guessed_as_slowly(rig: Rig) -> None:
    who = await rig.become("ada")
    request = pb.ChangePasswordRequest(old_password="wrong", new_password="another long one")
    for _ in range(5):
        with refused("CREDENTIALS_REFUSED"):
            await rig.auth.ChangePassword(request, metadata=who)
    with refused("TOO_MANY_ATTEMPTS"):
        await rig.auth.ChangePassword(request, metadata=who)


@pytest.mark.parametrize("status", [user_pb2.USER_STATUS_SUSPENDED, user_pb2.USER_STATUS_DEACTIVATED])
async def test_who_is_suspended_is_out_at_once(rig: Rig, status: "user_pb2.UserStatus.ValueType") -> None:
    await rig.add("ada")
    pair = await rig.sign_in("ada")
    await rig.auth.GetMe(ME, metadata=bearer(pair.access_token))
    await rig.users.UpdateUser(
        user_service_pb2.UpdateUserRequest(user=user_pb2.User(user_id="ada", status=status)), metadata=rig.operator
    )
    with refused("USER_SUSPENDED"):
        await rig.auth.GetMe(ME, metadata=bearer(pair.access_token))
    with refused("TOKEN_REVOKED"):
        await refresh(rig, pair.refresh_token)
    with refused("USER_SUSPENDED"):
        await rig.sign_in("ada")
    with refused("CREDENTIALS_REFUSED"):  # to others it is not told
        await rig.sign_in("ada", "wrong")


async def test_whose_organisation_is_suspended_is_out_within_seconds(rig: Rig, url: str) -> None:
    await rig.add("ada")
    pair = await rig.sign_in("ada")
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE identity.tenant SET status = 'suspended'")
        connection.execute("SELECT pg_notify('oiab_identity', %s)", (f"{DEFAULT_TENANT}/",))
    await asyncio.sleep(0.3)
    with refused("USER_SUSPENDED"):
        await rig.auth.GetMe(ME, metadata=bearer(pair.access_token))
    with refused("USER_SUSPENDED"):
        await refresh(rig, pair.refresh_token)
    with refused("USER_SUSPENDED"):
        await rig.sign_in("ada")


async def test_how_people_sign_in_is_told_to_all_and_tells_nothing_of_tenants(rig: Rig) -> None:
    here = await rig.auth.GetAuthStatus(pb.GetAuthStatusRequest())
    there = await rig.auth.GetAuthStatus(pb.GetAuthStatusRequest(tenant="no-such-tenant"))
    assert here == there
    assert here.passwords
    assert here.operator_key


async def test_the_key_of_the_box_opens_it_here_and_nowhere_else(rig: Rig) -> None:
    assert (await rig.auth.GetMe(ME, metadata=rig.operator)).user.user_id == str(OPERATOR)
    assert "admin.manage_box" in await rig.may(rig.operator)
    key = rig.operator[0]
    for address in (ELSEWHERE, f"{HERE}, {ELSEWHERE}", "localhost", "::2", "unknown"):
        with refused("OPERATOR_KEY_REMOTE"):
            await rig.auth.GetMe(ME, metadata=(key, ("x-forwarded-for", address)))
    for address in ("::1", f"{ELSEWHERE}, 127.0.0.9"):
        await rig.auth.GetMe(ME, metadata=(key, ("x-forwarded-for", address)))
    for wrong in ("Bearer ", "Bearer the-key", f"Basic {key[1]}", "the-key-of-the-box", "Bearer ä", "bearer"):
        with refused("UNAUTHENTICATED"):
            await rig.auth.GetMe(ME, metadata=(("authorization", wrong),)) if wrong.isascii() else await rig.auth.GetMe(
                ME
            )
    with refused("UNAUTHENTICATED"):
        await rig.auth.GetMe(ME)


async def test_the_key_of_the_box_opens_it_from_elsewhere_where_that_is_asked_for(
    database: Callable[..., str], keyring: str
) -> None:
    async with running(database("identity"), keyring, api_key_remote=True) as (rig,):
        await rig.auth.GetMe(ME, metadata=(rig.operator[0], ("x-forwarded-for", ELSEWHERE)))


async def test_sign_ins_outlive_a_restart_and_another_key_ends_the_access_tokens(
    database: Callable[..., str], keyring: str, tmp_path: object
) -> None:
    url = database("identity")
    async with running(url, keyring) as (rig,):
        await rig.add("ada")
        pair = await rig.sign_in("ada")
    async with running(url, keyring) as (rig,):
        await rig.auth.GetMe(ME, metadata=bearer(pair.access_token))
    lost = f"file:{FileMaster.open(Path(keyring)).fingerprint}"
    async with running(url, f"{keyring}-other", keyring_lost=lost) as (rig,):
        with refused("TOKEN_INVALID"):
            await rig.auth.GetMe(ME, metadata=bearer(pair.access_token))
        assert (await refresh(rig, pair.refresh_token)).access_token


async def test_the_keys_of_tokens_rotate_while_sign_ins_go_on(url: str, keyring: str) -> None:
    async with running(url, keyring, count=2) as (one, two):
        await one.add("ada")
        old = await one.sign_in("ada")
        await one.room.token_keys.admin.rotate(INSTALLATION)
        for rig in (one, two, one):
            issuer = rig.room.desk.issuer
            await rig.room.token_keys.follow(issuer._access_tokens, issuer)
        new = await one.sign_in("ada")
        kids = {jwt.get_unverified_header(pair.access_token)["kid"] for pair in (old, new)}
        assert len(kids) == 2
        for rig in (one, two):
            for pair in (old, new):
                await rig.auth.GetMe(ME, metadata=bearer(pair.access_token))
        assert (await refresh(two, old.refresh_token)).access_token


async def test_a_change_counts_at_once_in_every_replica(database: Callable[..., str], keyring: str) -> None:
    async with running(database("identity"), keyring, count=2) as (one, two):
        await one.add("ada", "viewer")
        pair = await one.sign_in("ada")
        who = bearer(pair.access_token)
        for rig in (one, two):
            assert "agents.run" not in await rig.may(who)
        assert two.room.authenticator._standings._kept
        await one.users.AssignRole(
            user_service_pb2.AssignRoleRequest(user_id="ada", role_id="member"), metadata=one.operator
        )
        assert "agents.run" in await one.may(who)
        await asyncio.sleep(0.1)
        assert "agents.run" in await two.may(who)
        await one.auth.SignOut(pb.SignOutRequest(), metadata=who)
        await asyncio.sleep(0.1)
        with refused("TOKEN_REVOKED"):
            await two.auth.GetMe(ME, metadata=who)


async def test_while_no_news_can_be_heard_nothing_is_remembered(database: Callable[..., str], keyring: str) -> None:
    url = database("identity")
    async with running(url, keyring, count=2) as (one, two):
        await one.add("ada")
        who = bearer((await one.sign_in("ada")).access_token)
        await two.auth.GetMe(ME, metadata=who)
        end = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN oiab_identity%' "
            "OR application_name = 'oiab-identity' AND state = 'idle' AND query = 'SELECT 1'"
        )
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(end)
            await until(lambda: not linked(two))
            await two.auth.GetMe(ME, metadata=who)
            assert not two.room.authenticator._standings._kept
        await one.auth.SignOut(pb.SignOutRequest(), metadata=who)
        with refused("TOKEN_REVOKED"):
            await two.auth.GetMe(ME, metadata=who)
        await until(lambda: linked(two))


async def test_a_device_is_signed_in_when_its_user_says_so(rig: Rig) -> None:
    user_id = await rig.add("ada", "member")
    started = await rig.auth.StartDeviceSignIn(pb.StartDeviceSignInRequest(device="oiab on desk-7"))
    assert started.verification_uri_complete == f"{started.verification_uri}?user_code={started.user_code}"
    poll = pb.PollDeviceSignInRequest(device_code=started.device_code)
    with refused("DEVICE_SIGN_IN_PENDING"):
        await rig.auth.PollDeviceSignIn(poll)
    with refused("DEVICE_SIGN_IN_SLOW_DOWN"):
        await rig.auth.PollDeviceSignIn(poll)
    ada = Caller(DEFAULT_TENANT, UUID(user_id))
    store = rig.room.desk.store
    assert (await device_operations.find(store, started.user_code.lower())) is not None
    assert await device_operations.decide(store, ada, started.user_code, approved=True)
    assert not await device_operations.decide(store, ada, started.user_code, approved=False)
    await asyncio.sleep(9.1)
    answer = await rig.auth.PollDeviceSignIn(poll)
    assert answer.user.handle == "ada"
    await rig.auth.GetMe(ME, metadata=bearer(answer.tokens.access_token))
    with refused("TOKEN_INVALID"):
        await rig.auth.PollDeviceSignIn(poll)
    with refused("TOKEN_INVALID"):
        await rig.auth.PollDeviceSignIn(pb.PollDeviceSignInRequest(device_code="oiab_dev_guess"))


async def test_a_denied_device_stays_out(rig: Rig) -> None:
    user_id = await rig.add("ada")
    started = await rig.auth.StartDeviceSignIn(pb.StartDeviceSignInRequest())
    ada = Caller(DEFAULT_TENANT, UUID(user_id))
    assert await device_operations.decide(rig.room.desk.store, ada, started.user_code, approved=False)
    with refused("DEVICE_SIGN_IN_DENIED"):
        await rig.auth.PollDeviceSignIn(pb.PollDeviceSignInRequest(device_code=started.device_code))
