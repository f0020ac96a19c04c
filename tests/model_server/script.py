"""What the scripted model says: a list of steps, chosen by the last user message.

A message may hold a whole script, `[[scenario:{"steps": [{"text": "hi"}]}]]`, name one,
`[[scenario:bash {"command": "ls"}]]`, or simply begin with a name, `bash ls`. Any other
message is echoed. One step is one model call; the step after a tool call is the next one.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_OPEN = "[[scenario:"
_CLOSE = "]]"


@dataclass(frozen=True)
class ToolCall:
    """One tool the model wants to use."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """How a step goes wrong. The default is that it does not."""

    # Answer with this HTTP status instead of a stream.
    status: int = 0
    # How many calls of the step fail before it works; 0 means all of them.
    times: int = 0
    # Sent as Retry-After, in seconds.
    retry_after: float = 0
    # Close the connection after this many deltas.
    cut_after: int = -1
    # Put a broken line into the stream after this many deltas.
    bad_json_after: int = -1
    # Accept the request and never answer.
    hang: bool = False


@dataclass(frozen=True)
class Step:
    """One model call: reasoning, then text, then tool calls."""

    text: str = ""
    reasoning: str = ""
    tools: Sequence[ToolCall] = ()
    # The text is sent in this many deltas of about equal length; 0 means one per word.
    deltas: int = 0
    # Seconds between two deltas, and before the first one.
    interval: float = 0
    first_delay: float = 0
    # Each delta becomes "<nanoseconds> ": when the server sent it, for benches.
    stamped: bool = False
    usage: Mapping[str, int] = field(default_factory=dict)
    fault: Fault = Fault()

    def pieces(self) -> list[str]:
        """The text as it is sent, delta by delta."""
        if self.deltas:
            bounds = [len(self.text) * i // self.deltas for i in range(self.deltas + 1)]
            return [self.text[a:b] for a, b in itertools.pairwise(bounds)]
        return _words(self.text)


@dataclass(frozen=True)
class Script:
    """All model calls of one turn."""

    steps: Sequence[Step]

    def step(self, index: int) -> Step:
        """The step of that number; past the end the model only says that it is done."""
        return self.steps[index] if index < len(self.steps) else Step(text="Done.")

    def prompt(self, note: str = "") -> str:
        """A user message that makes the scripted model follow this script."""
        return f"{note}{_OPEN}{json.dumps({'steps': [_plain(s) for s in self.steps]})}{_CLOSE}"


def scenario(name: str, **parameters: Any) -> str:
    """A user message that asks for a named script."""
    return f"{_OPEN}{name} {json.dumps(parameters)}{_CLOSE}"


def script_for(message: str) -> Script:
    """The script that a user message asks for."""
    if _OPEN in message:
        asked = message.split(_OPEN, 1)[1].rsplit(_CLOSE, 1)[0].strip()
        return _written(json.loads(asked)) if asked.startswith("{") else _named(asked)
    word, _, rest = message.strip().partition(" ")
    if (make := _BY_WORD.get(word.lower())) and rest.strip():
        return make(rest.strip())
    return Script([Step(text=f"The scripted model heard: {message.strip()}")])


def _written(document: Mapping[str, Any]) -> Script:
    return Script([_step(step) for step in document["steps"]])


def _named(asked: str) -> Script:
    name, _, parameters = asked.partition(" ")
    return _BY_NAME[name](**(json.loads(parameters) if parameters.strip() else {}))


def _step(document: Mapping[str, Any]) -> Step:
    return Step(
        **{
            **document,
            "tools": [ToolCall(**tool) for tool in document.get("tools", ())],
            "fault": Fault(**document.get("fault", {})),
        }
    )


def _plain(step: Step) -> dict[str, Any]:
    """Only what differs from the default, so that prompts stay readable."""
    plain = dataclasses.asdict(step)
    default = dataclasses.asdict(Step())
    return {key: value for key, value in plain.items() if value != default[key]}


def _words(text: str) -> list[str]:
    pieces = [word + " " for word in text.split(" ")]
    if pieces:
        pieces[-1] = pieces[-1][:-1]
    return [piece for piece in pieces if piece]


def _say(text: str = "Hello.", **how: Any) -> Script:
    return Script([Step(text=text, **how)])


def _bash(command: str = "echo hello", before: str = "Calling. ", after: str = "Done.") -> Script:
    call = ToolCall("bash", {"command": command, "description": "Run a command"})
    return Script([Step(text=before, tools=[call]), Step(text=after)])


def _write(path: str = "note.txt", content: str = "hello\n") -> Script:
    call = ToolCall("write", {"filePath": path, "content": content})
    return Script([Step(text="Writing. ", tools=[call]), Step(text="Done.")])


def _edit(path: str = "note.txt", old: str = "hello", new: str = "goodbye") -> Script:
    read = ToolCall("read", {"filePath": path})
    call = ToolCall("edit", {"filePath": path, "oldString": old, "newString": new})
    return Script([Step(tools=[read]), Step(text="Editing. ", tools=[call]), Step(text="Done.")])


def _todo(items: Sequence[str] = ("first", "second")) -> Script:
    todos = [{"content": item, "status": "pending", "priority": "high"} for item in items]
    return Script([Step(tools=[ToolCall("todowrite", {"todos": todos})]), Step(text="Planned.")])


def _think(reasoning: str = "Let me think. ", text: str = "Done.") -> Script:
    return Script([Step(reasoning=reasoning, text=text)])


def _slow(deltas: int = 100, interval: float = 0.1) -> Script:
    text = "".join(f"word{i} " for i in range(deltas))
    return Script([Step(text=text, deltas=deltas, interval=interval)])


def _stamped(deltas: int = 100, interval: float = 0.05) -> Script:
    return Script([Step(text="." * deltas, deltas=deltas, interval=interval, stamped=True)])


def _fault(text: str = "Here we are at last.", **fault: Any) -> Script:
    return Script([Step(text=text, fault=Fault(**fault))])


_BY_NAME: Mapping[str, Callable[..., Script]] = {
    "say": _say,
    "bash": _bash,
    "write": _write,
    "edit": _edit,
    "todo": _todo,
    "think": _think,
    "slow": _slow,
    "stamped": _stamped,
    "fault": _fault,
}
_BY_WORD: Mapping[str, Callable[[str], Script]] = {"say": _say, "bash": _bash}
