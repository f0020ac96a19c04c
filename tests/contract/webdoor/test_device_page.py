"""A device without a browser is let in by who is signed in, and by nobody who guesses its code."""

import pytest
from orginabox.api.v1 import auth_service_pb2

from tests.contract.identity.rig import PASSWORD, bearer, refused
from tests.contract.webdoor.rig import BOX, LOGIN, Web, field, refusal

PAGE = f"{BOX}/v1/auth/device/page"


async def started(web: Web) -> auth_service_pb2.StartDeviceSignInResponse:
    request = auth_service_pb2.StartDeviceSignInRequest(device="oiab on <desk-7>")
    answer: auth_service_pb2.StartDeviceSignInResponse = await web.rig.auth.StartDeviceSignIn(
        request, metadata=(("x-forwarded-for", "203.0.113.9"),)
    )
    return answer


async def test_who_is_not_signed_in_signs_in_first_and_comes_back(web: Web) -> None:
    await web.rig.add("ada", "member")
    device, browser = await started(web), web.browser()
    page = await browser.get(device.verification_uri_complete)
    assert page.url.path == "/v1/auth/login"
    form = {"form": field(page, "form"), "redirect": field(page, "redirect"), "handle": "ada", "password": PASSWORD}
    asked = await browser.post(LOGIN, data=form)
    assert device.user_code in asked.text
    assert "oiab on &lt;desk-7&gt;" in asked.text
    assert "203.0.113.9" in asked.text
    assert "not at your address" in asked.text
    sent = {"csrf": field(asked, "csrf"), "user_code": device.user_code, "decision": "approve"}
    done = await browser.post(PAGE, data=sent)
    assert "The device is signed in" in done.text
    poll = auth_service_pb2.PollDeviceSignInRequest(device_code=device.device_code)
    answer = await web.rig.auth.PollDeviceSignIn(poll)
    assert answer.user.handle == "ada"
    await web.rig.auth.GetMe(auth_service_pb2.GetMeRequest(), metadata=bearer(answer.tokens.access_token))
    assert (await browser.post(PAGE, data=sent)).status_code == 404
    record = await web.rig.audits.until("auth.device_approve")
    assert record.actor == f"user:{answer.user.user_id}"


@pytest.mark.parametrize("decision", ["deny", "", "yes"])
async def test_what_is_not_approved_stays_out(web: Web, decision: str) -> None:
    await web.rig.add("ada", "member")
    device, browser = await started(web), web.browser()
    page = await browser.get(LOGIN)
    await browser.post(LOGIN, data={"form": field(page, "form"), "handle": "ada", "password": PASSWORD})
    asked = await browser.get(PAGE, params={"user_code": device.user_code.lower().replace("-", "")})
    sent = {"csrf": field(asked, "csrf"), "user_code": device.user_code, "decision": decision}
    assert "stays out" in (await browser.post(PAGE, data=sent)).text
    with refused("DEVICE_SIGN_IN_DENIED"):
        await web.rig.auth.PollDeviceSignIn(auth_service_pb2.PollDeviceSignInRequest(device_code=device.device_code))


async def test_another_site_cannot_approve(web: Web) -> None:
    await web.rig.add("ada", "member")
    device, browser = await started(web), web.browser()
    page = await browser.get(LOGIN)
    await browser.post(LOGIN, data={"form": field(page, "form"), "handle": "ada", "password": PASSWORD})
    asked = await browser.get(PAGE, params={"user_code": device.user_code})
    sent = {"csrf": field(asked, "csrf"), "user_code": device.user_code, "decision": "approve"}
    assert (await browser.post(PAGE, data=sent | {"csrf": ""})).status_code == 403
    assert (await browser.post(PAGE, data=sent, headers={"origin": "https://evil.example"})).status_code == 403
    assert (await browser.post(PAGE, data=sent, headers={"sec-fetch-site": "cross-site"})).status_code == 403
    with refused("DEVICE_SIGN_IN_PENDING"):
        await web.rig.auth.PollDeviceSignIn(auth_service_pb2.PollDeviceSignInRequest(device_code=device.device_code))


async def test_codes_cannot_be_tried_one_after_the_other(web: Web) -> None:
    await web.rig.add("eve", "member")
    device, browser = await started(web), web.browser()
    page = await browser.get(LOGIN)
    await browser.post(LOGIN, data={"form": field(page, "form"), "handle": "eve", "password": PASSWORD})
    answers = [await browser.get(PAGE, params={"user_code": f"BCDF-GHJ{letter}"}) for letter in "BCDFGHJK"]
    assert [answer.status_code for answer in answers].count(404) == 5
    assert "too many failures" in refusal(answers[-1])
    assert (await browser.get(PAGE, params={"user_code": device.user_code})).status_code == 429
