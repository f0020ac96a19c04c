"""What is logged, and what is not."""

import io
import json
from collections.abc import Iterator

import pytest
import structlog

from services.kit import telemetry


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """The log, written as a service writes it."""
    stream = io.StringIO()
    telemetry.configure("test", stream=stream)
    yield stream
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_a_fault_is_logged_without_the_values_around_it(written: io.StringIO) -> None:
    def open_door(password: str) -> None:
        raise ValueError("the door is shut")

    try:
        open_door("hunter2")
    except ValueError as error:
        telemetry.log().error("call failed", exc_info=error)
    line = written.getvalue().strip().splitlines()[-1]
    assert json.loads(line)["exception"][0]["exc_value"] == "the door is shut"
    assert "hunter2" not in line


def test_a_line_names_its_service_and_its_trace(written: io.StringIO) -> None:
    with telemetry.span("work", parent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"):
        telemetry.log().info("something happened", job_id="7")
    line = json.loads(written.getvalue().strip().splitlines()[-1])
    assert line["service"] == "test"
    assert line["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert line["job_id"] == "7"
