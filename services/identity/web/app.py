"""The door as an application: which page answers to what."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Mount, Route

from services.identity.web.bounds import Bounds
from services.identity.web.device_pages import DevicePages
from services.identity.web.door import CALLBACK, DEVICE, LOGIN, Door
from services.identity.web.refusals import on_fault, on_http, on_refusal
from services.identity.web.scim_app import scim_app
from services.identity.web.sign_in_pages import SignInPages
from services.kit.errors import DomainError


def build(door: Door, url: str) -> Starlette:
    """The application.

    Args:
        door: What the pages work with.
        url: The address at which browsers find the box.
    """
    sign_in, devices = SignInPages(door), DevicePages(door)
    return Starlette(
        routes=[
            Route(LOGIN, sign_in.show, methods=["GET"]),
            Route(LOGIN, sign_in.submit, methods=["POST"]),
            Route(f"{LOGIN}/out", sign_in.leave, methods=["POST"]),
            Route(CALLBACK, sign_in.come_back, methods=["GET"]),
            Route(DEVICE, devices.show, methods=["GET"]),
            Route(DEVICE, devices.submit, methods=["POST"]),
            Mount("/scim/v2", scim_app(door.desk.store, f"{url}/scim/v2")),
        ],
        middleware=[Middleware(Bounds)],
        exception_handlers={DomainError: on_refusal, HTTPException: on_http, Exception: on_fault},
    )
