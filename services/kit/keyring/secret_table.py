"""The tables of a room that hold sealed secrets, told to the keyring by the names of their queries.

`stale` gives what is sealed with another key than the active one, as rows of `id`, `record`, `sealed` and `imported`;
`save` puts a secret back unless it was changed meanwhile; `count` tells how many secrets each data key seals, those
that a master key sealed by itself under the empty name; `originals` tells the names of those master keys, of all
tenants.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class SecretTable:
    """One table, by the names of its queries.

    Attributes:
        stale: Parameters `tenant_id`, `key_id`, `after` (an id) and `size`; by id.
        save: Parameters `tenant_id`, `id`, `sealed` and `was`.
        count: Parameter `tenant_id`; rows of `key_id` and `secrets`.
        originals: No parameters; rows of `key_id`.
        lock: Parameter `tenant_id`: what to hold first, where the room changes several rows of the table at once.
            Empty where it does not.
    """

    stale: str
    save: str
    count: str
    originals: str
    lock: str = ""
