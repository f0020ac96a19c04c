"""How identity is told of its database, where a test puts Api together."""

from services.identity.settings import IdentitySettings
from services.kit.settings import MeshSettings
from tests.postgres import as_administrator, as_service


def people(mesh: MeshSettings) -> IdentitySettings:
    """The settings of identity beside those of an Api whose database has the schema `identity`, too."""
    urls = as_service(as_administrator(mesh.database_url), "identity")
    named = {"identity_database_url": urls.tenant, "identity_database_system_url": urls.system}
    return IdentitySettings.of(mesh).model_copy(update=named)
