"""`oiab provider`: where models are called, and with which key."""

# ruff: noqa: D301 - the mark \b keeps the lines after it as they are

import os
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from gateways.chat.cli.running import fail, pages, print_json, run, tell
from gateways.chat.cli.table import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orginabox_sdk.orginabox.runtime.v1 import Provider

    from gateways.chat.place import Place
    from gateways.sdk import Client

USAGE = 2
ANY_KEY = "OIAB_PROVIDER_KEY"
APPLY_HINT = "Turns use it after: oiab runtime apply"

app = typer.Typer(no_args_is_help=True, help="Where models are called, and with which key.", rich_markup_mode=None)


class Kind(StrEnum):
    """What a provider speaks."""

    ANTHROPIC = "anthropic"
    OPENAI = "openai"
    AZURE = "azure"
    OPENAI_COMPATIBLE = "openai-compatible"
    OLLAMA = "ollama"


KEY_VARIABLES = {
    Kind.ANTHROPIC: "ANTHROPIC_API_KEY",
    Kind.OPENAI: "OPENAI_API_KEY",
    Kind.AZURE: "AZURE_OPENAI_API_KEY",
}
# The others work without one, or may.
NEEDS_ADDRESS = (Kind.AZURE, Kind.OPENAI_COMPATIBLE)
NEEDS_MODELS = (Kind.AZURE, Kind.OPENAI_COMPATIBLE, Kind.OLLAMA)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The provider; `oiab provider list` shows them.")]
UrlOption = Annotated[str, typer.Option("--base-url", metavar="URL", help="The address of its API.")]
ModelsOption = Annotated[
    list[str] | None,
    typer.Option("--model", "-m", metavar="MODEL", help="A model that may be used; say it again for more."),
]
DefaultOption = Annotated[
    str, typer.Option("--default-model", metavar="MODEL", help="The model when none is asked for; else the first.")
]


@app.command()
def add(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help=f"What it speaks: {', '.join(Kind)}.")],
    name: Annotated[str, typer.Option("--name", help="What to call it; its kind when you do not say.")] = "",
    base_url: UrlOption = "",
    models: ModelsOption = None,
    default_model: DefaultOption = "",
    preferred: Annotated[bool, typer.Option("--preferred", help="Use it when none is asked for.")] = False,
) -> None:
    """Add a provider. Turns use it after `oiab runtime apply`.

    The key is asked for, and not shown. Or put it into ANTHROPIC_API_KEY, OPENAI_API_KEY, AZURE_OPENAI_API_KEY or, for
    any kind, OIAB_PROVIDER_KEY. It is never an argument: those can be seen by others on the machine.

    \b
      oiab provider add anthropic
      oiab provider add azure --base-url https://contoso.openai.azure.com --model gpt-5
      oiab provider add openai-compatible --name lab --base-url http://10.0.0.5:8000/v1 --model qwen3
      oiab provider add ollama --model llama3.2
    """
    address = base_url or (_asked("Address of its API", "--base-url") if kind in NEEDS_ADDRESS else "")
    chosen = models or (_asked("Models, with commas between", "--model").split(",") if kind in NEEDS_MODELS else [])
    key = read_key(KEY_VARIABLES.get(kind, ""), required=kind in KEY_VARIABLES, skip=kind is Kind.OLLAMA)

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import CreateProviderRequest
        from orginabox_sdk.orginabox.runtime.v1 import Provider, ProviderKind

        provider = Provider(
            provider_id=name or kind.value,
            kind=ProviderKind[kind.name],
            base_url=address,
            models=[model.strip() for model in chosen if model.strip()],
            default_model=default_model,
            preferred=preferred,
        )
        answer = await client.providers.create_provider(CreateProviderRequest(provider=provider, api_key=key))
        made = answer.provider or provider
        tell(f"Added {made.provider_id} with {', '.join(made.models)}. {APPLY_HINT}")

    run(main)


@app.command("list")
def list_providers(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False) -> None:
    """List the providers. Keys are never shown."""

    async def main(client: "Client", _: "Place") -> None:
        found = await providers(client)
        if as_json:
            print_json(found)
        elif not found:
            tell("No providers yet. Add one: oiab provider add anthropic")
        else:
            print_table(
                ("name", "kind", "models", "preferred", "key", "address"), [_row(provider) for provider in found]
            )

    run(main)


@app.command()
def update(
    name: NameArgument,
    base_url: UrlOption = "",
    models: ModelsOption = None,
    default_model: DefaultOption = "",
    preferred: Annotated[
        bool | None, typer.Option("--preferred/--not-preferred", help="Whether to use it when none is asked for.")
    ] = None,
    key: Annotated[bool, typer.Option("--key", help=f"Give it a new key: asked for, or from {ANY_KEY}.")] = False,
) -> None:
    """Change what you name, and leave the rest as it is. Turns use it after `oiab runtime apply`.

    \b
      oiab provider update anthropic --key
      oiab provider update anthropic --model claude-sonnet-4-5 --model claude-haiku-4-5 --preferred
    """
    changes = {"base_url": base_url, "models": models, "default_model": default_model, "preferred": preferred}
    named = {field: value for field, value in changes.items() if value not in ("", None)}
    if not named and not key:
        raise typer.BadParameter("say what to change; see --help")
    new_key = read_key("", required=True) if key else ""

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.google.protobuf import FieldMask
        from orginabox_sdk.orginabox.api.v1 import UpdateProviderRequest
        from orginabox_sdk.orginabox.runtime.v1 import Provider

        provider = Provider(provider_id=name, **named)  # type: ignore[arg-type]
        mask = FieldMask(paths=sorted(named)) if named else None
        request = UpdateProviderRequest(provider=provider, update_mask=mask, api_key=new_key)
        await client.providers.update_provider(request)
        tell(f"Changed {name}. {APPLY_HINT}")

    run(main)


@app.command()
def remove(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a provider with its key. Turns stop using it after `oiab runtime apply`."""
    if not yes:
        typer.confirm(f"Remove {name} with its key?", abort=True, err=True)

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import DeleteProviderRequest

        await client.providers.delete_provider(DeleteProviderRequest(provider_id=name))
        tell(f"Removed {name}. Turns stop using it after: oiab runtime apply")

    run(main)


async def providers(client: "Client") -> "list[Provider]":
    """All providers."""
    from orginabox_sdk.orginabox.api.v1 import ListProvidersRequest

    async def fetch(token: str, size: int) -> "tuple[Sequence[Provider], str]":
        page = await client.providers.list_providers(ListProvidersRequest(page_size=size, page_token=token))
        return page.providers, page.next_page_token

    return [provider async for provider in pages(fetch, 0)]


def read_key(variable: str, *, required: bool, skip: bool = False) -> str:
    """A key from the environment, else from the person at the terminal, unseen."""
    for name in filter(None, (ANY_KEY, variable)):
        if found := os.environ.get(name, "").strip():
            tell(f"With the key in {name}.")
            return found
    if skip or (not required and not sys.stdin.isatty()):
        return ""
    if not sys.stdin.isatty():
        fail(f"There is no terminal to ask for the key at. Put it into {variable or ANY_KEY}.", USAGE)
    label = "Key" if required else "Key (Enter for none)"
    return str(
        typer.prompt(label, default=None if required else "", hide_input=True, show_default=False, err=True)
    ).strip()


def _asked(label: str, option: str) -> str:
    """What an option would have said, from the person at the terminal."""
    if not sys.stdin.isatty():
        raise typer.BadParameter("it is needed for this kind", param_hint=option)
    return str(typer.prompt(label, err=True)).strip()


def _row(provider: "Provider") -> tuple[str, ...]:
    default = provider.default_model or (provider.models[0] if provider.models else "")
    models = ", ".join(
        f"{model}*" if model == default and len(provider.models) > 1 else model for model in provider.models
    )
    kind = str(provider.kind).lower().replace("_", "-")
    key = "built in" if provider.built_in else "yes" if provider.has_api_key else "no"
    preferred = "yes" if provider.preferred else "no"
    return provider.provider_id, kind, models, preferred, key, provider.base_url or "-"
