"""Tool calls in a line."""

from orginabox_sdk.orginabox.turn.v1 import ToolFinished, ToolOutcome, ToolStarted

from gateways.chat.words import duration, one_line

TITLE_WIDTH = 60
_TELLING = ("command", "filePath", "path", "pattern", "query", "url", "description")


def tool_title(started: ToolStarted) -> str:
    """What a call is about: its title, else the argument that says most."""
    if started.title:
        return one_line(started.title, TITLE_WIDTH)
    arguments = started.input.to_dict() if started.input is not None else {}
    found = [arguments[name] for name in _TELLING if isinstance(arguments.get(name), str)]
    return one_line(str(found[0]), TITLE_WIDTH) if found else ""


def ended_line(finished: ToolFinished, title: str = "") -> str:
    """A call that has ended: `bash ls -la (0.4s)`, and why it failed where it did."""
    about = one_line(finished.title or title, TITLE_WIDTH)
    took = f" ({duration(finished.duration.total_seconds())})" if finished.duration is not None else ""
    failed = f": {one_line(finished.error or 'failed', 200)}" if finished.outcome == ToolOutcome.ERROR else ""
    return f"{finished.tool} {about}".rstrip() + took + failed
