"""Refresh tokens, API tokens and devices: what each coming means."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from services.identity.api_token import ApiTokenInvalid, expiry, flags_of, id_in, new_secret, prefix_of
from services.identity.device import (
    Device,
    DeviceDenied,
    DevicePending,
    DeviceState,
    DeviceTooFast,
    new_user_code,
    read_user_code,
)
from services.identity.news import News
from services.identity.permissions import FLAGS, Permissions
from services.identity.sign_in import Origin, RefreshToken, TokenExpired, TokenInvalid, Use, next_refresh_token
from services.identity.standing import LIFE_SECONDS, Standing, Standings

NOW = datetime.now(UTC)
REQUEST = uuid4()


def token(
    used: timedelta | None = None,
    request: UUID | None = None,
    *,
    successor_used: bool = False,
    revoked: bool = False,
    ends: timedelta = timedelta(days=1),
) -> RefreshToken:
    use_time = NOW - used if used is not None else None
    return RefreshToken(uuid4(), uuid4(), uuid4(), NOW + ends, use_time, request, successor_used, revoked)


SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("found", "request_id", "use"),
    [
        (token(), None, Use.FIRST),
        (token(), REQUEST, Use.FIRST),
        (token(ends=-SECOND), REQUEST, Use.EXPIRED),
        (token(SECOND), None, Use.REUSE),
        (token(SECOND), REQUEST, Use.REUSE),
        (token(SECOND, REQUEST), REQUEST, Use.REPLAY),
        (token(SECOND, REQUEST), None, Use.REUSE),
        (token(SECOND, REQUEST), uuid4(), Use.REUSE),
        (token(SECOND, REQUEST, successor_used=True), REQUEST, Use.REUSE),
        (token(timedelta(minutes=11), REQUEST), REQUEST, Use.REUSE),
        (token(SECOND, REQUEST, revoked=True), REQUEST, Use.REVOKED),
        (token(revoked=True), None, Use.REVOKED),
        (token(SECOND, ends=-SECOND), None, Use.REUSE),
    ],
)
def test_what_it_means_that_somebody_comes_with_a_refresh_token(
    found: RefreshToken, request_id: UUID | None, use: Use
) -> None:
    assert found.use(request_id, NOW) is use


def test_the_next_token_is_the_same_for_the_same_request_only() -> None:
    key = b"k" * 32
    first = next_refresh_token(key, "token", REQUEST)
    assert first == next_refresh_token(key, "token", REQUEST)
    others = {
        next_refresh_token(key, "token", uuid4()),
        next_refresh_token(key, "another", REQUEST),
        next_refresh_token(b"j" * 32, "token", REQUEST),
        next_refresh_token(key, "token", None),
        next_refresh_token(key, "token", None),
    }
    assert len(others | {first}) == 6


def test_an_api_token_names_its_id() -> None:
    api_token_id = uuid4()
    secret = new_secret(api_token_id)
    assert id_in(secret) == api_token_id
    assert secret.startswith(prefix_of(secret))
    assert len(prefix_of(secret)) < 25
    for other in (secret[:-1], secret + "a", secret.upper(), "oiab_pat_", secret.replace("_", "-"), secret + "\n"):
        assert id_in(other) is None


def test_a_star_is_every_permission_and_a_scope_one() -> None:
    assert flags_of(frozenset({"*"})) == FLAGS
    assert flags_of(frozenset({"agents.run", "no.such"})) == {"agents.run"}


def test_an_api_token_ends_within_a_year() -> None:
    assert expiry(None, NOW) == NOW + timedelta(days=90)
    assert expiry(NOW + timedelta(days=366), NOW) == NOW + timedelta(days=366)
    for wrong in (NOW, NOW - timedelta(days=1), NOW + timedelta(days=367)):
        with pytest.raises(ApiTokenInvalid):
            expiry(wrong, NOW)


def device(state: DeviceState = DeviceState.PENDING, polled: timedelta | None = None) -> Device:
    return Device(
        digest=b"",
        tenant_id=uuid4(),
        user_code=new_user_code(),
        device="",
        origin=Origin(),
        expire_time=NOW + timedelta(minutes=5),
        state=state,
        poll_time=NOW - polled if polled is not None else None,
    )


@pytest.mark.parametrize(
    ("found", "at", "refusal"),
    [
        (device(), NOW, DevicePending),
        (device(polled=SECOND), NOW, DeviceTooFast),
        (device(polled=SECOND * 5), NOW, DevicePending),
        (device(DeviceState.APPROVED, SECOND), NOW, DeviceTooFast),
        (device(DeviceState.DENIED), NOW, DeviceDenied),
        (device(DeviceState.DONE), NOW, TokenInvalid),
        (device(DeviceState.APPROVED), NOW + timedelta(minutes=6), TokenExpired),
    ],
)
def test_a_device_is_refused_for_a_reason(found: Device, at: datetime, refusal: type[Exception]) -> None:
    with pytest.raises(refusal):
        found.refuse(at)


def test_an_approved_device_is_let_in_and_a_hasty_one_is_slowed() -> None:
    device(DeviceState.APPROVED).refuse(NOW)
    assert device(polled=SECOND).polled(NOW).poll_seconds == 10
    assert device(polled=SECOND * 6).polled(NOW).poll_seconds == 5


def test_a_user_code_can_be_typed_as_people_type() -> None:
    code = new_user_code()
    assert read_user_code(f" {code.lower().replace('-', ' ')} ") == code
    assert len({new_user_code() for _ in range(100)}) == 100


class Clock:
    """A clock that stands."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def standing(tenant: UUID | None = None, user: UUID | None = None) -> Standing:
    return Standing(tenant or uuid4(), user or uuid4(), uuid4(), Permissions())


def test_the_cache_is_used_only_while_news_can_be_heard() -> None:
    cache, found = Standings(), standing()
    cache.keep(found, cache.heard)
    assert cache.get(found.grant_id) is None
    cache.link(up=True)
    cache.keep(found, cache.heard)
    assert cache.get(found.grant_id) is found
    cache.link(up=False)
    assert cache.get(found.grant_id) is None
    cache.link(up=True)
    assert cache.get(found.grant_id) is None


def test_news_of_a_user_or_a_tenant_forget_theirs_only() -> None:
    cache = Standings()
    cache.link(up=True)
    tenant, user = uuid4(), uuid4()
    mine, also_mine, colleague, stranger = standing(tenant, user), standing(tenant, user), standing(tenant), standing()
    for each in (mine, also_mine, colleague, stranger):
        cache.keep(each, cache.heard)
    cache.hear(News(tenant, user))
    assert [cache.get(each.grant_id) for each in (mine, also_mine, colleague)] == [None, None, colleague]
    cache.hear(News(tenant))
    assert [cache.get(each.grant_id) for each in (colleague, stranger)] == [None, stranger]


def test_what_was_read_before_the_news_is_not_kept_after_them() -> None:
    cache, found = Standings(), standing()
    cache.link(up=True)
    heard = cache.heard
    cache.hear(News(uuid4()))
    cache.keep(found, heard)
    assert cache.get(found.grant_id) is None


def test_nothing_is_kept_for_longer_than_ten_seconds() -> None:
    clock, found = Clock(), standing()
    cache = Standings(clock)
    cache.link(up=True)
    cache.keep(found, cache.heard)
    clock.now = LIFE_SECONDS - 0.1
    assert cache.get(found.grant_id) is found
    clock.now = LIFE_SECONDS
    assert cache.get(found.grant_id) is None


def test_news_can_be_sent_as_text() -> None:
    for news in (News(uuid4()), News(uuid4(), uuid4())):
        assert News.read(str(news)) == news
