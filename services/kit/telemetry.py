"""Logs and traces: JSON lines on stderr with the ids of the trace, spans to where OTEL_EXPORTER_OTLP_ENDPOINT says."""

import logging
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, TextIO

import structlog
from opentelemetry import context, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.tracebacks import ExceptionDictTransformer

_PROPAGATOR = TraceContextTextMapPropagator()
_TRACER = trace.get_tracer("orginabox")


def configure(service: str, level: str = "info", stream: TextIO = sys.stderr) -> None:
    """Set up the logs and the traces of this process."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _add_trace,
            # Without the values of local variables: among them are keys and what people said.
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    # A cut stream is closed from another context; OpenTelemetry logs that as an error, which it is not.
    logging.getLogger("opentelemetry.context").setLevel(logging.CRITICAL)
    provider = TracerProvider(resource=Resource.create({"service.name": f"oiab-{service}"}))
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def log() -> structlog.typing.FilteringBoundLogger:
    """The logger. Say a static event and put what varies into fields: `log().info("turn ended", turn_id=...)`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


@contextmanager
def span(name: str, *, parent: str = "", kind: SpanKind = SpanKind.INTERNAL, **attributes: str) -> Iterator[Span]:
    """Run a block in a span.

    Args:
        name: What the block does.
        parent: The W3C trace context to join. Empty means that of the caller, else a new trace.
        kind: The kind of the span.
        attributes: What else to say of it.
    """
    token = context.attach(_PROPAGATOR.extract({"traceparent": parent})) if parent else None
    try:
        with _TRACER.start_as_current_span(name, kind=kind, attributes=attributes, record_exception=False) as current:
            yield current
    finally:
        if token is not None:
            _detach(token)


def traces_are_kept() -> bool:
    """Whether anybody takes the spans of this process."""
    return bool(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))


def start_span(name: str, *, parent: Span | None = None, **attributes: str) -> Span:
    """Begin a span that is no block of code. Whoever begins it ends it.

    Args:
        name: What goes on.
        parent: The span that it is a part of. None means the current one.
        attributes: What else to say of it.
    """
    found = trace.set_span_in_context(parent) if parent else None
    return _TRACER.start_span(name, context=found, attributes=attributes, record_exception=False)


def trace_parent() -> str:
    """The W3C trace context of the current span, to be handed on. Empty when there is none."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent", "")


def trace_id() -> str:
    """The id of the current trace in hex. Empty when there is none."""
    found = trace.get_current_span().get_span_context()
    return f"{found.trace_id:032x}" if found.is_valid else ""


def _detach(token: Any) -> None:
    """Leave a joined trace. A stream may be closed from another context, where there is nothing to leave."""
    try:
        token.var.reset(token)
    except ValueError:
        return


def _add_trace(_: Any, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    found = trace.get_current_span().get_span_context()
    if found.is_valid:
        event["trace_id"] = f"{found.trace_id:032x}"
        event["span_id"] = f"{found.span_id:016x}"
    return event
