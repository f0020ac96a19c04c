"""The command line as a reader sees it, read from the program itself."""

import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import typer

KEEPS_LINES = "\b"


@dataclass(frozen=True)
class Parameter:
    """An argument or an option."""

    spelling: str
    text: str
    default: str
    required: bool


@dataclass(frozen=True)
class Command:
    """One command."""

    path: str
    text: str
    epilog: str
    arguments: Sequence[Parameter]
    options: Sequence[Parameter]
    group: bool

    @property
    def usage(self) -> str:
        """How it is called."""
        options = " [OPTIONS]" if self.options else ""
        arguments = "".join(f" {each.spelling if each.required else f'[{each.spelling}]'}" for each in self.arguments)
        return f"{self.path}{options}{arguments}"


def read_commands(app: typer.Typer, name: str) -> list[Command]:
    """Every command of a program, in the order of its help."""
    return list(_walk(typer.main.get_command(app), name))


def _walk(command: Any, path: str) -> Iterator[Command]:
    if command.hidden:
        return
    shown = [each for each in command.params if not getattr(each, "hidden", False) and each.name != "help"]
    children = getattr(command, "commands", None)
    yield Command(
        path=path,
        text=_paragraphs(command.help),
        epilog=_paragraphs(command.epilog),
        arguments=[_argument(each) for each in shown if each.param_type_name == "argument"],
        options=[_option(each) for each in shown if each.param_type_name == "option"],
        group=children is not None,
    )
    for child in (children or {}).values():
        yield from _walk(child, f"{path} {child.name}")


def _argument(parameter: Any) -> Parameter:
    more = "..." if parameter.nargs == -1 else ""
    spelling = f"{parameter.metavar or parameter.name.upper()}{more}"
    return Parameter(spelling, _help(parameter), _default(parameter), parameter.required)


def _option(parameter: Any) -> Parameter:
    names = ", ".join(f"`{each}`" for each in (*sorted(parameter.opts, key=len), *parameter.secondary_opts))
    value = "" if parameter.is_flag or parameter.count else f" `{parameter.metavar or _kind(parameter)}`"
    return Parameter(names + value, _help(parameter), _default(parameter), parameter.required)


def _kind(parameter: Any) -> str:
    return "NUMBER" if parameter.type_descriptor.annotation in {int, float} else "TEXT"


def _help(parameter: Any) -> str:
    """What it is, with the values that it can have where these are few."""
    annotation = parameter.type_descriptor.annotation
    if not (inspect.isclass(annotation) and issubclass(annotation, Enum)):
        return parameter.help or ""
    values = ", ".join(f"`{each.value}`" for each in annotation)
    return f"{parameter.help or ''} One of {values}.".strip()


def _default(parameter: Any) -> str:
    value = parameter.default
    if value is None or value == () or callable(value) or isinstance(value, bool):
        return ""
    return f"`{getattr(value, 'value', value)}`" if str(value) else ""


def _paragraphs(text: str | None) -> str:
    """The paragraphs of a help text as Markdown; one that begins with the mark of click keeps its lines."""
    return "\n\n".join(map(_paragraph, re.split(r"\n\s*\n", inspect.cleandoc(text or "")))).strip()


def _paragraph(text: str) -> str:
    if text.startswith(KEEPS_LINES):
        return f"```text\n{textwrap.dedent(text.removeprefix(KEEPS_LINES).strip(chr(10)))}\n```"
    return " ".join(text.split())
