-- What Runtime asks of its tables.

-- name: add_runtime
-- Make the row of a tenant that has none.
INSERT INTO runtime (tenant_id) VALUES (%(tenant_id)s::uuid) ON CONFLICT (tenant_id) DO NOTHING;

-- name: lock_runtime
-- Put the changes of a tenant in order: whoever holds this row sees all that was changed before.
SELECT apply_time FROM runtime WHERE tenant_id = %(tenant_id)s::uuid FOR UPDATE;

-- name: read_runtime
-- When a tenant's runtime was last applied.
SELECT apply_time FROM runtime WHERE tenant_id = %(tenant_id)s::uuid;

-- name: list_tenants
-- Every tenant that has a runtime.
SELECT tenant_id FROM runtime ORDER BY tenant_id;

-- name: list_providers
-- The desired providers of a tenant, oldest first.
SELECT tenant_id, provider_id, kind, base_url, models, default_model, preferred, sealed_key, key_imported, key_time, create_time, update_time
FROM provider WHERE tenant_id = %(tenant_id)s::uuid ORDER BY create_time, provider_id;

-- name: page_providers
-- The desired providers of a tenant by name, after a name.
SELECT tenant_id, provider_id, kind, base_url, models, default_model, preferred, sealed_key, key_imported, key_time, create_time, update_time
FROM provider WHERE tenant_id = %(tenant_id)s::uuid AND provider_id > %(after)s::text
ORDER BY provider_id LIMIT %(size)s::int;

-- name: find_provider
-- One desired provider.
SELECT tenant_id, provider_id, kind, base_url, models, default_model, preferred, sealed_key, key_imported, key_time, create_time, update_time
FROM provider WHERE tenant_id = %(tenant_id)s::uuid AND provider_id = %(provider_id)s::text;

-- name: find_request
-- The provider that a request made, and what was in the request.
SELECT provider_id, request_digest FROM provider
WHERE tenant_id = %(tenant_id)s::uuid AND request_id = %(request_id)s::uuid;

-- name: any_preferred
-- Whether a stored provider of the tenant is preferred.
SELECT EXISTS (SELECT FROM provider WHERE tenant_id = %(tenant_id)s::uuid AND preferred) AS found;

-- name: add_provider
-- Add a desired provider.
INSERT INTO provider (
    tenant_id, provider_id, kind, base_url, models, default_model, preferred, sealed_key, key_time, request_id, request_digest
) VALUES (
    %(tenant_id)s::uuid, %(provider_id)s::text, %(kind)s::text, %(base_url)s::text, %(models)s::text[],
    %(default_model)s::text, false, %(sealed_key)s::text,
    CASE WHEN %(sealed_key)s::text <> '' THEN now() END, %(request_id)s::uuid, %(request_digest)s::bytea
);

-- name: save_provider
-- Change a desired provider.
UPDATE provider
SET base_url = %(base_url)s::text, models = %(models)s::text[], default_model = %(default_model)s::text, update_time = now()
WHERE tenant_id = %(tenant_id)s::uuid AND provider_id = %(provider_id)s::text;

-- name: save_key
-- Set the key of a desired provider.
UPDATE provider SET sealed_key = %(sealed_key)s::text, key_imported = false, key_time = now(), update_time = now()
WHERE tenant_id = %(tenant_id)s::uuid AND provider_id = %(provider_id)s::text;

-- name: prefer_none
-- Take the preference from whichever provider of the tenant has it.
UPDATE provider SET preferred = false, update_time = now() WHERE tenant_id = %(tenant_id)s::uuid AND preferred;

-- name: prefer
-- Give a provider the preference, which nobody has.
UPDATE provider SET preferred = true, update_time = now()
WHERE tenant_id = %(tenant_id)s::uuid AND provider_id = %(provider_id)s::text;

-- name: delete_provider
-- Remove a desired provider with its key.
DELETE FROM provider WHERE tenant_id = %(tenant_id)s::uuid AND provider_id = %(provider_id)s::text;

-- name: list_applied
-- The applied providers of a tenant, oldest first.
SELECT tenant_id, provider_id, kind, base_url, models, default_model, preferred, sealed_key, key_imported, key_time, create_time, update_time
FROM applied_provider WHERE tenant_id = %(tenant_id)s::uuid ORDER BY create_time, provider_id;

-- name: forget_applied
-- Begin a new applied state.
DELETE FROM applied_provider WHERE tenant_id = %(tenant_id)s::uuid;

-- name: copy_applied
-- Make the desired state the applied one, keys included.
INSERT INTO applied_provider (
    tenant_id, provider_id, kind, base_url, models, default_model, preferred, sealed_key, key_imported, key_time, create_time, update_time
)
SELECT tenant_id, provider_id, kind, base_url, models, default_model, preferred, sealed_key, key_imported, key_time, create_time, update_time
FROM provider WHERE tenant_id = %(tenant_id)s::uuid;

-- name: mark_applied
-- Say when the runtime was applied.
UPDATE runtime SET apply_time = now() WHERE tenant_id = %(tenant_id)s::uuid;

-- name: put_token
-- Give a sandbox a token in place of the one it had.
INSERT INTO model_token (sandbox_id, tenant_id, user_id, digest)
VALUES (%(sandbox_id)s::uuid, %(tenant_id)s::uuid, %(user_id)s::uuid, %(digest)s::bytea)
ON CONFLICT (sandbox_id) DO UPDATE
SET tenant_id = excluded.tenant_id, user_id = excluded.user_id, digest = excluded.digest, create_time = now();

-- name: find_token
-- Whose token it is.
SELECT tenant_id, user_id, sandbox_id FROM model_token WHERE digest = %(digest)s::bytea;

-- name: stale_provider_keys
-- Keys of wanted providers that are sealed with another data key than the active one, after a provider.
SELECT provider_id AS id, 'provider:' || tenant_id || ':' || provider_id AS record, sealed_key AS sealed, key_imported AS imported
FROM provider
WHERE tenant_id = %(tenant_id)s::uuid AND sealed_key <> '' AND sealed_by IS DISTINCT FROM %(key_id)s::text
  AND provider_id > %(after)s::text
ORDER BY provider_id LIMIT %(size)s::int;

-- name: reseal_provider_key
-- Keep a key as another data key seals it, unless it was changed since. It is the same key, so its time stays.
UPDATE provider SET sealed_key = %(sealed)s::text, key_imported = false
WHERE tenant_id = %(tenant_id)s::uuid AND provider_id = %(id)s::text AND sealed_key = %(was)s::text;

-- name: count_provider_keys
-- How many keys of wanted providers each data key seals. The empty name stands for a master key.
SELECT coalesce(sealed_by, '') AS key_id, count(*)::int AS secrets
FROM provider WHERE tenant_id = %(tenant_id)s::uuid AND sealed_key <> '' GROUP BY sealed_by;

-- name: original_provider_keys
-- How many keys of wanted providers, of all tenants, a master key sealed by itself. The original product's have no name.
SELECT CASE WHEN key_imported THEN '' ELSE split_part(sealed_key, ':', 2) END AS key_id, count(*)::int AS secrets
FROM provider WHERE sealed_key <> '' AND sealed_by IS NULL GROUP BY 1;

-- name: stale_applied_provider_keys
-- Keys of applied providers that are sealed with another data key than the active one, after a provider.
SELECT provider_id AS id, 'provider:' || tenant_id || ':' || provider_id AS record, sealed_key AS sealed, key_imported AS imported
FROM applied_provider
WHERE tenant_id = %(tenant_id)s::uuid AND sealed_key <> '' AND sealed_by IS DISTINCT FROM %(key_id)s::text
  AND provider_id > %(after)s::text
ORDER BY provider_id LIMIT %(size)s::int;

-- name: reseal_applied_provider_key
-- Keep a key as another data key seals it, unless it was changed since. It is the same key, so its time stays.
UPDATE applied_provider SET sealed_key = %(sealed)s::text, key_imported = false
WHERE tenant_id = %(tenant_id)s::uuid AND provider_id = %(id)s::text AND sealed_key = %(was)s::text;

-- name: count_applied_provider_keys
-- How many keys of applied providers each data key seals. The empty name stands for a master key.
SELECT coalesce(sealed_by, '') AS key_id, count(*)::int AS secrets
FROM applied_provider WHERE tenant_id = %(tenant_id)s::uuid AND sealed_key <> '' GROUP BY sealed_by;

-- name: original_applied_provider_keys
-- How many keys of applied providers, of all tenants, a master key sealed by itself. The original product's have no name.
SELECT CASE WHEN key_imported THEN '' ELSE split_part(sealed_key, ':', 2) END AS key_id, count(*)::int AS secrets
FROM applied_provider WHERE sealed_key <> '' AND sealed_by IS NULL GROUP BY 1;
