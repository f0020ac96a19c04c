"""The cookies of browsers, and what they are called where browsers come by TLS."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from services.identity.browser import Browsers, BrowserSession, CsrfRefused, Sender, cookie_in
from services.identity.sign_in import TokenExpired, TokenInvalid
from services.identity.web.door import local_path, page_of

OLD, NEW = b"o" * 32, b"n" * 32


def session(**life: int) -> BrowserSession:
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(**(life or {"hours": 1}))
    return BrowserSession(uuid4(), uuid4(), uuid4(), end)


def test_a_session_is_read_as_it_was_sealed_also_after_the_key_has_changed() -> None:
    browsers, kept = Browsers([OLD], "https://box.example"), session()
    value = browsers.seal(kept)
    assert browsers.open(value) == kept
    browsers.use([NEW, OLD])
    assert browsers.open(value) == kept
    browsers.refuse_forged(
        Sender(proof=Browsers([OLD], "").csrf(kept.sign_in_id)), browsers.csrf_proofs(kept.sign_in_id)
    )
    browsers.use([NEW])
    with pytest.raises(TokenInvalid):
        browsers.open(value)


def test_a_session_ends() -> None:
    browsers = Browsers([OLD], "https://box.example")
    with pytest.raises(TokenExpired):
        browsers.open(browsers.seal(session(seconds=-1)))


def test_every_changed_byte_is_noticed() -> None:
    browsers = Browsers([OLD], "https://box.example")
    value = browsers.seal(session())
    for place in range(len(value) - 1):
        other = "A" if value[place] != "A" else "B"
        with pytest.raises(TokenInvalid):
            browsers.open(value[:place] + other + value[place + 1 :])


def test_cookies_are_bound_to_the_host_where_browsers_come_by_tls() -> None:
    assert Browsers([OLD], "https://box.example").session_cookie == "__Host-oiab_session"
    assert Browsers([OLD], "http://127.0.0.1:8787").session_cookie == "oiab_session"


@pytest.mark.parametrize(
    ("cookies", "value"),
    [
        ("a=1; oiab_session=x; b=2", "x"),
        ("xoiab_session=1", ""),
        ("oiab_session=", ""),
        ('oiab_session="q"', "q"),
        ("", ""),
    ],
)
def test_a_cookie_is_found_among_others(cookies: str, value: str) -> None:
    assert cookie_in(cookies, "oiab_session") == value


@pytest.mark.parametrize("origin", ["null", "https://box.example.evil", "http://box.example", "https://box.example:1"])
def test_pages_of_other_sites_are_told_apart(origin: str) -> None:
    with pytest.raises(CsrfRefused):
        Browsers([OLD], "https://box.example").refuse_elsewhere(Sender(origin=origin))


@pytest.mark.parametrize("origin", ["http://localhost:8787", "http://127.0.0.1:8787", "http://[::1]:8787", ""])
def test_this_machine_has_several_names(origin: str) -> None:
    Browsers([OLD], "http://127.0.0.1:8787").refuse_elsewhere(Sender(origin=origin))


@pytest.mark.parametrize("path", ["//e", "/\\e", "https://e", "e", "", "/" + "x" * 2000, "/\n", "/é", "javascript:1"])
def test_only_pages_of_ours_are_gone_to(path: str) -> None:
    assert not local_path(path)


def test_a_page_of_ours_keeps_its_query() -> None:
    assert local_path("/v1/auth/device/page?user_code=A") == "/v1/auth/device/page?user_code=A"
    assert page_of("/x", a="1", b="") == "/x?a=1"
