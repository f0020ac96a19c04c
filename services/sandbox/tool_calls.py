"""A tool call of the agent: what it is about, what it printed, what it changed, and how it ended."""

from collections.abc import Iterator, Mapping
from typing import Any

from services.sandbox import agent_events as said_by
from services.sandbox import event as events
from services.sandbox.agent_values import TEXT_LIMIT, short

EDITING_TOOLS = frozenset({"edit", "write", "apply_patch", "patch"})
NO_OUTPUT = "(no output)"
_OVERLAP = 256
_YEAR = 366 * 86400.0


def new_output(told: str, output: str) -> str:
    """What an output has that was not told. opencode shows only the end of a long one, so the beginning may be gone."""
    if output.startswith(told):
        return output[len(told) :]
    tail = told[-_OVERLAP:]
    found = output.rfind(tail)
    return output[found + len(tail) :] if found >= 0 else output


def finished(part: said_by.Part, state: said_by.ToolState) -> events.ToolFinished:
    """How a call ended."""
    failed = state.status == "error"
    return events.ToolFinished(
        call_id=part.id,
        tool=part.tool,
        title=short(state.title, 200) if state.title else title_of(part, state.input),
        output="" if failed else short(state.output),
        error=short(state.error or "The tool failed.") if failed else None,
        seconds=min(max(0.0, ((state.time.end or 0) - state.time.start) / 1000), _YEAR) if state.time.end else 0.0,
    )


def title_of(part: said_by.Part, given: Mapping[str, Any]) -> str:
    """What a call is about, by its arguments."""
    told = (given.get(name) for name in ("description", "filePath", "pattern", "query", "url"))
    title = next((text for text in told if isinstance(text, str) and text), "")
    return short(title, 200) if title != part.tool else ""


def asked_for(said: said_by.PermissionRequested) -> str:
    """What a permission is asked for."""
    told = (said.metadata.get(name) for name in ("command", "filepath", "url"))
    return next((text for text in told if isinstance(text, str) and text), ", ".join(said.patterns))


def edited_paths(metadata: Mapping[str, Any]) -> Iterator[str]:
    """The files that an editing tool says it changed."""
    files = metadata.get("files")
    found = files if isinstance(files, list) else [metadata.get("filediff"), metadata.get("filepath")]
    told: set[str] = set()
    for item in found:
        path = item.get("filePath") or item.get("file") if isinstance(item, dict) else item
        if isinstance(path, str) and path not in told:
            told.add(path)
            yield path


def shortened(value: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments small enough to be an event: a whole file may be one of them."""
    return {name: short(item, TEXT_LIMIT // 4) if isinstance(item, str) else item for name, item in value.items()}
