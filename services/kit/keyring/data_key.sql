-- What the keyring asks of a room's table `data_key`.

-- name: find_active_data_key
-- The key that a tenant's secrets are sealed with now.
SELECT tenant_id, key_id, wrapped, master_key_id, state, create_time, retire_time
FROM data_key WHERE tenant_id = %(tenant_id)s::uuid AND state = 'active';

-- name: find_data_key
-- One key of a tenant. One that is lost is of no use to anybody.
SELECT tenant_id, key_id, wrapped, master_key_id, state, create_time, retire_time
FROM data_key WHERE tenant_id = %(tenant_id)s::uuid AND key_id = %(key_id)s::text AND state <> 'lost';

-- name: list_data_keys
-- Every key of a tenant, oldest first.
SELECT tenant_id, key_id, wrapped, master_key_id, state, create_time, retire_time
FROM data_key WHERE tenant_id = %(tenant_id)s::uuid ORDER BY create_time, key_id;

-- name: add_data_key
-- Give a tenant its active key, unless it has one.
INSERT INTO data_key (tenant_id, key_id, wrapped, master_key_id, state)
VALUES (%(tenant_id)s::uuid, %(key_id)s::text, %(wrapped)s::bytea, %(master_key_id)s::text, 'active')
ON CONFLICT (tenant_id) WHERE state = 'active' DO NOTHING;

-- name: retire_data_key
-- Seal with this key no more; what is sealed with it can be read.
UPDATE data_key SET state = 'retired', retire_time = now()
WHERE tenant_id = %(tenant_id)s::uuid AND key_id = %(key_id)s::text AND state = 'active';

-- name: destroy_data_key
-- Forget a key that seals no more. While a secret is sealed with it, the secret's foreign key forbids that.
DELETE FROM data_key WHERE tenant_id = %(tenant_id)s::uuid AND key_id = %(key_id)s::text AND state <> 'active';

-- name: page_data_keys_of_other_masters
-- Keys that another master key has wrapped than the given one, after a key.
SELECT tenant_id, key_id, wrapped, master_key_id, state, create_time, retire_time FROM data_key
WHERE master_key_id <> %(master_key_id)s::text AND state <> 'lost'
  AND (tenant_id, key_id) > (%(after_tenant)s::uuid, %(after_key)s::text)
ORDER BY tenant_id, key_id LIMIT %(size)s::int;

-- name: rewrap_data_key
-- Keep a key as another master key wraps it, unless somebody else did so first.
UPDATE data_key SET wrapped = %(wrapped)s::bytea, master_key_id = %(master_key_id)s::text
WHERE tenant_id = %(tenant_id)s::uuid AND key_id = %(key_id)s::text AND wrapped = %(was)s::bytea;

-- name: count_data_keys_by_master
-- How many keys each master key has wrapped.
SELECT master_key_id, count(*)::int AS data_keys FROM data_key WHERE state <> 'lost' GROUP BY master_key_id ORDER BY master_key_id;

-- name: lose_data_keys
-- Give up the keys under a master key that is lost for good.
UPDATE data_key SET state = 'lost', retire_time = coalesce(retire_time, now())
WHERE master_key_id = %(master_key_id)s::text AND state <> 'lost';
