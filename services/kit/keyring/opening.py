"""How a room opens its keyring: the master key has to be the one that its secrets need, or it does not start.

A master key that is not there is made at the very first start only. After that somebody has to put the right one back,
and is told which.
"""

from collections.abc import Sequence

from services.kit import telemetry
from services.kit.errors import DomainError
from services.kit.keyring.data_key import INSTALLATION, DataKeys
from services.kit.keyring.errors import KeyringUnusable, MasterKeyMissing
from services.kit.keyring.file_master import FileMaster
from services.kit.keyring.keyring import Keyring
from services.kit.keyring.master import MasterKey, file_of, open_master, prove
from services.kit.keyring.secret_table import SecretTable
from services.kit.keyring.settings import KeyringSettings
from services.kit.postgres import Database
from services.kit.tenancy import as_system

IMPORTED = "file:original"


async def open_keyring(
    room: str, database: Database, settings: KeyringSettings, tables: Sequence[SecretTable] = ()
) -> Keyring:
    """The keyring of a room.

    Raises:
        KeyringUnusable: It cannot be used as things are; the message says what to do.
    """
    keys = DataKeys(database)
    needed = await _needed(database, keys, tables)
    lost = {name.strip() for name in settings.keyring_lost.split(",") if name.strip()}
    master = _master(settings.master_address(), needed, lost)
    previous = open_master(settings.keyring_previous) if settings.keyring_previous else None
    try:
        await prove(master)
        masters = (master, previous) if previous else (master,)
        at_hand = {name for name in needed for each in masters if await _opens(each, name)}
    except DomainError as error:
        raise KeyringUnusable(f"{settings.master_address()}: {error.message}") from None
    if found := lost & at_hand:
        raise KeyringUnusable(f"the master key {min(found)} is at hand and not lost; take OIAB_KEYRING_LOST away")
    if missing := needed.keys() - at_hand - lost:
        raise _missing(min(missing), needed, f"OIAB_KEYRING names {await master.key_id()}")
    for name in lost:
        if given_up := await keys.lose(name):
            telemetry.log().warning("data keys were given up", master_key=name, data_keys=given_up)
    keyring = Keyring(room, keys, master, previous)
    # From now on the room depends on this master key, whether it has a secret or not: should the file be lost, no room
    # makes another that the next one would then refuse.
    await keyring.active(INSTALLATION)
    return keyring


def _master(address: str, needed: dict[str, int], lost: set[str]) -> MasterKey:
    try:
        return open_master(address)
    except MasterKeyMissing as error:
        if missing := needed.keys() - lost:
            raise _missing(min(missing), needed, str(error)) from None
        path = file_of(address)
        assert path is not None  # noqa: S101 - only a file can be missing
        return FileMaster.create(path)


async def _needed(database: Database, keys: DataKeys, tables: Sequence[SecretTable]) -> dict[str, int]:
    """The names of the master keys that something in the database depends on, and how many things do."""
    needed = await keys.masters()
    with as_system():
        async with database.transaction() as tx:
            for table in tables:
                for row in await tx.many(table.originals):
                    name = f"file:{row['key_id']}" if row["key_id"] else IMPORTED
                    needed[name] = needed.get(name, 0) + row["secrets"]
    return needed


async def _opens(master: MasterKey, name: str) -> bool:
    if name == IMPORTED:
        return master.original("") is not None
    return await master.owns(name) or master.original(name.removeprefix("file:")) is not None


def _missing(name: str, needed: dict[str, int], found: str) -> KeyringUnusable:
    return KeyringUnusable(
        f"what is stored ({needed[name]} keys) needs the master key {name}, and {found}: put that key back, "
        "or name it in OIAB_KEYRING_PREVIOUS. "
        f"If it is lost for good, so is what it protects: start once with OIAB_KEYRING_LOST='{name}' and set it again"
    )
