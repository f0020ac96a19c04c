"""What is logged, and what is not."""

import json
from collections.abc import Iterator

import pytest
import structlog

from services.kit import telemetry


@pytest.fixture(autouse=True)
def configured(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Logs as a service writes them, for this test only."""
    telemetry.configure("test")
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_a_fault_is_logged_without_the_values_around_it(capsys: pytest.CaptureFixture[str]) -> None:
    def open_door(password: str) -> None:
        raise ValueError("the door is shut")

    try:
        open_door("hunter2")
    except ValueError as error:
        telemetry.log().error("call failed", exc_info=error)
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert json.loads(line)["exception"][0]["exc_value"] == "the door is shut"
    assert "hunter2" not in line


def test_a_line_names_its_service_and_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    with telemetry.span("work", parent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"):
        telemetry.log().info("something happened", job_id="7")
    line = json.loads(capsys.readouterr().err.strip().splitlines()[-1])
    assert line["service"] == "test"
    assert line["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert line["job_id"] == "7"
