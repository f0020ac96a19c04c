"""The public services over what the fake box remembers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
from google.api import httpbody_pb2
from orginabox.api.v1 import (
    audit_service_pb2,
    audit_service_pb2_grpc,
    health_service_pb2,
    health_service_pb2_grpc,
    job_service_pb2,
    job_service_pb2_grpc,
    keyring_service_pb2_grpc,
    provider_service_pb2,
    provider_service_pb2_grpc,
    session_pb2,
    session_service_pb2,
    session_service_pb2_grpc,
    turn_service_pb2,
    turn_service_pb2_grpc,
)
from orginabox.audit.v1 import checkpoint_pb2, damage_pb2
from orginabox.queue.v1 import job_pb2, stats_pb2
from orginabox.turn.v1 import turn_event_pb2

from services.api import event_text
from services.kit.errors import PageTokenInvalid, Unauthenticated
from services.kit.gate import Call, Gate
from services.kit.server import build
from tests.fake_box.keyring import Keyrings
from tests.fake_box.state import (
    FakeBox,
    FakeSession,
    FakeTurn,
    JobNotFound,
    JobState,
    PermissionNotFound,
    ProviderExists,
    SessionBusy,
    TurnStarted,
    now,
)

Context = grpc.aio.ServicerContext[Any, Any]
SERVICES = tuple(
    f"orginabox.api.v1.{name}Service" for name in ("Session", "Turn", "Provider", "Job", "Keyring", "Audit", "Health")
)


def register(box: FakeBox, server: grpc.aio.Server) -> None:
    """Add every public service to a server."""
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(Sessions(box), server)
    turn_service_pb2_grpc.add_TurnServiceServicer_to_server(Turns(box), server)
    provider_service_pb2_grpc.add_ProviderServiceServicer_to_server(Providers(box), server)
    job_service_pb2_grpc.add_JobServiceServicer_to_server(Jobs(box), server)
    keyring_service_pb2_grpc.add_KeyringServiceServicer_to_server(Keyrings(), server)
    audit_service_pb2_grpc.add_AuditServiceServicer_to_server(Audit(box), server)
    health_service_pb2_grpc.add_HealthServiceServicer_to_server(Health(), server)


async def serve_openly(address: str, box: FakeBox, key: str, stop: asyncio.Event) -> None:
    """Serve a fake box as the edge does, to clients that are no part of the mesh."""
    server, _ = await build(SERVICES, partial(register, box), Door(box, key))
    server.add_insecure_port(address)
    await server.start()
    await stop.wait()
    await server.stop(1)


class Door(Gate):
    """Lets only callers with the key in, and remembers what they sent along."""

    def __init__(self, box: FakeBox, key: str) -> None:
        super().__init__()
        self._box = box
        self._key = key

    @asynccontextmanager
    async def admitted(self, call: Call) -> AsyncIterator[None]:
        """Let a call in, if it has the key."""
        sent = {"method": call.method, "left": str(call.context.time_remaining() or "")}
        self._box.seen.append({**call.metadata, **sent})
        if self._key and "Health" not in call.method and call.metadata.get("authorization") != f"Bearer {self._key}":
            raise Unauthenticated("the key is missing or wrong; send it as `Authorization: Bearer ...`")
        yield


def page(items: Sequence[Any], size: int, token: str) -> tuple[Sequence[Any], str]:
    """A page of items and the token of the next."""
    if token and not token.isdigit():
        raise PageTokenInvalid("the page token is not one of this list; start again without one")
    start, size = int(token or 0), min(size or 50, 500)
    following = start + size
    return items[start:following], str(following) if following < len(items) else ""


class Sessions(session_service_pb2_grpc.SessionServiceServicer):
    """Sessions and what is said in them."""

    def __init__(self, box: FakeBox) -> None:
        self._box = box

    async def CreateSession(
        self, request: session_service_pb2.CreateSessionRequest, context: Context
    ) -> session_service_pb2.CreateSessionResponse:
        """Make one."""
        made = FakeSession(request.title)
        made = self._box.requests.setdefault(request.request_id or made.session_id, made)
        self._box.sessions[made.session_id] = made
        self._box.record("agent.session_create", f"session:{made.session_id}", made.session_id)
        return session_service_pb2.CreateSessionResponse(session_id=made.session_id, session=made.to_proto())

    async def ListSessions(
        self, request: session_service_pb2.ListSessionsRequest, context: Context
    ) -> session_service_pb2.ListSessionsResponse:
        """The last used first."""
        found = sorted(
            (session.to_proto() for session in self._box.sessions.values()),
            key=lambda one: one.update_time.ToNanoseconds(),
            reverse=True,
        )
        items, token = page(found, request.page_size, request.page_token)
        return session_service_pb2.ListSessionsResponse(sessions=items, next_page_token=token)

    async def GetSession(
        self, request: session_service_pb2.GetSessionRequest, context: Context
    ) -> session_service_pb2.GetSessionResponse:
        """One."""
        return session_service_pb2.GetSessionResponse(session=self._box.session(request.session_id).to_proto())

    async def UpdateSession(
        self, request: session_service_pb2.UpdateSessionRequest, context: Context
    ) -> session_service_pb2.UpdateSessionResponse:
        """Another title."""
        session = self._box.session(request.session_id)
        session.title = request.title or session.title
        session.busy_policy = request.busy_policy or session.busy_policy
        return session_service_pb2.UpdateSessionResponse(session=session.to_proto())

    async def DeleteSession(
        self, request: session_service_pb2.DeleteSessionRequest, context: Context
    ) -> session_service_pb2.DeleteSessionResponse:
        """None."""
        if self._box.session(request.session_id).open_turns:
            raise SessionBusy("a turn of the session runs; abort it first", sessionId=request.session_id)
        del self._box.sessions[request.session_id]
        return session_service_pb2.DeleteSessionResponse()

    async def ListMessages(
        self, request: session_service_pb2.ListMessagesRequest, context: Context
    ) -> session_service_pb2.ListMessagesResponse:
        """What was said."""
        turns = self._box.session(request.session_id).turns
        said = [message for turn in turns for message in messages(turn)]
        items, token = page(said, request.page_size, request.page_token)
        return session_service_pb2.ListMessagesResponse(messages=items, next_page_token=token)

    async def ListInbox(
        self, request: session_service_pb2.ListInboxRequest, context: Context
    ) -> session_service_pb2.ListInboxResponse:
        """What runs and waits."""
        turns = [turn.to_proto() for turn in self._box.session(request.session_id).open_turns]
        items, token = page(turns, request.page_size, request.page_token)
        return session_service_pb2.ListInboxResponse(turns=items, next_page_token=token)

    async def Prompt(
        self, request: session_service_pb2.PromptRequest, context: Context
    ) -> session_service_pb2.PromptResponse:
        """Take it, once."""
        session = self._box.session(request.session_id)
        default = self._box.applied[0]
        chosen = request.model if request.HasField("model") else default
        if request.request_id not in self._box.requests:
            model = chosen.provider_id, chosen.model_id
            taken = session.prompt(request.text, model, request.busy_policy)
            self._box.requests[request.request_id or taken[0].turn_id] = taken
            self._box.record("agent.prompt", f"turn:{taken[0].turn_id}", session.session_id)
        else:
            taken = self._box.requests[request.request_id]
        turn, position = taken
        return session_service_pb2.PromptResponse(turn_id=turn.turn_id, position=position, turn=turn.to_proto())


class Turns(turn_service_pb2_grpc.TurnServiceServicer):
    """Turns and their events."""

    def __init__(self, box: FakeBox) -> None:
        self._box = box

    async def GetTurn(
        self, request: turn_service_pb2.GetTurnRequest, context: Context
    ) -> turn_service_pb2.GetTurnResponse:
        """One."""
        return turn_service_pb2.GetTurnResponse(turn=self._box.turn(request.turn_id).to_proto())

    async def ListTurns(
        self, request: turn_service_pb2.ListTurnsRequest, context: Context
    ) -> turn_service_pb2.ListTurnsResponse:
        """Newest first."""
        turns = [turn.to_proto() for turn in reversed(self._box.session(request.session_id).turns)]
        items, token = page(turns, request.page_size, request.page_token)
        return turn_service_pb2.ListTurnsResponse(turns=items, next_page_token=token)

    async def StreamTurnEvents(
        self, request: turn_service_pb2.StreamTurnEventsRequest, context: Context
    ) -> AsyncIterator[turn_event_pb2.TurnEvent]:
        """The log, then what follows, with checkpoints; cut where the prompt says so."""
        turn = self._box.turn(request.turn_id)
        turn.streams.append(request.from_sequence)
        seen = request.from_sequence
        if not turn.open:
            seen = min(seen, turn.log[-1].sequence - 1)  # whoever has it all gets the end again
        while True:
            if turn.cut_after and seen - request.from_sequence >= turn.cut_after:
                if turn.text.startswith("cut"):
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "upstream reset")
                return
            event = await self._next(turn, seen)
            yield event
            seen = event.sequence
            if turn.log[-1].sequence == seen and not turn.open:
                return

    async def StreamTurnEventsAsText(
        self, request: turn_service_pb2.StreamTurnEventsAsTextRequest, context: Context
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        """The same as text."""
        asked = turn_service_pb2.StreamTurnEventsRequest(turn_id=request.turn_id, from_sequence=request.from_sequence)
        async for event in self.StreamTurnEvents(asked, context):
            yield event_text.body_of(event)

    async def _next(self, turn: FakeTurn, seen: int) -> turn_event_pb2.TurnEvent:
        async with turn.changed:
            try:
                async with asyncio.timeout(self._box.checkpoint_seconds):
                    await turn.changed.wait_for(lambda: len(turn.log) > seen)
            except TimeoutError:
                return turn_event_pb2.TurnEvent(
                    sequence=seen, turn_id=turn.turn_id, checkpoint=turn_event_pb2.Checkpoint()
                )
            return turn.log[seen]

    async def UpdateTurn(
        self, request: turn_service_pb2.UpdateTurnRequest, context: Context
    ) -> turn_service_pb2.UpdateTurnResponse:
        """Other words, while it waits."""
        turn = self._box.turn(request.turn_id)
        if not turn.waits:
            raise TurnStarted("this turn has started", turnId=request.turn_id)
        turn.text = request.text
        self._box.record("agent.prompt_update", f"turn:{turn.turn_id}", turn.session_id)
        return turn_service_pb2.UpdateTurnResponse(turn=turn.to_proto())

    async def AbortTurn(
        self, request: turn_service_pb2.AbortTurnRequest, context: Context
    ) -> turn_service_pb2.AbortTurnResponse:
        """Stop it."""
        turn = self._box.turn(request.turn_id)
        turn.abort.set()
        if turn.waits:
            await turn.append(turn_event_pb2.TurnEvent(aborted=turn_event_pb2.TurnAborted()))
        self._box.record("agent.abort", f"turn:{turn.turn_id}", turn.session_id)
        return turn_service_pb2.AbortTurnResponse(turn=turn.to_proto())

    async def ReplyPermission(
        self, request: turn_service_pb2.ReplyPermissionRequest, context: Context
    ) -> turn_service_pb2.ReplyPermissionResponse:
        """Answer it, once."""
        waiting = self._box.turn(request.turn_id).replies.get(request.permission_id)
        if waiting is None or waiting.done():
            raise PermissionNotFound("the turn asks no such permission", permissionId=request.permission_id)
        waiting.set_result((request.reply, request.message))
        return turn_service_pb2.ReplyPermissionResponse()


class Providers(provider_service_pb2_grpc.ProviderServiceServicer):
    """Providers and the runtime made of them."""

    def __init__(self, box: FakeBox) -> None:
        self._box = box

    async def CreateProvider(
        self, request: provider_service_pb2.CreateProviderRequest, context: Context
    ) -> provider_service_pb2.CreateProviderResponse:
        """Add one."""
        made = request.provider
        if made.provider_id in self._box.providers:
            raise ProviderExists(f"there is a provider {made.provider_id} already", providerId=made.provider_id)
        made.has_api_key = bool(request.api_key)
        self._box.providers[made.provider_id] = made
        self._box.keys[made.provider_id] = request.api_key
        return provider_service_pb2.CreateProviderResponse(provider=made)

    async def ListProviders(
        self, request: provider_service_pb2.ListProvidersRequest, context: Context
    ) -> provider_service_pb2.ListProvidersResponse:
        """All."""
        ordered = [self._box.providers[name] for name in sorted(self._box.providers)]
        items, token = page(ordered, request.page_size, request.page_token)
        return provider_service_pb2.ListProvidersResponse(providers=items, next_page_token=token)

    async def UpdateProvider(
        self, request: provider_service_pb2.UpdateProviderRequest, context: Context
    ) -> provider_service_pb2.UpdateProviderResponse:
        """Change one by its mask."""
        kept = self._box.provider(request.provider.provider_id)
        for name in request.update_mask.paths:
            kept.ClearField(name)  # type: ignore[arg-type]
        wanted = type(kept)()
        request.update_mask.MergeMessage(request.provider, wanted)
        kept.MergeFrom(wanted)
        if request.api_key:
            kept.has_api_key = True
            self._box.keys[kept.provider_id] = request.api_key
        return provider_service_pb2.UpdateProviderResponse(provider=kept)

    async def DeleteProvider(
        self, request: provider_service_pb2.DeleteProviderRequest, context: Context
    ) -> provider_service_pb2.DeleteProviderResponse:
        """Remove one."""
        del self._box.providers[self._box.provider(request.provider_id).provider_id]
        return provider_service_pb2.DeleteProviderResponse()

    async def GetRuntimeStatus(
        self, request: provider_service_pb2.GetRuntimeStatusRequest, context: Context
    ) -> provider_service_pb2.GetRuntimeStatusResponse:
        """How it stands."""
        return provider_service_pb2.GetRuntimeStatusResponse(status=self._box.status())

    async def ApplyRuntime(
        self, request: provider_service_pb2.ApplyRuntimeRequest, context: Context
    ) -> provider_service_pb2.ApplyRuntimeResponse:
        """Apply what is staged."""
        changed = self._box.applied != self._box.staged()
        self._box.applied = self._box.staged()
        return provider_service_pb2.ApplyRuntimeResponse(status=self._box.status(), changed=changed)


class Jobs(job_service_pb2_grpc.JobServiceServicer):
    """The queue: a job for each turn."""

    def __init__(self, box: FakeBox) -> None:
        self._box = box

    async def ListJobs(
        self, request: job_service_pb2.ListJobsRequest, context: Context
    ) -> job_service_pb2.ListJobsResponse:
        """Newest first."""
        found = [
            job
            for job in reversed(self._box.jobs())
            if request.state in {0, job.state} and request.kind in {"", job.kind} and request.key in {"", job.key}
        ]
        items, token = page(found, request.page_size, request.page_token)
        return job_service_pb2.ListJobsResponse(jobs=items, next_page_token=token)

    async def GetJob(self, request: job_service_pb2.GetJobRequest, context: Context) -> job_service_pb2.GetJobResponse:
        """One."""
        return job_service_pb2.GetJobResponse(job=self._job(request.job_id))

    async def CancelJob(
        self, request: job_service_pb2.CancelJobRequest, context: Context
    ) -> job_service_pb2.CancelJobResponse:
        """Its turn ends."""
        self._job(request.job_id)
        self._box.turn(request.job_id).abort.set()
        return job_service_pb2.CancelJobResponse(job=self._job(request.job_id))

    async def RetryJob(
        self, request: job_service_pb2.RetryJobRequest, context: Context
    ) -> job_service_pb2.RetryJobResponse:
        """None is dead, but those that failed."""
        job = self._job(request.job_id)
        if job.state != job_pb2.JOB_STATE_DEAD:
            raise JobState("only a dead job can be retried", jobId=request.job_id)
        job.state = job_pb2.JOB_STATE_READY
        return job_service_pb2.RetryJobResponse(job=job)

    async def PauseQueue(
        self, request: job_service_pb2.PauseQueueRequest, context: Context
    ) -> job_service_pb2.PauseQueueResponse:
        """Remember it."""
        self._box.paused = True
        return job_service_pb2.PauseQueueResponse()

    async def ResumeQueue(
        self, request: job_service_pb2.ResumeQueueRequest, context: Context
    ) -> job_service_pb2.ResumeQueueResponse:
        """Forget it."""
        self._box.paused = False
        return job_service_pb2.ResumeQueueResponse()

    async def SetQueueShare(
        self, request: job_service_pb2.SetQueueShareRequest, context: Context
    ) -> job_service_pb2.SetQueueShareResponse:
        """Nothing waits here."""
        return job_service_pb2.SetQueueShareResponse()

    async def GetQueueStats(
        self, request: job_service_pb2.GetQueueStatsRequest, context: Context
    ) -> job_service_pb2.GetQueueStatsResponse:
        """One kind."""
        jobs = self._box.jobs()
        if not jobs:
            return job_service_pb2.GetQueueStatsResponse()
        dead = sum(job.state == job_pb2.JOB_STATE_DEAD for job in jobs)
        stats = stats_pb2.QueueStats(kind="agent-turn", paused=self._box.paused, dead=dead)
        return job_service_pb2.GetQueueStatsResponse(kinds=[stats])

    def _job(self, job_id: str) -> job_pb2.Job:
        for job in self._box.jobs():
            if job.job_id == job_id:
                return job
        raise JobNotFound("no job has this id", jobId=job_id)


class Audit(audit_service_pb2_grpc.AuditServiceServicer):
    """The records."""

    def __init__(self, box: FakeBox) -> None:
        self._box = box

    async def ListAuditRecords(
        self, request: audit_service_pb2.ListAuditRecordsRequest, context: Context
    ) -> audit_service_pb2.ListAuditRecordsResponse:
        """Newest first."""
        since = request.since.ToNanoseconds() if request.HasField("since") else 0
        found = [
            record
            for record in reversed(self._box.records)
            if fits(record.action, request.action) and record.create_time.ToNanoseconds() >= since
        ]
        items, token = page(found, request.page_size, request.page_token)
        return audit_service_pb2.ListAuditRecordsResponse(records=items, next_page_token=token)

    async def ExportAuditRecords(
        self, request: audit_service_pb2.ExportAuditRecordsRequest, context: Context
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        """A line for each record, one by one."""
        for record in self._box.records:
            yield httpbody_pb2.HttpBody(content_type="text/csv", data=f"{record.action},{request.format}\n".encode())

    async def VerifyAuditLog(
        self, request: audit_service_pb2.VerifyAuditLogRequest, context: Context
    ) -> AsyncIterator[audit_service_pb2.VerifyAuditLogResponse]:
        """Whole, unless somebody said something bad."""
        count = len(self._box.records)
        yield audit_service_pb2.VerifyAuditLogResponse(records=1)
        bad = [record.sequence for record in self._box.records if record.action == "agent.abort"]
        damages = [
            damage_pb2.Damage(kind=damage_pb2.DAMAGE_KIND_CHANGED, sequence=at, message="not as it was") for at in bad
        ]
        yield audit_service_pb2.VerifyAuditLogResponse(records=count, done=True, size=count, damages=damages)

    async def ListAuditCheckpoints(
        self, request: audit_service_pb2.ListAuditCheckpointsRequest, context: Context
    ) -> audit_service_pb2.ListAuditCheckpointsResponse:
        """One, when there is anything."""
        found = [checkpoint_pb2.Checkpoint(size=len(self._box.records), note="origin\n1\nroot=\n")]
        return audit_service_pb2.ListAuditCheckpointsResponse(checkpoints=found if self._box.records else [])

    async def GetAuditKey(
        self, request: audit_service_pb2.GetAuditKeyRequest, context: Context
    ) -> audit_service_pb2.GetAuditKeyResponse:
        """A key."""
        return audit_service_pb2.GetAuditKeyResponse(public_key="origin+00000000+AQ==")

    async def EraseAuditUser(
        self, request: audit_service_pb2.EraseAuditUserRequest, context: Context
    ) -> audit_service_pb2.EraseAuditUserResponse:
        """All are about one user here."""
        return audit_service_pb2.EraseAuditUserResponse(erased=len(self._box.records))


class Health(health_service_pb2_grpc.HealthServiceServicer):
    """Works."""

    async def GetHealth(
        self, request: health_service_pb2.GetHealthRequest, context: Context
    ) -> health_service_pb2.GetHealthResponse:
        """Says so."""
        return health_service_pb2.GetHealthResponse(ok=True, ts=now())


def fits(action: str, pattern: str) -> bool:
    """Whether an action is asked for."""
    if pattern.endswith("*"):
        return action.startswith(pattern[:-1])
    return not pattern or action == pattern


def messages(turn: FakeTurn) -> list[session_pb2.Message]:
    """What was said in a turn."""
    said = [session_pb2.MessagePart(text=turn.text)]
    user = session_pb2.Message(message_id=f"{turn.turn_id}-u", turn_id=turn.turn_id, role=1, parts=said)  # type: ignore[arg-type]
    if turn.open:
        return [user]
    agent = session_pb2.Message(message_id=f"{turn.turn_id}-a", turn_id=turn.turn_id, role=2)  # type: ignore[arg-type]
    for event in turn.log:
        add_to(agent, event)
    return [user, agent]


def add_to(message: session_pb2.Message, event: turn_event_pb2.TurnEvent) -> None:
    """Add what an event says to a message."""
    if event.HasField("text_delta"):
        if not message.parts or not message.parts[-1].HasField("text"):
            message.parts.add(text="")
        message.parts[-1].text += event.text_delta.text
    if event.HasField("tool_finished"):
        done = event.tool_finished
        call = session_pb2.ToolCall(
            call_id=done.call_id,
            tool=done.tool,
            title=done.title,
            outcome=done.outcome,
            output=done.output,
            error=done.error,
        )
        message.parts.add(tool_call=call)
