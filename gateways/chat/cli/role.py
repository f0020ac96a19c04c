"""`oiab role`: what people may do."""

from typing import TYPE_CHECKING, Annotated

import typer

from gateways.chat.cli.running import pages, print_json, run, tell
from gateways.chat.cli.signin import permission_names
from gateways.chat.cli.table import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orginabox_sdk.orginabox.api.v1 import Permissions, UserRole

    from gateways.chat.place import Place
    from gateways.sdk import Client

HELP = """
What people may do. Somebody's permissions are those of all their roles; what one role denies is denied, and the lowest
limit counts. Nobody gives what they lack. A change counts at once.

\b
  oiab role list
  oiab role create research --allow agents.read --allow agents.run --tool '*' --deny-tool bash --monthly-limit 50
  oiab role assign ada research
  oiab role unassign ada research
"""

app = typer.Typer(no_args_is_help=True, help=HELP, rich_markup_mode=None)

RoleArgument = Annotated[str, typer.Argument(metavar="ROLE", help="Its name or id; `oiab role list` shows them.")]
UserArgument = Annotated[str, typer.Argument(metavar="USER", help="Their handle or id; `oiab user list` shows them.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]
AllowOption = Annotated[
    list[str] | None,
    typer.Option("--allow", "-a", metavar="PERMISSION", help="A permission, such as agents.run; again for more."),
]
ToolOption = Annotated[
    list[str] | None, typer.Option("--tool", metavar="TOOL", help="A tool that is allowed; '*' for all.")
]
DenyToolOption = Annotated[
    list[str] | None, typer.Option("--deny-tool", metavar="TOOL", help="A tool that is denied, whatever allows it.")
]
TemplateOption = Annotated[
    list[str] | None, typer.Option("--template", metavar="SLUG", help="A template that may be used; '*' for all.")
]
MonthlyOption = Annotated[
    float | None, typer.Option("--monthly-limit", metavar="USD", help="What model calls of a month may cost.")
]
TurnOption = Annotated[float | None, typer.Option("--turn-limit", metavar="USD", help="What one turn may cost.")]
DescriptionOption = Annotated[str, typer.Option("--description", help="What the role is for.")]


@app.command("list")
def list_roles(as_json: JsonOption = False) -> None:
    """List the roles, those that came with the box first."""

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import ListRolesRequest

        async def fetch(token: str, size: int) -> "tuple[Sequence[UserRole], str]":
            page = await client.roles.list_roles(ListRolesRequest(page_size=size, page_token=token))
            return page.roles, page.next_page_token

        found = [role async for role in pages(fetch, 0)]
        if as_json:
            print_json(found)
        else:
            print_table(("name", "built in", "permissions", "for"), [_row(role) for role in found])

    run(main)


@app.command()
def show(role: RoleArgument, as_json: JsonOption = False) -> None:
    """Show what the holders of a role may do."""

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import GetRoleRequest

        found = (await client.roles.get_role(GetRoleRequest(role_id=role))).role
        if found is None:
            return
        if as_json:
            print_json(found)
            return
        for name, value in _details(found):
            typer.echo(f"{name:<15}{value}")

    run(main)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it, in small letters.")],
    allow: AllowOption = None,
    tools: ToolOption = None,
    deny_tools: DenyToolOption = None,
    templates: TemplateOption = None,
    monthly_limit: MonthlyOption = None,
    turn_limit: TurnOption = None,
    description: DescriptionOption = "",
) -> None:
    """Make a role."""

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import CreateRoleRequest, UserRole

        wanted = _permissions(allow, tools, deny_tools, templates, (monthly_limit, turn_limit))
        role = UserRole(name=name, description=description, permissions=wanted)
        await client.roles.create_role(CreateRoleRequest(role=role))
        tell(f"Made {name}. Give it to somebody: oiab role assign USER {name}")

    run(main)


@app.command()
def update(
    role: RoleArgument,
    allow: AllowOption = None,
    tools: ToolOption = None,
    deny_tools: DenyToolOption = None,
    templates: TemplateOption = None,
    monthly_limit: MonthlyOption = None,
    turn_limit: TurnOption = None,
    description: DescriptionOption = "",
    name: Annotated[str, typer.Option("--name", help="A new name.")] = "",
) -> None:
    """Change a role. When you say any permission, tool, template or limit, say all: they take the place of the old."""
    said = (allow, tools, deny_tools, templates, monthly_limit, turn_limit)
    changes = any(value is not None for value in said)
    if not changes and not description and not name:
        raise typer.BadParameter("say what to change; see --help")

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.google.protobuf import FieldMask
        from orginabox_sdk.orginabox.api.v1 import GetRoleRequest, UpdateRoleRequest, UserRole

        found = (await client.roles.get_role(GetRoleRequest(role_id=role))).role
        wanted = _permissions(allow, tools, deny_tools, templates, (monthly_limit, turn_limit)) if changes else None
        fields = {"name": bool(name), "description": bool(description), "permissions": changes}
        # The contract wants a name in any case.
        changed = UserRole(
            role_id=role, name=name or (found.name if found else ""), description=description, permissions=wanted
        )
        mask = FieldMask(paths=sorted(field for field, said in fields.items() if said))
        await client.roles.update_role(UpdateRoleRequest(role=changed, update_mask=mask))
        tell(f"Changed {role}. It counts for its holders now.")

    run(main)


@app.command()
def delete(role: RoleArgument, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Delete a role. Its holders lose it."""
    if not yes:
        typer.confirm(f"Delete {role}, and take it from all who have it?", abort=True, err=True)

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import DeleteRoleRequest

        await client.roles.delete_role(DeleteRoleRequest(role_id=role))
        tell(f"Deleted {role}.")

    run(main)


@app.command()
def assign(user: UserArgument, role: RoleArgument) -> None:
    """Give a user a role."""

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import AssignRoleRequest

        found = (await client.users.assign_role(AssignRoleRequest(user_id=user, role_id=role))).user
        tell(f"{user} has now: {', '.join(found.roles) if found else role}.")

    run(main)


@app.command()
def unassign(user: UserArgument, role: RoleArgument) -> None:
    """Take a role from a user."""

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import UnassignRoleRequest

        found = (await client.users.unassign_role(UnassignRoleRequest(user_id=user, role_id=role))).user
        left = ", ".join(found.roles) if found else ""
        tell(f"{user} has now: {left or 'no roles'}.")

    run(main)


def _permissions(
    allow: list[str] | None,
    tools: list[str] | None,
    deny_tools: list[str] | None,
    templates: list[str] | None,
    limits: tuple[float | None, float | None],
) -> "Permissions":
    """The permissions that the options name.

    Raises:
        BadParameter: One of them does not exist.
    """
    from orginabox_sdk.orginabox.api.v1 import (
        AdminPermissions,
        AgentPermissions,
        CostLimits,
        MemoryPermissions,
        Permissions,
        ToolPermissions,
    )

    agents = AgentPermissions(use_templates=list(templates or ()))
    groups: dict[str, object] = {"agents": agents, "memory": MemoryPermissions(), "admin": AdminPermissions()}
    for name in allow or ():
        group, _, flag = name.partition(".")
        if not isinstance(getattr(groups.get(group), flag, None), bool):
            told = f"{name} is no permission; `oiab role show owner` lists them"
            raise typer.BadParameter(told, param_hint="--allow")
        setattr(groups[group], flag, True)
    return Permissions(
        **groups,  # type: ignore[arg-type]
        tools=ToolPermissions(allowed=list(tools or ()), denied=list(deny_tools or ())),
        cost=CostLimits(monthly_limit_usd=limits[0], per_request_limit_usd=limits[1]),
    )


def _row(role: "UserRole") -> tuple[str, ...]:
    from gateways.chat.words import one_line

    names = permission_names(role.permissions)
    return role.name, "yes" if role.built_in else "no", str(len(names)), one_line(role.description, 60) or "-"


def _details(role: "UserRole") -> list[tuple[str, str]]:
    from gateways.chat.words import clean

    found = role.permissions
    tools, agents, cost = (found.tools, found.agents, found.cost) if found else (None, None, None)
    monthly = cost.monthly_limit_usd if cost else None
    turn = cost.per_request_limit_usd if cost else None
    lines = [
        ("id", role.role_id),
        ("name", role.name),
        ("for", clean(role.description)),
        ("built in", "yes" if role.built_in else "no"),
        ("may", ", ".join(permission_names(found)) or "nothing"),
        ("templates", ", ".join(agents.use_templates) if agents else ""),
        ("tools", ", ".join(tools.allowed) if tools else ""),
        ("denied tools", ", ".join(tools.denied) if tools else ""),
        ("monthly limit", f"${monthly:g}" if monthly is not None else ""),
        ("turn limit", f"${turn:g}" if turn is not None else ""),
    ]
    return [(name, value) for name, value in lines if value]
