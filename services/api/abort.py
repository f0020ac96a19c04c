"""Stopping the run of a turn."""

import asyncio
from uuid import UUID

import grpc
from orginabox.sandbox.v1 import sandbox_service_pb2, sandbox_service_pb2_grpc

from services.kit import telemetry

ABORT_SECONDS = 5.0


async def abort_run(sandboxes: sandbox_service_pb2_grpc.SandboxServiceStub, turn_id: UUID) -> None:
    """Stop the run of a turn at once where there is one. Where there is none yet, the worker is told by the log."""
    request = sandbox_service_pb2.AbortTurnRequest(turn_id=str(turn_id))
    try:
        await asyncio.shield(sandboxes.AbortTurn(request, timeout=ABORT_SECONDS))
    except grpc.aio.AioRpcError as error:
        telemetry.log().info("abort left to the worker", turn_id=str(turn_id), code=error.code().name)
