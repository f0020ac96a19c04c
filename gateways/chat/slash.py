"""The slash commands of the chat, and their completion."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

Action = Callable[[str], Awaitable[None]]
Choices = Callable[[], Iterable[tuple[str, str]]]


def none() -> Iterable[tuple[str, str]]:
    """No choices."""
    return ()


@dataclass(frozen=True)
class Slash:
    """A slash command.

    Attributes:
        name: Its name with the slash.
        argument: What follows the name, for people. Empty when nothing does.
        does: What it does, in a line.
        action: Does it, given the argument.
        choices: The arguments that make sense, each with what it means.
    """

    name: str
    argument: str
    does: str
    action: Action
    choices: Choices = none


class SlashCompleter(Completer):
    """Completes the names of slash commands, and their arguments."""

    def __init__(self) -> None:
        self.commands: Mapping[str, Slash] = {}

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:  # noqa: ARG002
        """What could be meant."""
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        name, space, argument = text.partition(" ")
        if not space:
            for command in self.commands.values():
                if command.name.startswith(name):
                    yield Completion(command.name, start_position=-len(name), display_meta=command.does)
        elif known := self.commands.get(name):
            for choice, means in known.choices():
                if choice.startswith(argument):
                    yield Completion(choice, start_position=-len(argument), display_meta=means)


def find(commands: Mapping[str, Slash], text: str) -> tuple[Slash | None, str]:
    """The command that a line means, and its argument. A beginning is enough where only one command begins so."""
    name, _, argument = text.partition(" ")
    if found := commands.get(name):
        return found, argument.strip()
    begun = [command for command in commands.values() if command.name.startswith(name)]
    return (begun[0] if len(begun) == 1 else None), argument.strip()
