"""The domain on the wire, field by field."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime

from ext_authz import external_auth_pb2 as auth
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import BoolValue
from google.rpc import code_pb2, status_pb2
from orginabox.runtime.v1 import bundle_pb2, model_pb2, provider_pb2

from services.runtime.dialect import ProviderKind
from services.runtime.door import WITHHELD_HEADERS, DoorClosed, Passage
from services.runtime.operations import ProviderValues, Status
from services.runtime.provider import Provider, ProviderInvalid

KINDS: "Mapping[ProviderKind, provider_pb2.ProviderKind.ValueType]" = {
    ProviderKind.DEMO: provider_pb2.PROVIDER_KIND_DEMO,
    ProviderKind.ANTHROPIC: provider_pb2.PROVIDER_KIND_ANTHROPIC,
    ProviderKind.OPENAI: provider_pb2.PROVIDER_KIND_OPENAI,
    ProviderKind.AZURE: provider_pb2.PROVIDER_KIND_AZURE,
    ProviderKind.OPENAI_COMPATIBLE: provider_pb2.PROVIDER_KIND_OPENAI_COMPATIBLE,
    ProviderKind.OLLAMA: provider_pb2.PROVIDER_KIND_OLLAMA,
}
_KINDS_BY_WIRE = {wire: kind for kind, wire in KINDS.items()}
_CLUSTER_HEADER = "x-oiab-cluster"


def provider_to_proto(provider: Provider) -> provider_pb2.Provider:
    """A provider, without its key."""
    return provider_pb2.Provider(
        provider_id=provider.provider_id,
        kind=KINDS[provider.kind],
        base_url="" if provider.demo else provider.base_url,
        models=provider.models,
        default_model=provider.default_model,
        preferred=provider.preferred,
        has_api_key=provider.has_key,
        built_in=provider.demo,
        create_time=_time(provider.create_time),
        update_time=_time(provider.update_time),
    )


def kind_from_proto(kind: "provider_pb2.ProviderKind.ValueType") -> ProviderKind:
    """The kind.

    Raises:
        ProviderInvalid: None is named.
    """
    if kind not in _KINDS_BY_WIRE:
        raise ProviderInvalid("the kind of the provider is needed", field="provider.kind")
    return _KINDS_BY_WIRE[kind]


def values_from_proto(provider: provider_pb2.Provider, kind: ProviderKind) -> ProviderValues:
    """What somebody says of a provider."""
    return ProviderValues(
        provider_id=provider.provider_id,
        kind=kind,
        base_url=provider.base_url.strip(),
        models=tuple(provider.models),
        default_model=provider.default_model,
        preferred=provider.preferred,
    )


def status_to_proto(status: Status) -> bundle_pb2.RuntimeStatus:
    """How the bundles stand."""
    preferred = status.preferred
    return bundle_pb2.RuntimeStatus(
        staged_revision=status.staged_revision,
        applied_revision=status.applied_revision,
        apply_time=_time(status.apply_time),
        in_sync=status.in_sync,
        default_model=_model(preferred.provider_id, preferred.default_model) if preferred else None,
        models=_models(status.applied),
        demo=preferred is not None and preferred.demo,
    )


def passage_to_proto(passage: Passage) -> auth.CheckResponse:
    """A call that goes out. What is set must not be removed as well: Envoy removes last."""
    put = {_CLUSTER_HEADER: passage.cluster, ":path": passage.path}
    if passage.key:
        put[passage.key_header] = f"{passage.key_prefix}{passage.key.get_secret_value()}"
    return auth.CheckResponse(
        status=status_pb2.Status(code=code_pb2.OK),
        ok_response=auth.OkHttpResponse(
            headers=[_header(name, value) for name, value in put.items()],
            headers_to_remove=[name for name in WITHHELD_HEADERS if name not in put],
        ),
    )


def closed_to_proto(closed: DoorClosed) -> auth.CheckResponse:
    """A call that does not go out, told in the shape that the libraries of model providers read."""
    body = {"type": "error", "error": {"type": closed.kind, "message": f"Org in a Box: {closed.message}"}}
    return auth.CheckResponse(
        status=status_pb2.Status(code=code_pb2.PERMISSION_DENIED),
        denied_response=auth.DeniedHttpResponse(
            status=auth.HttpStatus(code=closed.status),
            headers=[_header("content-type", "application/json")],
            body=json.dumps(body),
        ),
    )


def _models(providers: Iterable[Provider]) -> list[model_pb2.Model]:
    ordered = sorted(providers, key=lambda provider: (not provider.preferred, provider.provider_id))
    return [_model(provider.provider_id, model) for provider in ordered for model in provider.models]


def _model(provider_id: str, model_id: str) -> model_pb2.Model:
    return model_pb2.Model(provider_id=provider_id, model_id=model_id)


def _header(name: str, value: str) -> auth.HeaderValueOption:
    return auth.HeaderValueOption(header=auth.HeaderValue(key=name, value=value), append=BoolValue(value=False))


def _time(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
