-- What the keyring asks of the secrets of identity providers.

-- name: stale_provider_secrets
-- Secrets that are sealed with another data key than the active one, after an identity provider.
SELECT identity_provider_id AS id, 'identity_provider:' || tenant_id || ':' || identity_provider_id AS record,
       sealed_secret AS sealed, false AS imported
FROM identity_provider
WHERE tenant_id = %(tenant_id)s::uuid AND sealed_secret <> '' AND sealed_by IS DISTINCT FROM %(key_id)s::text
  AND identity_provider_id > %(after)s::text
ORDER BY identity_provider_id LIMIT %(size)s::int;

-- name: reseal_provider_secret
-- Keep a secret as another data key seals it, unless it was changed since.
UPDATE identity_provider SET sealed_secret = %(sealed)s::text
WHERE tenant_id = %(tenant_id)s::uuid AND identity_provider_id = %(id)s::text AND sealed_secret = %(was)s::text;

-- name: count_provider_secrets
-- How many secrets each data key seals.
SELECT coalesce(sealed_by, '') AS key_id, count(*)::int AS secrets
FROM identity_provider WHERE tenant_id = %(tenant_id)s::uuid AND sealed_secret <> '' GROUP BY sealed_by;

-- name: original_provider_secrets
-- How many secrets, of all tenants, a master key sealed by itself.
SELECT split_part(sealed_secret, ':', 2) AS key_id, count(*)::int AS secrets
FROM identity_provider WHERE sealed_secret <> '' AND sealed_by IS NULL GROUP BY 1;
