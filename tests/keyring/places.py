"""Every place for a master key, running on this machine, with what can go wrong with it."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import trustme
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug import Request, Response

from tests.keyring import fake_azure, fake_vault
from tests.keyring.servers import Server, serving

REGION = "eu-central-1"


@dataclass
class Place:
    """A place for a master key."""

    address: str
    server: Server
    app: Any
    environ: dict[str, str]

    def rotate(self) -> None:
        """Make a new version of the key."""
        self.app.rotate()


@contextmanager
def vault(folder: Path) -> Iterator[Place]:
    """Vault."""
    ca, app = trustme.CA(), fake_vault.FakeVault()
    bundle = folder / "vault-ca.pem"
    ca.cert_pem.write_to_path(bundle)
    with serving(app, fake_vault.failure, fake_vault.denial, ca) as server:
        environ = {"VAULT_TOKEN": fake_vault.TOKEN, "REQUESTS_CA_BUNDLE": str(bundle)}
        yield Place(f"vault://{server.host}/transit/orginabox", server, app, environ)


@contextmanager
def azure(folder: Path) -> Iterator[Place]:
    """Key Vault, and a machine's identity."""
    ca, app = trustme.CA(), fake_azure.FakeAzure()
    bundle = folder / "azure-ca.pem"
    ca.cert_pem.write_to_path(bundle)
    with ExitStack() as stack:
        server = stack.enter_context(serving(app, fake_azure.failure, fake_azure.denial, ca))
        machine = stack.enter_context(serving(fake_azure.tokens, fake_azure.failure, fake_azure.denial, None))
        environ = {
            "AZURE_POD_IDENTITY_AUTHORITY_HOST": f"http://{machine.host}",
            "REQUESTS_CA_BUNDLE": str(bundle),
        }
        yield Place(f"azure-kv://{server.host}/orginabox", server, app, environ)


@contextmanager
def aws(folder: Path) -> Iterator[Place]:
    """KMS, by moto."""
    with serving(DomainDispatcherApplication(create_backend_app), _kms_failure, _kms_denial, None) as server:
        environ = {
            "AWS_ENDPOINT_URL_KMS": f"http://{server.host}",
            "AWS_ACCESS_KEY_ID": "an-id",
            "AWS_SECRET_ACCESS_KEY": "a-secret",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        yield Place(f"aws-kms://{_new_key(server)}?region={REGION}", server, None, environ)


def kms_key(place: Place, alias: str = "") -> str:
    """Another key in the same KMS: its ARN."""
    return _new_key(place.server, alias)


def _new_key(server: Server, alias: str = "") -> str:
    kms = boto3.session.Session("an-id", "a-secret").client(
        "kms", region_name=REGION, endpoint_url=f"http://{server.host}"
    )
    arn: str = kms.create_key()["KeyMetadata"]["Arn"]
    if alias:
        known = {found["AliasName"] for found in kms.list_aliases()["Aliases"]}
        change: Callable[..., Any] = kms.update_alias if alias in known else kms.create_alias
        change(AliasName=alias, TargetKeyId=arn)
    kms.close()
    return arn


def _kms_failure(request: Request) -> Response:
    return _kms_error(500, "KMSInternalException", request)


def _kms_denial(request: Request) -> Response:
    return _kms_error(400, "AccessDeniedException", request)


def _kms_error(status: int, code: str, request: Request) -> Response:
    """An error that tells too much."""
    import json

    body = {"__type": code, "message": f"{request.get_data(as_text=True)} {request.headers}"}
    return Response(json.dumps(body), status, content_type="application/x-amz-json-1.1")


PLACES = {"vault": vault, "azure-kv": azure, "aws-kms": aws}


@contextmanager
def place(name: str, folder: Path) -> Iterator[Place]:
    """A place by its name, with the environment that leads to it."""
    with PLACES[name](folder) as found:
        before = dict(os.environ)
        os.environ.update(found.environ)
        try:
            yield found
        finally:
            os.environ.clear()
            os.environ.update(before)
