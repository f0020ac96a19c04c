"""The contract's KeyringService: what each room with secrets does with its keyring, for users who may have it."""

from collections.abc import Awaitable, Sequence
from typing import Protocol

from orginabox.api.v1 import keyring_service_pb2 as pb
from orginabox.api.v1 import keyring_service_pb2_grpc
from orginabox.runtime.v1 import keyring_service_pb2 as room
from orginabox.runtime.v1 import keyring_service_pb2_grpc as room_grpc

from services.kit.caller import caller
from services.kit.interceptor import Context

SECONDS = 55.0
"""A rotation that takes longer goes on in its room, and is asked for again to see its end."""


class RoomKeyring(Protocol):
    """The keyring of a room: a RemoteKeyring, or the room's own handler where it lives in this process."""

    def GetKeyring(self, request: room.GetKeyringRequest, /) -> Awaitable[room.GetKeyringResponse]:
        """Tell how it stands."""

    def RotateDataKeys(self, request: room.RotateDataKeysRequest, /) -> Awaitable[room.RotateDataKeysResponse]:
        """Give a tenant a new data key."""

    def RewrapDataKeys(self, request: room.RewrapDataKeysRequest, /) -> Awaitable[room.RewrapDataKeysResponse]:
        """Wrap all data keys anew."""


class RemoteKeyring:
    """A room that is a process of its own. Its calls may take as long as the edge lets them.

    Args:
        stub: Its contract.
    """

    def __init__(self, stub: room_grpc.KeyringServiceStub) -> None:
        self._stub = stub

    async def GetKeyring(self, request: room.GetKeyringRequest, /) -> room.GetKeyringResponse:
        return await self._stub.GetKeyring(request, timeout=SECONDS)

    async def RotateDataKeys(self, request: room.RotateDataKeysRequest, /) -> room.RotateDataKeysResponse:
        return await self._stub.RotateDataKeys(request, timeout=SECONDS)

    async def RewrapDataKeys(self, request: room.RewrapDataKeysRequest, /) -> room.RewrapDataKeysResponse:
        return await self._stub.RewrapDataKeys(request, timeout=SECONDS)


class KeyringHandler(keyring_service_pb2_grpc.KeyringServiceServicer):
    """The keyrings of the box, one after the other. Each room puts on record what it does."""

    def __init__(self, rooms: Sequence[RoomKeyring]) -> None:
        self._rooms = rooms

    async def GetKeyringStatus(
        self, request: pb.GetKeyringStatusRequest, context: Context
    ) -> pb.GetKeyringStatusResponse:
        asked = room.GetKeyringRequest(tenant_id=_tenant())
        return pb.GetKeyringStatusResponse(keyrings=[(await each.GetKeyring(asked)).keyring for each in self._rooms])

    async def RotateDataKeys(self, request: pb.RotateDataKeysRequest, context: Context) -> pb.RotateDataKeysResponse:
        asked = room.RotateDataKeysRequest(tenant_id=_tenant())
        return pb.RotateDataKeysResponse(
            rotations=[(await each.RotateDataKeys(asked)).rotation for each in self._rooms]
        )

    async def RewrapDataKeys(self, request: pb.RewrapDataKeysRequest, context: Context) -> pb.RewrapDataKeysResponse:
        asked = room.RewrapDataKeysRequest()
        return pb.RewrapDataKeysResponse(rewraps=[(await each.RewrapDataKeys(asked)).rewrap for each in self._rooms])


def _tenant() -> str:
    return str(caller().tenant_id)
