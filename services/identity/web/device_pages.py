"""The page on which a user lets a device in that has no browser, such as a terminal (RFC 8628)."""

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from services.identity import device_door, device_operations
from services.identity.attempts import TooManyAttempts
from services.identity.device import Device
from services.identity.web.door import DEVICE, LOGIN, Door
from services.identity.web.pages import page
from services.identity.web.sign_in_pages import SEE_OTHER, fields_of
from services.kit.caller import Caller, as_caller
from services.kit.tenancy import as_tenant


class DevicePages:
    """Asks whose a device is."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def show(self, request: Request) -> Response:
        """The page: which device asks, or where to type its code."""
        typed = (request.query_params.get("user_code") or request.query_params.get("code") or "")[:32]
        visitor = await self._door.visitor(request)
        if visitor is None:
            here = f"{DEVICE}?{urlencode({'user_code': typed})}" if typed else DEVICE
            return RedirectResponse(f"{LOGIN}?{urlencode({'redirect': here})}", SEE_OTHER)
        if not typed:
            return self._ask()
        try:
            found = await device_door.look(self._door.desk.store, visitor, typed)
        except TooManyAttempts as refusal:
            return self._ask(f"{refusal.message[:1].upper()}{refusal.message[1:]}.", 429)
        if found is None:
            return self._ask("No device waits with this code. It may have ended: start again there.", 404)
        return self._decide(visitor, found)

    async def submit(self, request: Request) -> Response:
        """The user has said yes or no."""
        form = await fields_of(request)
        visitor = await self._door.visitor(request)
        if visitor is None:
            return RedirectResponse(f"{LOGIN}?{urlencode({'redirect': DEVICE})}", SEE_OTHER)
        self._door.refuse_forged(request, visitor, form.get("csrf", ""))
        approved = form.get("decision") == "approve"
        store, typed = self._door.desk.store, form.get("user_code", "")
        found = await device_door.look(store, visitor, typed)
        with as_tenant(visitor.tenant_id), as_caller(visitor):
            decided = found is not None and await device_operations.decide(store, visitor, typed, approved=approved)
        if not decided or found is None:
            return self._ask("No device waits with this code any more. Start again there.", 404)
        return page("device_done", approved=approved, device=found.device)

    def _ask(self, refusal: str = "", status: int = 200) -> Response:
        return page("device_code", status, refusal=refusal, action=DEVICE)

    def _decide(self, visitor: Caller, found: Device) -> Response:
        return page(
            "device",
            code=found.user_code,
            device=found.device or "a device that gives no name",
            address=found.origin.ip_address or "an address that is not known",
            here=found.origin.ip_address == visitor.ip_address,
            asked=f"{found.create_time:%H:%M} UTC" if found.create_time else "just now",
            csrf=self._door.csrf(visitor),
            action=DEVICE,
        )
