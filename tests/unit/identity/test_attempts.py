"""How guessing is slowed."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from services.identity.attempts import ACCOUNT, ADDRESS, PAIR, TooManyAttempts, counters, refuse_early, site_of

TENANT = uuid4()


def test_the_wait_doubles_up_to_the_longest() -> None:
    waits = [PAIR.wait(failures).total_seconds() for failures in range(1, 20)]
    assert waits[:4] == [0, 0, 0, 0]
    assert waits[4:8] == [1, 2, 4, 8]
    assert max(waits) == PAIR.longest.total_seconds() == 900
    assert PAIR.wait(10**6) == PAIR.longest


def test_no_stranger_keeps_a_user_waiting_for_long() -> None:
    assert ACCOUNT.wait(10**6) == timedelta(seconds=30)
    assert [each.stranger_only for each in counters(TENANT, "ada", "192.0.2.1")] == [True, False, False]


def test_each_counter_is_of_one_account_or_one_address() -> None:
    here = {each.subject for each in counters(TENANT, "ada", "192.0.2.1")}
    assert len(here) == 3
    assert len(here & {each.subject for each in counters(TENANT, "ada", "192.0.2.2")}) == 1
    assert len(here & {each.subject for each in counters(TENANT, "bob", "192.0.2.1")}) == 1
    assert not here & {each.subject for each in counters(uuid4(), "ada", "192.0.2.2")}
    assert "ada" not in " ".join(here)


def test_a_site_of_ipv6_is_one_address() -> None:
    assert site_of("2001:db8:1:2::1") == site_of("2001:db8:1:2:ffff::9") != site_of("2001:db8:1:3::1")
    assert site_of("::ffff:192.0.2.1") == site_of("192.0.2.1")
    assert site_of("nowhere") == site_of("") == ""


def test_right_passwords_do_not_clear_the_guesses_at_others() -> None:
    assert [each.brake for each in counters(TENANT, "ada", "192.0.2.1") if not each.resets] == [ADDRESS]


def test_too_early_says_how_long_to_wait() -> None:
    now = datetime.now(UTC)
    refuse_early(now, now)
    with pytest.raises(TooManyAttempts) as refused:
        refuse_early(now + timedelta(seconds=30), now)
    assert refused.value.metadata == {"retryAfterSeconds": "30"}
