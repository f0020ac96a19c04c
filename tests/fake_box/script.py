"""What a prompt makes of its turn.

| prompt | its turn |
|---|---|
| `bash ls -la` | calls the tool `bash`, then speaks |
| `ask rm -rf x` | asks to run the command first |
| `think` | reasons, then speaks |
| `slow 50` | says 50 words, 20 a second |
| `markdown` | speaks in headings, lists, a table and code |
| `code 100` | speaks in 100 lines of code |
| `todo` | writes a list of tasks and edits a file |
| `fail` | ends with an error |
| `cut 3 ...` | as `...`, and every stream of it is cut after 3 events |
| `hush 3 ...` | as `...`, and every stream of it ends after 3 events without an error |
| `wait` | says one word, then nothing until it is aborted |
| anything else | is said back |
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from orginabox.errors.v1 import error_reason_pb2
from orginabox.turn.v1 import turn_event_pb2 as pb

if TYPE_CHECKING:
    from tests.fake_box.state import FakeTurn

MARKDOWN = """# A report

The **first** paragraph is long enough that it wraps in a terminal of eighty columns, and then it goes on for a while.

- one
- two
  - two and a half
- three

| name | size |
|---|---|
| alpha | 1 |
| beta | 22 |

```python
def hello() -> str:
    return "hello"
```

The *last* paragraph, with `code` in it.
"""


async def events(turn: "FakeTurn") -> AsyncIterator[pb.TurnEvent]:
    """The events of a turn without their numbers."""
    yield pb.TurnEvent(started=pb.TurnStarted(provider_id=turn.model[0], model_id=turn.model[1]))
    scene = _scene(turn)
    async for event in scene:
        yield event
        if event.HasField("failed"):
            return
    yield pb.TurnEvent(usage=pb.Usage(input_tokens=1200, output_tokens=34, cost_micro_usd=1500))
    yield pb.TurnEvent(completed=pb.TurnCompleted())


def _scene(turn: "FakeTurn") -> AsyncIterator[pb.TurnEvent]:
    text = turn.text.strip()
    if turn.cut_after:
        text = text.split(" ", 2)[2]
    word, _, rest = text.partition(" ")
    scenes: dict[str, Callable[[], AsyncIterator[pb.TurnEvent]]] = {
        "bash": lambda: _bash(rest),
        "ask": lambda: _ask(turn, rest),
        "think": _think,
        "slow": lambda: _speech(" ".join(f"word{number}" for number in range(int(rest))), pause=0.05),
        "markdown": lambda: _speech(MARKDOWN, pause=0.02),
        "code": lambda: _speech(_code(int(rest)), pause=0.005),
        "todo": _todo,
        "fail": _fail,
        "wait": _wait,
    }
    return scenes.get(word, lambda: _speech(f"You said: {text}"))()


def _code(lines: int) -> str:
    body = "\n".join(f"value_{number} = {number} " for number in range(lines))
    return f"Here it is:\n\n```python\n{body}\n```\n\nThat was it."


async def _speech(text: str, *, part: str = "p1", pause: float = 0.0) -> AsyncIterator[pb.TurnEvent]:
    for index, piece in enumerate(text.split(" ")):
        yield pb.TurnEvent(text_delta=pb.TextDelta(part_id=part, text=piece if index == 0 else f" {piece}"))
        await asyncio.sleep(pause)


async def _bash(command: str, call: str = "call1") -> AsyncIterator[pb.TurnEvent]:
    async for event in _speech("Let me look.", part="p0"):
        yield event
    yield _started(call, command)
    for number in range(1, 4):
        await asyncio.sleep(0.05)
        yield pb.TurnEvent(tool_output=pb.ToolOutput(call_id=call, text=f"line {number}\n"))
    yield _finished(call, command)
    async for event in _speech("Three lines.", part="p1"):
        yield event


async def _ask(turn: "FakeTurn", command: str) -> AsyncIterator[pb.TurnEvent]:
    yield _started("call1", command)
    yield pb.TurnEvent(
        permission_asked=pb.PermissionAsked(
            permission_id="per_1",
            permission="bash",
            title=command,
            patterns=[command],
            always_patterns=[f"{command.partition(' ')[0]} *"],
            call_id="call1",
        )
    )
    reply, message = await turn.reply("per_1")
    yield pb.TurnEvent(permission_replied=pb.PermissionReplied(permission_id="per_1", reply=reply))
    if reply == pb.PERMISSION_REPLY_REJECT:
        refused = pb.ToolFinished(call_id="call1", tool="bash", outcome=pb.TOOL_OUTCOME_ERROR, error="refused")
        yield pb.TurnEvent(tool_finished=refused)
        async for event in _speech(f"Then not: {message}" if message else "Then not."):
            yield event
        return
    yield _finished("call1", command)
    async for event in _speech("Done as permitted."):
        yield event


async def _think() -> AsyncIterator[pb.TurnEvent]:
    yield pb.TurnEvent(reasoning_delta=pb.ReasoningDelta(part_id="r1", text="I wonder "))
    await asyncio.sleep(0.05)
    yield pb.TurnEvent(reasoning_delta=pb.ReasoningDelta(part_id="r1", text="what to say."))
    async for event in _speech("A thought."):
        yield event


async def _todo() -> AsyncIterator[pb.TurnEvent]:
    items = [
        pb.TodoItem(content="Read", status="completed", priority="high"),
        pb.TodoItem(content="Write", status="in_progress", priority="low"),
        pb.TodoItem(content="Rest", status="pending", priority="low"),
    ]
    yield pb.TurnEvent(todo_updated=pb.TodoUpdated(items=items))
    yield pb.TurnEvent(file_edited=pb.FileEdited(path="/workspace/a.txt"))
    async for event in _speech("Written."):
        yield event


async def _fail() -> AsyncIterator[pb.TurnEvent]:
    async for event in _speech("I try."):
        yield event
    failed = pb.TurnFailed(
        reason=error_reason_pb2.ERROR_REASON_PROVIDER_UNAUTHENTICATED,
        message="the provider did not accept its key; set a new one with `oiab provider update`",
    )
    yield pb.TurnEvent(failed=failed)


async def _wait() -> AsyncIterator[pb.TurnEvent]:
    async for event in _speech("Waiting"):
        yield event
    await asyncio.Event().wait()


def _started(call: str, command: str) -> pb.TurnEvent:
    arguments = Struct()
    arguments["command"] = command
    return pb.TurnEvent(tool_started=pb.ToolStarted(call_id=call, tool="bash", title=command, input=arguments))


def _finished(call: str, command: str) -> pb.TurnEvent:
    finished = pb.ToolFinished(
        call_id=call,
        tool="bash",
        outcome=pb.TOOL_OUTCOME_COMPLETED,
        title=command,
        output="line 1\nline 2\nline 3\n",
        duration=Duration(nanos=400_000_000),
    )
    return pb.TurnEvent(tool_finished=finished)
