"""The settings as a reader sees them, read from the classes that read them."""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import AliasChoices, ByteSize, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

ROOT = Path(__file__).parents[2]
_PLAIN: Mapping[Any, str] = {
    bool: "true or false",
    int: "number",
    float: "number",
    str: "text",
    Path: "path",
    SecretStr: "secret text",
    ByteSize: "size",
}


@dataclass(frozen=True)
class Setting:
    """One setting."""

    variable: str
    kind: str
    default: str
    text: str


@dataclass(frozen=True)
class Group:
    """The settings of one part."""

    part: str
    text: str
    settings: Sequence[Setting]


def read_settings(root: Path) -> list[Group]:
    """The settings of every part: those of the installation, those that all services share, then each service's own."""
    files = [*(root / "services").glob("*/settings.py"), root / "services" / "kit" / "keyring" / "settings.py"]
    parts = sorted((".".join(file.parent.relative_to(root / "services").parts) for file in files), key=_rank)
    return [group for part in parts for group in _groups(part)]


def _rank(part: str) -> tuple[int, str]:
    return ({"box": 0, "kit": 1, "kit.keyring": 2}.get(part, 3), part)


def _groups(part: str) -> Iterator[Group]:
    module = import_module(f"services.{part}.settings")
    for found in vars(module).values():
        if inspect.isclass(found) and issubclass(found, BaseSettings) and found.__module__ == module.__name__:
            own = [name for name in found.model_fields if name in found.__annotations__]
            told = _docstrings(found)
            settings = [_setting(found, name, told.get(name, "")) for name in own]
            yield Group(part, inspect.getdoc(found) or "", settings)


def _setting(owner: type[BaseSettings], name: str, told: str) -> Setting:
    field = owner.model_fields[name]
    return Setting(
        variable=_variable(owner, name, field),
        kind=_kind(field.annotation),
        default=_default(field),
        text=" ".join((field.description or told).split()),
    )


def _variable(owner: type[BaseSettings], name: str, field: FieldInfo) -> str:
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        alias = str(alias.choices[0])
    return str(alias) if alias else f"{owner.model_config.get('env_prefix', '')}{name}".upper()


def _kind(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin in {Union, UnionType}:
        return _kind(next(each for each in get_args(annotation) if each is not type(None)))
    if origin is Literal:
        return " or ".join(f"`{each}`" for each in get_args(annotation))
    return _PLAIN.get(annotation, "text")


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined or value is None or value == "" or isinstance(value, SecretStr):
        return ""
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if field.annotation is ByteSize:
        value = value.human_readable()
    # The same on every machine, wherever the repository lies.
    return f"`{value}`".replace(f"{ROOT}/", "").replace(str(Path.home()), "~")


def _docstrings(owner: type) -> dict[str, str]:
    """The text below each attribute of a class."""
    body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
    if not isinstance(body, ast.ClassDef):
        return {}
    pairs = zip(body.body, body.body[1:], strict=False)
    return {
        attribute.target.id: str(below.value.value)
        for attribute, below in pairs
        if isinstance(attribute, ast.AnnAssign)
        and isinstance(attribute.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
    }
