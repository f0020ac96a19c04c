"""Identity providers, sign-ins on their way and the links of users in PostgreSQL: one method per named query."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.identity.identity_provider import IdentityProvider, IdentityProviderNotFound
from services.identity.sign_in_store import SignInStore
from services.identity.tenant import TenantStatus
from services.identity.user import User
from services.kit.ids import OPERATOR
from services.kit.postgres import Row


@dataclass(frozen=True)
class WebSignIn:
    """A sign-in by an identity provider that a browser has begun."""

    tenant_id: UUID
    identity_provider_id: str
    browser_digest: bytes
    redirect: str
    expire_time: datetime


class DoorStore(SignInStore):
    """What a transaction can do about the browser's door, besides all that it can do about people and sign-ins."""

    async def put_identity_provider(self, provider: IdentityProvider) -> None:
        """Keep an identity provider. An empty secret leaves the one before."""
        params = {name: value for name, value in vars(provider).items() if name != "update_time"}
        await self._tx.run("put_identity_provider", **params | {"scopes": list(provider.scopes)})

    async def identity_provider(self, tenant_id: UUID, named: str) -> IdentityProvider:
        """An identity provider by its id.

        Raises:
            IdentityProviderNotFound: The tenant has none such.
        """
        row = await self._tx.one("find_identity_provider", tenant_id=tenant_id, identity_provider_id=named)
        if row is None:
            raise IdentityProviderNotFound(
                f"there is no identity provider {named[:32]}; list them: oiab sso list", identityProviderId=named[:32]
            )
        return _provider(row)

    async def identity_providers(self, tenant_id: UUID, after: str, size: int) -> list[IdentityProvider]:
        """Identity providers by id, after an id."""
        rows = await self._tx.many("page_identity_providers", tenant_id=tenant_id, after=after, size=size)
        return [_provider(row) for row in rows]

    async def delete_identity_provider(self, tenant_id: UUID, named: str) -> bool:
        """Remove an identity provider, and say whether there was one."""
        return bool(await self._tx.run("delete_identity_provider", tenant_id=tenant_id, identity_provider_id=named))

    async def linked_users(self, provider: IdentityProvider) -> int:
        """How many users are known by an identity provider."""
        row = await self._tx.one(
            "count_linked_users",
            tenant_id=provider.tenant_id,
            identity_provider_id=provider.identity_provider_id,
        )
        return int(row["users"]) if row else 0

    async def add_web_sign_in(self, state_digest: bytes, begun: WebSignIn) -> None:
        """A browser begins to sign in."""
        await self._tx.run("add_web_sign_in", state_digest=state_digest, **vars(begun))

    async def take_web_sign_in(self, state_digest: bytes) -> WebSignIn | None:
        """Take a sign-in that a browser has begun. Nobody else gets it after that."""
        row = await self._tx.one("take_web_sign_in", state_digest=state_digest)
        return WebSignIn(**row | {"browser_digest": bytes(row["browser_digest"])}) if row else None

    async def user_by_subject(self, provider: IdentityProvider, subject: str) -> User | None:
        """The user whom an identity provider knows by a subject."""
        row = await self._tx.one(
            "find_user_by_subject",
            tenant_id=provider.tenant_id,
            identity_provider=provider.identity_provider_id,
            subject=subject,
        )
        return await self.user(provider.tenant_id, str(row["user_id"])) if row else None

    async def waiting_user(self, tenant_id: UUID, subject: str, verified_email: str) -> User | None:
        """The one user who was added to sign in by an identity provider, has not yet, and is meant by these."""
        rows = await self._tx.many(
            "find_waiting_users", tenant_id=tenant_id, subject=subject, email=verified_email, operator=OPERATOR
        )
        return await self.user(tenant_id, str(rows[0]["user_id"])) if len(rows) == 1 else None

    async def link_user(self, user: User, provider: IdentityProvider, subject: str, object_id: str) -> bool:
        """From now on an identity provider knows a user by a subject. False: somebody else was quicker."""
        linked = await self._tx.run(
            "link_user",
            tenant_id=user.tenant_id,
            user_id=user.user_id,
            identity_provider=provider.identity_provider_id,
            subject=subject,
            directory_object_id=object_id,
        )
        return bool(linked)

    async def user_groups(self, user: User) -> list[str]:
        """The names of the groups of a user that SCIM has brought."""
        rows = await self._tx.many("user_groups", tenant_id=user.tenant_id, user_id=user.user_id)
        return [row["name"] for row in rows]

    async def revoke_group_roles(self, user: User, role_ids: Collection[UUID]) -> bool:
        """Take roles from a user that came from groups, and say whether they had any."""
        taken = await self._tx.run(
            "revoke_group_roles", tenant_id=user.tenant_id, user_id=user.user_id, role_ids=list(role_ids)
        )
        if taken:
            await self.tell(user.tenant_id, user.user_id)
        return bool(taken)

    async def put_scim_token(self, tenant_id: UUID, digest: bytes) -> None:
        """Keep the digest of a tenant's SCIM token, in place of the one before."""
        await self._tx.run("put_scim_token", tenant_id=tenant_id, digest=digest)

    async def scim_token_tenant(self, digest: bytes) -> tuple[UUID, bool] | None:
        """Whose a SCIM token is, and whether that tenant is active."""
        row = await self._tx.one("find_scim_token", digest=digest)
        return (row["tenant_id"], row["status"] == TenantStatus.ACTIVE.value) if row else None

    async def touch_scim_token(self, tenant_id: UUID) -> None:
        """Remember that a SCIM token is used."""
        await self._tx.run("touch_scim_token", tenant_id=tenant_id)

    async def forget_web_sign_ins(self) -> int:
        """Forget sign-ins that nobody ended."""
        return await self._tx.run("forget_web_sign_ins")


def _provider(row: Row) -> IdentityProvider:
    return IdentityProvider(**row | {"scopes": tuple(row["scopes"])})
