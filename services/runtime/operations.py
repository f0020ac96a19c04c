"""The verbs of Runtime: change providers and stage, tell how things stand, apply, issue tokens.

A change and its staged bundle are one: the bundle is written while the transaction holds the tenant's row, so that
bundles are staged in the order of the changes, and a bundle that cannot be written undoes the change.
"""

import asyncio
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from uuid import UUID

from pydantic import SecretStr

from services.kit import telemetry
from services.kit.errors import RequestIdReused
from services.kit.ids import DEFAULT_TENANT
from services.kit.keyring import KeyringDenied, KeyringMismatch, KeyringUnavailable
from services.kit.keyring.keyring import Keyring
from services.kit.tenancy import as_system, as_tenant
from services.runtime.bundle import Bundle, make_bundle, preferred_of
from services.runtime.clusters import clusters_file
from services.runtime.dialect import ProviderKind
from services.runtime.folders import APPLIED, STAGED
from services.runtime.installation import Installation
from services.runtime.provider import (
    CHANGEABLE,
    Provider,
    ProviderExists,
    ProviderInvalid,
    checked_key,
    record_of,
    refuse_built_in,
)
from services.runtime.store import Store, StoreTransaction, TokenHolder

# The name of the key and what it makes of a request. What there was before had no name.
_DIGEST = re.compile(rb"(k[0-9a-f]{16}):.{32}", re.DOTALL)


@dataclass(frozen=True)
class ProviderValues:
    """What somebody says of a provider."""

    provider_id: str
    kind: ProviderKind
    base_url: str
    models: tuple[str, ...]
    default_model: str
    preferred: bool


@dataclass(frozen=True)
class Status:
    """How the staged and the applied bundle stand."""

    staged_revision: str
    applied_revision: str
    apply_time: datetime | None
    applied: tuple[Provider, ...]

    @property
    def in_sync(self) -> bool:
        """Whether there is nothing to apply."""
        return self.staged_revision == self.applied_revision

    @property
    def preferred(self) -> Provider | None:
        """The provider of the default model."""
        return preferred_of(self.applied)


async def create_provider(
    box: Installation, store: Store, tenant_id: UUID, values: ProviderValues, key: SecretStr, request_id: UUID | None
) -> Provider:
    """Add a provider and stage; the first one is preferred. The same request again answers with what it made."""
    return await box.keyring.again(lambda: _create_provider(box, store, tenant_id, values, key, request_id))


async def _create_provider(
    box: Installation, store: Store, tenant_id: UUID, values: ProviderValues, key: SecretStr, request_id: UUID | None
) -> Provider:
    secret = checked_key(key.get_secret_value())
    wanted = Provider.wanted(
        tenant_id,
        values.provider_id,
        values.kind,
        base_url=values.base_url,
        models=values.models,
        default_model=values.default_model,
        has_key=bool(secret),
    )
    content = json.dumps([*vars(values).values(), secret])
    digest = await _request_digest(box.keyring, tenant_id, content)
    sealed = await box.keyring.seal(tenant_id, secret, wanted.record) if secret else ""
    async with store.transaction() as tx:
        await tx.lock(tenant_id)
        if request_id and (known := await tx.request(tenant_id, request_id)):
            if known[1] != digest:
                await _refuse_other_content(box.keyring, tenant_id, request_id, known[1], content)
            return await tx.provider(tenant_id, known[0])
        if await tx.find(tenant_id, wanted.provider_id):
            raise ProviderExists(
                f"there is a provider {wanted.provider_id} already; change that one, or take another name",
                providerId=wanted.provider_id,
            )
        first = not await tx.providers(tenant_id)
        await tx.add(replace(wanted, sealed_key=sealed), request_id, digest)
        if values.preferred or first:
            await tx.prefer(tenant_id, wanted.provider_id)
        await tx.record(tenant_id, "admin.provider_create", _target(wanted.provider_id), kind=wanted.kind.value)
        await _stage(box, tx, tenant_id)
        return await tx.provider(tenant_id, wanted.provider_id)


async def list_providers(box: Installation, store: Store, tenant_id: UUID, after: str, size: int) -> list[Provider]:
    """Providers by name after a name, the built-in one among them; one more than `size` when there are more."""
    async with store.transaction() as tx:
        stored = await tx.page(tenant_id, after, size + 1)
        any_preferred = await tx.any_preferred(tenant_id)
    built_in = [
        replace(provider, preferred=not any_preferred)
        for provider in box.with_demo(tenant_id, ())
        if provider.provider_id > after
    ]
    return sorted((*stored, *built_in), key=lambda provider: provider.provider_id)[: size + 1]


async def update_provider(
    box: Installation, store: Store, tenant_id: UUID, values: ProviderValues, mask: Collection[str], key: SecretStr
) -> Provider:
    """Change what the mask names and stage."""
    return await box.keyring.again(lambda: _update_provider(box, store, tenant_id, values, mask, key))


async def _update_provider(
    box: Installation, store: Store, tenant_id: UUID, values: ProviderValues, mask: Collection[str], key: SecretStr
) -> Provider:
    refuse_built_in(values.provider_id)
    if unknown := set(mask) - CHANGEABLE:
        raise ProviderInvalid(f"{min(unknown)} cannot be changed", field="update_mask")
    secret = checked_key(key.get_secret_value())
    named = frozenset(mask) or frozenset(name for name in CHANGEABLE if getattr(values, name))
    record = record_of(tenant_id, values.provider_id)
    sealed = await box.keyring.seal(tenant_id, secret, record) if secret else ""
    async with store.transaction() as tx:
        await tx.lock(tenant_id)
        found = await tx.provider(tenant_id, values.provider_id)
        changed = found.changed(
            base_url=values.base_url if "base_url" in named else None,
            models=values.models if "models" in named else None,
            default_model=values.default_model if "default_model" in named else None,
            has_key=found.has_key or bool(secret),
        )
        await tx.save(changed)
        if sealed:
            await tx.save_key(changed, sealed)
        if "preferred" in named and values.preferred != found.preferred:
            await tx.prefer(tenant_id, changed.provider_id if values.preferred else "")
            await _prefer_someone(box, tx, tenant_id)
        changes = sorted(named | ({"api_key"} if secret else set()))
        await tx.record(tenant_id, "admin.provider_update", _target(changed.provider_id), changed=changes)
        await _stage(box, tx, tenant_id)
        return await tx.provider(tenant_id, changed.provider_id)


async def delete_provider(box: Installation, store: Store, tenant_id: UUID, provider_id: str) -> None:
    """Remove a provider with its key and stage. When it was preferred, the oldest other one is, else the demo model."""
    refuse_built_in(provider_id)
    async with store.transaction() as tx:
        await tx.lock(tenant_id)
        found = await tx.provider(tenant_id, provider_id)
        await tx.delete(found)
        if found.preferred and (others := await tx.providers(tenant_id)):
            await tx.prefer(tenant_id, others[0].provider_id)
        await tx.record(tenant_id, "admin.provider_delete", _target(provider_id))
        await _stage(box, tx, tenant_id)


async def status(box: Installation, store: Store, tenant_id: UUID) -> Status:
    """How things stand."""
    async with store.transaction() as tx:
        return await _status(box, tx, tenant_id)


async def apply(box: Installation, store: Store, tenant_id: UUID) -> tuple[Status, bool]:
    """Make the desired providers the applied ones, and tell whether that changed anything."""
    async with box.applying:
        await _bring_keys(box, store, tenant_id)
        async with store.transaction() as tx:
            await tx.lock(tenant_id)
            before = await _status(box, tx, tenant_id)
            if not before.in_sync:
                await _apply(box, store, tx, tenant_id)
                revisions = {"from": before.applied_revision, "to": before.staged_revision}
                await tx.record(tenant_id, "admin.runtime_apply", "runtime", **revisions)
        await _materialize(box, store, tenant_id)
    after = await status(box, store, tenant_id)
    return after, before.applied_revision != after.applied_revision


async def restore(box: Installation, store: Store) -> None:
    """At the start, make the files what the database says: they may be older than this release, or lost.

    Where nothing was ever applied, the demo model is: what people add waits for their apply.
    """
    with as_system():
        async with store.transaction() as tx:
            await tx.lock(DEFAULT_TENANT)
            tenants = await tx.tenants()
    for tenant_id in tenants:
        with as_tenant(tenant_id):
            await _restore(box, store, tenant_id)


async def _restore(box: Installation, store: Store, tenant_id: UUID) -> None:
    async with store.transaction() as tx:
        if await tx.lock(tenant_id) is None:
            await tx.begin(tenant_id)
        await _stage(box, tx, tenant_id)
    async with box.applying:
        await _materialize(box, store, tenant_id)
    await _report_unreadable_keys(box, store, tenant_id)


async def issue_token(store: Store, holder: TokenHolder) -> SecretStr:
    """A new token for a sandbox; the one it had ends."""
    token = f"oiab-model-{secrets.token_urlsafe(32)}"
    async with store.transaction() as tx:
        await tx.put_token(holder, token_digest(token))
    return SecretStr(token)


def _target(provider_id: str) -> str:
    return f"provider:{provider_id}"


def token_digest(token: str) -> bytes:
    """What is kept of a token. It is random and long, so a plain digest cannot be turned back."""
    return hashlib.sha256(token.encode()).digest()


async def _request_digest(keyring: Keyring, tenant_id: UUID, content: str, key_id: str = "") -> bytes:
    """With what a repeated request is recognised. Who reads it learns nothing of the secret in it."""
    derived = await keyring.derive(tenant_id, "request digest", key_id)
    return f"{derived.key_id}:".encode() + hmac.digest(derived.key, content.encode(), "sha256")


async def _refuse_other_content(
    keyring: Keyring, tenant_id: UUID, request_id: UUID, known: bytes, content: str
) -> None:
    """Refuse a request id that stands for another request. Where the key of its digest is gone, the id is believed."""
    found = _DIGEST.fullmatch(known)
    try:
        digest = await _request_digest(keyring, tenant_id, content, found[1].decode()) if found else known
    except KeyringMismatch:
        return
    if not hmac.compare_digest(digest, known):
        raise RequestIdReused("this request id was used for another provider; take a new one", requestId=request_id)


async def _prefer_someone(box: Installation, tx: StoreTransaction, tenant_id: UUID) -> None:
    """Where there is no demo model to fall back to, somebody has to be preferred."""
    if not box.demo_socket and not await tx.any_preferred(tenant_id):
        await tx.prefer(tenant_id, (await tx.providers(tenant_id))[0].provider_id)


def _bundle(box: Installation, tenant_id: UUID, stored: Sequence[Provider]) -> Bundle:
    return make_bundle(box.base, box.with_demo(tenant_id, stored))


async def _status(box: Installation, tx: StoreTransaction, tenant_id: UUID) -> Status:
    staged = _bundle(box, tenant_id, await tx.providers(tenant_id))
    apply_time = await tx.apply_time(tenant_id)
    if apply_time is None:
        return Status(staged.revision, "", None, ())
    applied = await tx.applied(tenant_id)
    revision = _bundle(box, tenant_id, applied).revision
    return Status(staged.revision, revision, apply_time, tuple(box.with_demo(tenant_id, applied)))


async def _stage(box: Installation, tx: StoreTransaction, tenant_id: UUID) -> None:
    bundle = _bundle(box, tenant_id, await tx.providers(tenant_id))
    await asyncio.to_thread(box.folders(tenant_id).point, STAGED, bundle)


async def _apply(box: Installation, store: Store, tx: StoreTransaction, tenant_id: UUID) -> None:
    """Make the desired state the applied one in the database, after Envoy was told of what is to come."""
    desired = await tx.providers(tenant_id)
    for provider in desired:
        await box.key_of(provider)
    known = await _all_applied(box, store)
    await _write_clusters(box, (*known, *box.with_demo(tenant_id, desired)))
    await tx.apply(tenant_id)


async def _bring_keys(box: Installation, store: Store, tenant_id: UUID) -> None:
    """Have the data keys in memory, so that no transaction waits for the place of the master key."""
    async with store.transaction() as tx:
        desired = await tx.providers(tenant_id)
    for provider in desired:
        await box.key_of(provider)


async def _materialize(box: Installation, store: Store, tenant_id: UUID) -> None:
    """Write the files of the applied state. Nothing is written when they are there."""
    async with store.transaction() as tx:
        applied = await tx.applied(tenant_id)
    everyone = await _all_applied(box, store)
    bundle = _bundle(box, tenant_id, applied)
    await asyncio.to_thread(box.folders(tenant_id).point, APPLIED, bundle)
    await _write_clusters(box, everyone)


async def _all_applied(box: Installation, store: Store) -> list[Provider]:
    """What is applied of all tenants: Envoy has one file for all. Whoever asks is the only one who applies."""
    with as_system():
        async with store.transaction() as tx:
            return [
                provider
                for tenant_id in await tx.tenants()
                for provider in box.with_demo(tenant_id, await tx.applied(tenant_id))
            ]


async def _write_clusters(box: Installation, providers: Sequence[Provider]) -> None:
    text = clusters_file(providers, box.trusted_ca)
    await asyncio.to_thread(_replace_file, box.clusters_file, text)


def _replace_file(path: Path, text: str) -> None:
    """Write a file in one step, unless it is as it should be: Envoy watches for names that are moved there."""
    with suppress(FileNotFoundError):
        if path.read_text() == text:
            return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


async def _report_unreadable_keys(box: Installation, store: Store, tenant_id: UUID) -> None:
    async with store.transaction() as tx:
        applied = await tx.applied(tenant_id)
    for provider in applied:
        try:
            await box.key_of(provider)
        except (KeyringMismatch, KeyringUnavailable, KeyringDenied) as error:
            telemetry.log().error(
                "the key of a provider cannot be read", provider=provider.provider_id, **error.metadata
            )
