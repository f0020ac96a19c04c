"""The contract of a room's keyring. A room in Api's own process is asked through the same methods, without a wire."""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from orginabox.runtime.v1 import keyring_pb2, keyring_service_pb2_grpc
from orginabox.runtime.v1 import keyring_service_pb2 as pb

from services.kit.keyring.admin import DataKeyUse, KeyringAdmin, Status
from services.kit.keyring.data_key import KeyState

STATES = {
    KeyState.ACTIVE: keyring_pb2.DATA_KEY_STATE_ACTIVE,
    KeyState.RETIRED: keyring_pb2.DATA_KEY_STATE_RETIRED,
    KeyState.LOST: keyring_pb2.DATA_KEY_STATE_LOST,
}


class KeyringHandler(keyring_service_pb2_grpc.KeyringServiceServicer):
    """The keyring of a room.

    Args:
        admin: What operates it.
        changed: Called after a rotation: what the room remembers of opened secrets is not needed any more.
    """

    def __init__(self, admin: KeyringAdmin, changed: Callable[[], None] = lambda: None) -> None:
        self._admin = admin
        self._changed = changed

    async def GetKeyring(self, request: pb.GetKeyringRequest, context: Any = None) -> pb.GetKeyringResponse:
        return pb.GetKeyringResponse(keyring=_status_to_proto(await self._admin.status(UUID(request.tenant_id))))

    async def RotateDataKeys(self, request: pb.RotateDataKeysRequest, context: Any = None) -> pb.RotateDataKeysResponse:
        done = await self._admin.rotate(UUID(request.tenant_id))
        self._changed()
        return pb.RotateDataKeysResponse(
            rotation=keyring_pb2.KeyringRotation(
                room=self._admin.room,
                key_id=done.key_id,
                resealed=done.resealed,
                unreadable=done.unreadable,
                destroyed=done.destroyed,
                resumed=done.resumed,
            )
        )

    async def RewrapDataKeys(self, request: pb.RewrapDataKeysRequest, context: Any = None) -> pb.RewrapDataKeysResponse:
        done = await self._admin.rewrap()
        return pb.RewrapDataKeysResponse(
            rewrap=keyring_pb2.KeyringRewrap(
                room=self._admin.room,
                master_key_id=done.master_key_id,
                rewrapped=done.rewrapped,
                unreadable=done.unreadable,
            )
        )


def _status_to_proto(status: Status) -> keyring_pb2.Keyring:
    return keyring_pb2.Keyring(
        room=status.room,
        backend=status.backend,
        master_key_id=status.master_key_id,
        trouble=status.trouble,
        data_keys=[_use_to_proto(use) for use in status.data_keys],
        secrets_to_reseal=status.to_reseal,
        data_keys_to_rewrap=status.to_rewrap,
    )


def _use_to_proto(use: DataKeyUse) -> keyring_pb2.DataKey:
    return keyring_pb2.DataKey(
        key_id=use.key.key_id,
        state=STATES[use.key.state],
        master_key_id=use.key.wrapped.master_key_id,
        secrets=use.secrets,
        create_time=_time(use.key.create_time),
        retire_time=_time(use.key.retire_time),
    )


def _time(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
