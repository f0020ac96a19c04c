"""Where the time of a turn goes, as spans of its trace: model calls, tools, waits for the user. Without any content."""

import time
from dataclasses import dataclass

from opentelemetry.trace import Span

from services.kit import telemetry
from services.sandbox import agent_events as said_by
from services.sandbox.agent_events import AgentEvent
from services.sandbox.event import (
    Event,
    PermissionAsked,
    PermissionExpired,
    PermissionReplied,
    Retrying,
    ToolFinished,
    ToolStarted,
)
from services.sandbox.translate import Translator


@dataclass
class _ModelCall:
    """One call of a model. Its tools run before opencode says that the step is finished, and are no part of it."""

    span: Span
    answered_time: int | None = None
    ended: bool = False

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self.span.end(self.answered_time)


class TurnSpans:
    """The spans of one turn, children of the span in which they are made.

    A model call lasts from the message that opencode makes for it, so waiting for the first word counts, until its last
    tool starts or its step is finished. A wait for the user lies in the tool that needs the permission.
    """

    def __init__(self, translator: Translator) -> None:
        self._translator = translator
        self._calls: dict[str, _ModelCall] = {}
        self._running: set[str] = set()
        self._tools: dict[str, Span] = {}
        self._waits: dict[str, Span] = {}

    def hear(self, said: AgentEvent) -> None:
        """Follow the model calls by what opencode says of them. The translator has heard it."""
        match said:
            case said_by.MessageChanged(info=info) if info.id not in self._calls and self._translator.owns(info.id):
                span = telemetry.start_span("model call", provider_id=info.provider_id, model_id=info.model_id)
                self._calls[info.id] = _ModelCall(span)
            case said_by.PartChanged(part=part) if call := self._calls.get(part.message_id):
                self._hear_part(call, part)

    def _hear_part(self, call: _ModelCall, part: said_by.Part) -> None:
        if part.type == "tool" and part.state and part.state.status == "running" and part.id not in self._running:
            self._running.add(part.id)
            call.answered_time = time.time_ns()
        elif part.type == "step-finish" and not call.ended:
            call.span.set_attribute("input_tokens", int(part.tokens.input))
            call.span.set_attribute("output_tokens", int(part.tokens.output))
            call.end()

    def tell(self, event: Event) -> None:
        """Follow tools and permissions by what the turn tells of them."""
        match event:
            case ToolStarted():
                self._tools[event.call_id] = telemetry.start_span(f"tool {event.tool}")
            case ToolFinished():
                _end(self._tools.pop(event.call_id, None), "completed" if event.error is None else "error")
            case PermissionAsked():
                tool = self._tools.get(event.call_id)
                wait = telemetry.start_span("permission wait", parent=tool, permission=event.permission)
                self._waits[event.permission_id] = wait
            case PermissionReplied():
                _end(self._waits.pop(event.permission_id, None), event.reply.value)
            case PermissionExpired():
                _end(self._waits.pop(event.permission_id, None), "expired")
            case Retrying():
                for call in self._calls.values():
                    if not call.ended:
                        call.span.add_event("retrying", {"attempt": event.attempt})

    def end(self) -> None:
        """End what is still open: the turn has ended."""
        for span in (*self._waits.values(), *self._tools.values()):
            _end(span, "cut")
        for call in self._calls.values():
            call.end()


def _end(span: Span | None, outcome: str) -> None:
    if span is not None:
        span.set_attribute("outcome", outcome)
        span.end()
