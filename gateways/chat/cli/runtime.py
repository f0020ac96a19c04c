"""`oiab runtime`: which models turns use."""

from typing import TYPE_CHECKING, Annotated

import typer

from gateways.chat.cli.running import print_json, run, tell

if TYPE_CHECKING:
    from orginabox_sdk.orginabox.runtime.v1 import Model, RuntimeStatus

    from gateways.chat.place import Place
    from gateways.sdk import Client

DEMO = "This is the demo model: its answers are weak, and it has no tools. A real one: oiab provider add anthropic"
STAGED = "Changes are staged that turns do not use yet. Apply them: oiab runtime apply"

app = typer.Typer(no_args_is_help=True, help="Which models turns use.", rich_markup_mode=None)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]


@app.command()
def status(as_json: JsonOption = False) -> None:
    """Tell which models turns use, and whether changes wait to be applied."""

    async def main(client: "Client", _: "Place") -> None:
        found = (await client.providers.get_runtime_status()).status
        if found is None:
            return
        if as_json:
            print_json(found)
        else:
            _show(found)

    run(main)


@app.command()
def apply(as_json: JsonOption = False) -> None:
    """Let turns use the providers as they are now. Turns that run are not touched."""

    async def main(client: "Client", _: "Place") -> None:
        answer = await client.providers.apply_runtime()
        if as_json:
            print_json(answer)
            return
        tell("Applied." if answer.changed else "Nothing had changed.")
        if answer.status is not None:
            _show(answer.status)

    run(main)


def model_name(model: "Model | None") -> str:
    """A model as people name it."""
    return f"{model.provider_id}/{model.model_id}" if model is not None else "none"


def _show(status: "RuntimeStatus") -> None:
    from gateways.chat.words import ago

    others = [model_name(model) for model in status.models if model != status.default_model]
    typer.echo(f"default model  {model_name(status.default_model)}")
    for index, name in enumerate(others):
        typer.echo(f"{'' if index else 'also':<13}  {name}")
    applied = f"{status.applied_revision[:12]}, {ago(status.apply_time)}" if status.applied_revision else "never"
    typer.echo(f"applied        {applied}")
    if not status.in_sync:
        typer.echo(f"staged         {status.staged_revision[:12]}")
        tell(STAGED, fg="yellow")
    if status.demo:
        tell(DEMO, fg="yellow")
