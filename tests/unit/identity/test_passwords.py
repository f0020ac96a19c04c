"""Passwords: which are refused, and how they are kept."""

import asyncio
import time

import pytest
from argon2 import PasswordHasher

from services.identity.passwords import PasswordRefused, Passwords, refuse_weak

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.mark.parametrize(
    "password",
    [
        "short",
        "elevensigns",
        "password1234",
        "PASSWORD1234!",
        "P@ssw0rd12345",
        "123456789012",
        "abcdefghijkl",
        "987654321098",
        "aaaaaaaaaaaa",
        "abababababab",
        "abcabcabcabc",
        "qwertyuiop123",
        "correcthorsebatterystaple",
        "adalovelace.12",
        "ada@example.com",
        "orginabox2026!",
        "  hunter 1234 ",
    ],
)
def test_a_password_that_is_tried_first_is_refused(password: str) -> None:
    with pytest.raises(PasswordRefused):
        refuse_weak(password, "adalovelace", "ada@example.com")


@pytest.mark.parametrize(
    "password", ["zwölf Wörter!", "the moon was late", "Grüße aus Köln", "xK9#mQ2$vL5n", "只有我知道的一句很长的话"]
)
def test_any_other_sentence_will_do(password: str) -> None:
    refuse_weak(password, "ada", "ada@example.com")


async def test_a_password_is_kept_as_argon2id_and_recognised() -> None:
    passwords = Passwords()
    stored = await passwords.hash("the moon was late")
    assert stored.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert await passwords.check(stored, "the moon was late")
    assert not await passwords.check(stored, "the moon was later")


async def test_the_same_signs_written_otherwise_are_the_same_password() -> None:
    passwords = Passwords(QUICK)
    composed, decomposed = "Gr\u00fc\u00dfe aus K\u00f6ln", "Gru\u0308\u00dfe aus Ko\u0308ln"
    assert await passwords.check(await passwords.hash(composed), decomposed)


async def test_nothing_stored_is_never_right_and_takes_as_long() -> None:
    passwords = Passwords()
    stored = await passwords.hash("the moon was late")
    took = {}
    for name, kept in (("user", stored), ("nobody", "")):
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            assert not await passwords.check(kept, "nobody has this password" if not kept else "wrong")
            times.append(time.perf_counter() - begin)
        took[name] = min(times)
    assert 0.5 < took["user"] / took["nobody"] < 2


async def test_hashing_does_not_stop_the_loop() -> None:
    passwords = Passwords()
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0.001)

    beating = asyncio.create_task(beat())
    await asyncio.gather(*(passwords.hash("the moon was late") for _ in range(4)))
    beating.cancel()
    assert beats > 10


async def test_other_parameters_ask_for_another_hash() -> None:
    assert Passwords().outdated(await Passwords(QUICK).hash("the moon was late"))
    assert not Passwords().outdated(await Passwords().hash("the moon was late"))


async def test_what_is_stored_and_no_hash_is_never_right() -> None:
    assert not await Passwords(QUICK).check("plain", "plain")
