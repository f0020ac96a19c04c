"""`oiab tenant`: your organisation, and for the operator of the box every one."""

from typing import TYPE_CHECKING, Annotated

import typer

from gateways.chat.cli.running import pages, print_json, run, tell
from gateways.chat.cli.table import print_table
from gateways.chat.cli.user import read_password

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orginabox_sdk.orginabox.api.v1 import GroupRole, Tenant

    from gateways.chat.place import Place
    from gateways.sdk import Client

HELP = """
Your organisation. Who runs the box can add others: each sees nothing of the rest.

\b
  oiab tenant show
  oiab tenant set --default-role viewer --group 3f2a...=member --group 77c1...=admin
  oiab tenant list
  oiab tenant create acme --owner ada
"""

app = typer.Typer(no_args_is_help=True, help=HELP, rich_markup_mode=None)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]


@app.command()
def show(as_json: JsonOption = False) -> None:
    """Show your organisation: its default role, and which group has which role."""

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import GetTenantRequest

        found = (await client.tenants.get_tenant(GetTenantRequest())).tenant
        if found is None:
            return
        if as_json:
            print_json(found)
            return
        for name, value in _details(found):
            typer.echo(f"{name:<14}{value}")

    run(main)


@app.command("set")
def set_tenant(
    name: Annotated[str, typer.Option("--name", help="Its name.")] = "",
    default_role: Annotated[
        str | None, typer.Option("--default-role", metavar="ROLE", help="The role of new users; '' for none.")
    ] = None,
    groups: Annotated[
        list[str] | None,
        typer.Option("--group", metavar="GROUP=ROLE", help="Which group has which role; say all of them."),
    ] = None,
    no_groups: Annotated[bool, typer.Option("--no-groups", help="No group has a role.")] = False,
) -> None:
    """Change your organisation. Roles of groups are given and taken at every sign-in by an identity provider."""
    fields = {"name": bool(name), "default_role": default_role is not None, "group_roles": bool(groups) or no_groups}
    if not any(fields.values()):
        raise typer.BadParameter("say what to change; see --help")

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.google.protobuf import FieldMask
        from orginabox_sdk.orginabox.api.v1 import Tenant, UpdateTenantRequest

        changed = Tenant(name=name, default_role=default_role or "", group_roles=_groups(groups or []))
        mask = FieldMask(paths=sorted(field for field, said in fields.items() if said))
        await client.tenants.update_tenant(UpdateTenantRequest(tenant=changed, update_mask=mask))
        tell("Changed. See it: oiab tenant show")

    run(main)


@app.command()
def create(
    slug: Annotated[str, typer.Argument(metavar="SLUG", help="Its short name, in small letters.")],
    owner: Annotated[str, typer.Option("--owner", metavar="HANDLE", help="The handle of its first owner.")],
    name: Annotated[str, typer.Option("--name", help="Its name.")] = "",
) -> None:
    """Add an organisation with its first owner. Only the operator of the box may.

    The owner's password is asked for as `oiab user add` does. They sign in with: oiab login --password --tenant SLUG
    """
    password = read_password(owner)

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import CreateTenantRequest

        await client.tenants.create_tenant(
            CreateTenantRequest(slug=slug, name=name, owner_handle=owner, owner_password=password)
        )
        tell(f"Added {slug}. Its owner signs in with: oiab login --password --tenant {slug} --handle {owner}")

    run(main)


@app.command("list")
def list_tenants(as_json: JsonOption = False) -> None:
    """List the organisations of the box. Only the operator of the box may."""

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import ListTenantsRequest

        async def fetch(token: str, size: int) -> "tuple[Sequence[Tenant], str]":
            page = await client.tenants.list_tenants(ListTenantsRequest(page_size=size, page_token=token))
            return page.tenants, page.next_page_token

        found = [tenant async for tenant in pages(fetch, 0)]
        if as_json:
            print_json(found)
        else:
            print_table(("slug", "name", "status", "since"), [_row(tenant) for tenant in found])

    run(main)


def _groups(said: list[str]) -> "list[GroupRole]":
    from orginabox_sdk.orginabox.api.v1 import GroupRole

    found = []
    for each in said:
        group, equals, role = each.rpartition("=")
        if not (group and equals and role):
            raise typer.BadParameter(f"{each} should look like GROUP=ROLE", param_hint="--group")
        found.append(GroupRole(group=group, role=role))
    return found


def _row(tenant: "Tenant") -> tuple[str, ...]:
    from gateways.chat.words import ago, one_line

    status = str(tenant.status.name or "unknown").lower()
    return tenant.slug, one_line(tenant.name, 40), status, ago(tenant.create_time)


def _details(tenant: "Tenant") -> list[tuple[str, str]]:
    from gateways.chat.words import ago, clean

    return [
        ("id", tenant.tenant_id),
        ("slug", tenant.slug),
        ("name", clean(tenant.name)),
        ("default role", tenant.default_role or "none"),
        ("since", ago(tenant.create_time)),
        *(("group", f"{clean(each.group)} has the role {each.role}") for each in tenant.group_roles),
    ]
