"""The public keyring of the fake box: one secret, whose key can be rotated."""

from typing import Any

import grpc
from orginabox.api.v1 import keyring_service_pb2 as pb
from orginabox.api.v1 import keyring_service_pb2_grpc
from orginabox.runtime.v1 import keyring_pb2

Context = grpc.aio.ServicerContext[Any, Any]
OLD, NEW = "k0000000000000001", "k0000000000000002"


class Keyrings(keyring_service_pb2_grpc.KeyringServiceServicer):
    """The keyring of one room."""

    def __init__(self) -> None:
        self._key_id = OLD
        self._master_key_id = "file:0badcafe"

    async def GetKeyringStatus(
        self, request: pb.GetKeyringStatusRequest, context: Context
    ) -> pb.GetKeyringStatusResponse:
        """One key."""
        key = keyring_pb2.DataKey(
            key_id=self._key_id,
            state=keyring_pb2.DATA_KEY_STATE_ACTIVE,
            master_key_id=self._master_key_id,
            secrets=3,
        )
        key.create_time.GetCurrentTime()
        keyring = keyring_pb2.Keyring(
            room="runtime",
            backend="file",
            master_key_id="file:01234567",
            data_keys=[key],
            secrets_to_reseal=3 * (self._key_id == OLD),
            data_keys_to_rewrap=1 * (self._master_key_id != "file:01234567"),
        )
        return pb.GetKeyringStatusResponse(keyrings=[keyring])

    async def RotateDataKeys(self, request: pb.RotateDataKeysRequest, context: Context) -> pb.RotateDataKeysResponse:
        """Another key."""
        self._key_id = NEW
        done = keyring_pb2.KeyringRotation(room="runtime", key_id=NEW, resealed=3, destroyed=1)
        return pb.RotateDataKeysResponse(rotations=[done])

    async def RewrapDataKeys(self, request: pb.RewrapDataKeysRequest, context: Context) -> pb.RewrapDataKeysResponse:
        """The same key under another master key; the second time it says that one cannot be opened."""
        again = self._master_key_id == "file:01234567"
        self._master_key_id = "file:01234567"
        done = keyring_pb2.KeyringRewrap(
            room="runtime", master_key_id=self._master_key_id, rewrapped=int(not again), unreadable=int(again)
        )
        return pb.RewrapDataKeysResponse(rewraps=[done])
