"""What the SDKs of the place of the master key are told: credentials that only the rooms with a keyring get."""

from collections.abc import Mapping

ROOMS = frozenset({"api", "runtime"})
"""The processes that open the master key."""

_PREFIXES: Mapping[str, tuple[str, ...]] = {
    "aws-kms": ("AWS_",),
    "azure-kv": ("AZURE_", "IDENTITY_", "MSI_"),
    "vault": ("VAULT_",),
}
_NETWORK = frozenset({"HTTPS_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE"})


def keyring_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that the places named by OIAB_KEYRING and OIAB_KEYRING_PREVIOUS are reached with."""
    addresses = (environ.get(name, "") for name in ("OIAB_KEYRING", "OIAB_KEYRING_PREVIOUS"))
    prefixes = tuple(prefix for address in addresses for prefix in _PREFIXES.get(address.partition("://")[0], ()))
    if not prefixes:
        return {}
    return {name: value for name, value in environ.items() if name.startswith(prefixes) or name in _NETWORK}
