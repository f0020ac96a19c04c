"""What was said in a session before."""

from collections.abc import Iterator, Sequence

from orginabox_sdk.orginabox.api.v1 import Message, Role, ToolCall
from orginabox_sdk.orginabox.turn.v1 import ToolOutcome

from gateways.chat.view import Item, Text, Tool, ToolState
from gateways.chat.words import clean, one_line

YOU = "\u203a"
"""Stands before what the user said."""


def plain_history(messages: Sequence[Message]) -> Iterator[str]:
    """What was said, as lines of plain text."""
    for index, message in enumerate(messages):
        if index:
            yield ""
        for part in message.parts:
            if part.text is not None:
                yield f"{YOU} {clean(part.text)}" if message.role == Role.USER else clean(part.text)
            elif part.tool_call is not None:
                yield tool_line(part.tool_call)


def tool_line(call: ToolCall) -> str:
    """A tool call of the past in a line."""
    mark = "✓" if call.outcome == ToolOutcome.COMPLETED else "✗"
    failed = f": {one_line(call.error, 120)}" if call.error else ""
    return f"{mark} {call.tool} {one_line(call.title, 60)}".rstrip() + failed


def items(message: Message) -> Iterator[Item]:
    """What the agent said in a message, as the items that it was shown as."""
    for part in message.parts:
        if part.text is not None:
            yield Text(closed=True, part_id=message.message_id, text=clean(part.text))
        elif part.tool_call is not None:
            yield _tool(part.tool_call)


def said(message: Message) -> str:
    """What the user said in a message."""
    return "\n".join(clean(part.text) for part in message.parts if part.text is not None)


def _tool(call: ToolCall) -> Tool:
    states = {ToolOutcome.COMPLETED: ToolState.DONE, ToolOutcome.ERROR: ToolState.FAILED}
    return Tool(
        closed=True,
        call_id=call.call_id,
        tool=call.tool,
        title=one_line(call.title, 80),
        state=states.get(call.outcome, ToolState.STOPPED),
        output=clean(call.output),
        error=clean(call.error),
    )
