-- What signing in asks of the tables: sign-ins, their tokens, API tokens, failures, and devices.

-- name: sign_in_standing
-- How a sign-in, its user and their tenant stand, and what the user's roles give.
SELECT
    sign_in.tenant_id, sign_in.user_id, sign_in.revoke_time IS NULL AS holds, person.status, tenant.status AS tenant_status,
    ARRAY(
        SELECT role.permissions
        FROM role JOIN user_role USING (tenant_id, role_id)
        WHERE user_role.tenant_id = person.tenant_id AND user_role.user_id = person.user_id
    ) AS permissions
FROM sign_in JOIN user_account AS person USING (tenant_id, user_id) JOIN tenant USING (tenant_id)
WHERE sign_in.tenant_id = %(tenant_id)s::uuid AND sign_in.sign_in_id = %(sign_in_id)s::uuid;

-- name: api_token_standing
-- How an API token, its user and their tenant stand, and what the user's roles give.
SELECT
    token.api_token_id, token.tenant_id, token.user_id, token.name, token.scopes, token.prefix, token.digest,
    token.create_time, token.expire_time, token.last_use_time, token.revoke_time IS NULL AS holds, person.status,
    tenant.status AS tenant_status,
    ARRAY(
        SELECT role.permissions
        FROM role JOIN user_role USING (tenant_id, role_id)
        WHERE user_role.tenant_id = person.tenant_id AND user_role.user_id = person.user_id
    ) AS permissions
FROM api_token AS token JOIN user_account AS person USING (tenant_id, user_id) JOIN tenant USING (tenant_id)
WHERE token.api_token_id = %(api_token_id)s::uuid;

-- name: user_standing
-- How a user and their tenant stand, and what the user's roles give.
SELECT
    person.tenant_id, person.user_id, true AS holds, person.status, tenant.status AS tenant_status,
    ARRAY(
        SELECT role.permissions
        FROM role JOIN user_role USING (tenant_id, role_id)
        WHERE user_role.tenant_id = person.tenant_id AND user_role.user_id = person.user_id
    ) AS permissions
FROM user_account AS person JOIN tenant USING (tenant_id)
WHERE person.tenant_id = %(tenant_id)s::uuid AND person.user_id = %(user_id)s::uuid;

-- name: add_sign_in
-- Begin a sign-in.
INSERT INTO sign_in (
    sign_in_id, tenant_id, user_id, device, ip_address, user_agent, identity_provider, create_time, refresh_time,
    expire_time
) VALUES (
    %(sign_in_id)s::uuid, %(tenant_id)s::uuid, %(user_id)s::uuid, %(device)s::text, %(ip_address)s::text,
    %(user_agent)s::text, %(identity_provider)s::text, %(now)s::timestamptz, %(now)s::timestamptz,
    %(expire_time)s::timestamptz
);

-- name: mark_signed_in
-- Remember when a user last signed in.
UPDATE user_account SET sign_in_time = %(now)s::timestamptz
WHERE tenant_id = %(tenant_id)s::uuid AND user_id = %(user_id)s::uuid;

-- name: page_sign_ins
-- The sign-ins of a user that hold, newest first, before an id.
SELECT
    sign_in_id, tenant_id, user_id, device, ip_address, identity_provider, create_time, refresh_time, expire_time
FROM sign_in
WHERE
    tenant_id = %(tenant_id)s::uuid AND user_id = %(user_id)s::uuid
    AND (%(before)s::uuid IS NULL OR sign_in_id < %(before)s::uuid)
    AND revoke_time IS NULL AND expire_time > now()
ORDER BY sign_in_id DESC LIMIT %(size)s::int;

-- name: revoke_sign_in
-- End a sign-in of a user.
UPDATE sign_in SET revoke_time = now(), revoke_reason = %(reason)s::text
WHERE
    tenant_id = %(tenant_id)s::uuid AND user_id = %(user_id)s::uuid AND sign_in_id = %(sign_in_id)s::uuid
    AND revoke_time IS NULL AND expire_time > now();

-- name: revoke_sign_ins
-- End every sign-in of a user, but for one.
UPDATE sign_in SET revoke_time = now(), revoke_reason = %(reason)s::text
WHERE
    tenant_id = %(tenant_id)s::uuid AND user_id = %(user_id)s::uuid
    AND (%(but)s::uuid IS NULL OR sign_in_id <> %(but)s::uuid)
    AND revoke_time IS NULL AND expire_time > now();

-- name: deny_approved_devices
-- Deny the devices that a user has approved and that have not come back yet: they would be signed in after all.
UPDATE device_sign_in SET state = 'denied', user_id = NULL
WHERE tenant_id = %(tenant_id)s::uuid AND user_id = %(user_id)s::uuid AND state = 'approved';

-- name: known_address
-- Whether a user has signed in from an address within a month.
SELECT EXISTS (
    SELECT FROM sign_in
    WHERE
        tenant_id = %(tenant_id)s::uuid AND user_id = %(user_id)s::uuid AND ip_address = %(ip_address)s::text
        AND create_time > now() - interval '30 days'
) AS known;

-- name: add_refresh_token
-- Keep a refresh token.
INSERT INTO refresh_token (digest, tenant_id, sign_in_id, expire_time)
VALUES (%(digest)s::bytea, %(tenant_id)s::uuid, %(sign_in_id)s::uuid, %(expire_time)s::timestamptz);

-- name: lock_refresh_token
-- Read a refresh token and hold it with its sign-in until the transaction ends: of two who come with it, one is first.
SELECT
    token.tenant_id, sign_in.user_id, token.sign_in_id, token.expire_time, token.use_time, token.use_request, token.successor,
    sign_in.revoke_time IS NOT NULL AS revoked,
    EXISTS (
        SELECT FROM refresh_token AS successor
        WHERE successor.digest = token.successor AND successor.use_time IS NOT NULL
    ) AS successor_used
FROM refresh_token AS token JOIN sign_in USING (tenant_id, sign_in_id)
WHERE token.digest = %(digest)s::bytea
FOR UPDATE OF token, sign_in;

-- name: use_refresh_token
-- Mark a refresh token as used, with what takes its place.
UPDATE refresh_token
SET use_time = %(now)s::timestamptz, use_request = %(request_id)s::uuid, successor = %(successor)s::bytea
WHERE digest = %(digest)s::bytea;

-- name: refresh_sign_in
-- A sign-in goes on for as long as its new token.
UPDATE sign_in SET refresh_time = %(now)s::timestamptz, expire_time = %(expire_time)s::timestamptz
WHERE tenant_id = %(tenant_id)s::uuid AND sign_in_id = %(sign_in_id)s::uuid;

-- name: add_api_token
-- Keep an API token.
INSERT INTO api_token (
    api_token_id, tenant_id, user_id, name, scopes, prefix, digest, expire_time, request_id, request_digest
) VALUES (
    %(api_token_id)s::uuid, %(tenant_id)s::uuid, %(user_id)s::uuid, %(token_name)s::text, %(scopes)s::text[], %(prefix)s::text,
    %(digest)s::bytea, %(expire_time)s::timestamptz, %(request_id)s::uuid, %(request_digest)s::bytea
)
ON CONFLICT DO NOTHING;

-- name: find_api_token
-- One API token of a user, by its id or by the request that made it.
SELECT
    api_token_id, tenant_id, user_id, name, scopes, prefix, digest, expire_time, create_time, last_use_time, request_digest
FROM api_token
WHERE
    tenant_id = %(tenant_id)s::uuid AND user_id = %(user_id)s::uuid
    AND (api_token_id = %(api_token_id)s::uuid OR request_id = %(request_id)s::uuid);

-- name: page_api_tokens
-- The API tokens of a user that hold, newest first, before an id.
SELECT api_token_id, tenant_id, user_id, name, scopes, prefix, digest, expire_time, create_time, last_use_time
FROM api_token
WHERE
    tenant_id = %(tenant_id)s::uuid AND user_id = %(user_id)s::uuid
    AND (%(before)s::uuid IS NULL OR api_token_id < %(before)s::uuid)
    AND revoke_time IS NULL AND expire_time > now()
ORDER BY api_token_id DESC LIMIT %(size)s::int;

-- name: revoke_api_token
-- End an API token of a user.
UPDATE api_token SET revoke_time = now()
WHERE
    tenant_id = %(tenant_id)s::uuid AND user_id = %(user_id)s::uuid AND api_token_id = %(api_token_id)s::uuid
    AND revoke_time IS NULL AND expire_time > now();

-- name: revoke_api_tokens
-- End every API token of a user.
UPDATE api_token SET revoke_time = now()
WHERE tenant_id = %(tenant_id)s::uuid AND user_id = %(user_id)s::uuid AND revoke_time IS NULL AND expire_time > now();

-- name: touch_api_tokens
-- Remember when API tokens were last used.
UPDATE api_token SET last_use_time = used.use_time
FROM unnest(%(ids)s::uuid[], %(times)s::timestamptz[]) AS used (api_token_id, use_time)
WHERE
    api_token.api_token_id = used.api_token_id
    AND (api_token.last_use_time IS NULL OR api_token.last_use_time < used.use_time);

-- name: count_attempt
-- Count an attempt to sign in as a failure, and say how many there were. What is a day old is forgotten.
INSERT INTO attempt (tenant_id, subject, failures, wait_until)
VALUES (%(tenant_id)s::uuid, %(subject)s::text, 1, to_timestamp(0))
ON CONFLICT (tenant_id, subject) DO UPDATE
SET
    failures = CASE WHEN attempt.change_time < now() - %(forget_after)s::interval THEN 1 ELSE attempt.failures + 1 END,
    change_time = now()
RETURNING failures, wait_until;

-- name: delay_attempts
-- Let the next attempt wait.
UPDATE attempt SET wait_until = %(wait_until)s::timestamptz
WHERE tenant_id = %(tenant_id)s::uuid AND subject = %(subject)s::text;

-- name: forget_attempts
-- Forget the failures of a counter.
DELETE FROM attempt WHERE tenant_id = %(tenant_id)s::uuid AND subject = %(subject)s::text;

-- name: take_back_attempt
-- An attempt was none that failed.
UPDATE attempt SET failures = greatest(failures - 1, 0), wait_until = to_timestamp(0)
WHERE tenant_id = %(tenant_id)s::uuid AND subject = %(subject)s::text;

-- name: add_device_sign_in
-- A device asks to be signed in.
INSERT INTO device_sign_in (
    device_digest, tenant_id, user_code, device, ip_address, user_agent, expire_time, poll_seconds
) VALUES (
    %(device_digest)s::bytea, %(tenant_id)s::uuid, %(user_code)s::text, %(device)s::text, %(ip_address)s::text,
    %(user_agent)s::text, %(expire_time)s::timestamptz, %(poll_seconds)s::int
)
ON CONFLICT DO NOTHING;

-- name: lock_device_sign_in
-- Read the request of a device by the device's code, and hold it until the transaction ends.
SELECT
    device_digest, tenant_id, user_code, device, ip_address, user_agent, state, user_id, identity_provider, create_time,
    expire_time, poll_time, poll_seconds
FROM device_sign_in WHERE device_digest = %(device_digest)s::bytea FOR UPDATE;

-- name: lock_device_by_user_code
-- Read the request of a device by the code that its user types, and hold it until the transaction ends.
SELECT
    device_digest, tenant_id, user_code, device, ip_address, user_agent, state, user_id, identity_provider, create_time,
    expire_time, poll_time, poll_seconds
FROM device_sign_in WHERE user_code = %(user_code)s::text FOR UPDATE;

-- name: save_device_sign_in
-- Change how the request of a device stands.
UPDATE device_sign_in
SET
    tenant_id = %(tenant_id)s::uuid, state = %(state)s::text, user_id = %(user_id)s::uuid,
    identity_provider = %(identity_provider)s::text, poll_time = %(poll_time)s::timestamptz,
    poll_seconds = %(poll_seconds)s::int
WHERE device_digest = %(device_digest)s::bytea;

-- name: list_provider_choices
-- The identity providers of a tenant, to be offered.
SELECT identity_provider_id, display_name FROM identity_provider
WHERE tenant_id = %(tenant_id)s::uuid ORDER BY identity_provider_id;

-- name: forget_attempts_of_yesterday
-- Forget failures that no longer count.
DELETE FROM attempt WHERE change_time < now() - %(forget_after)s::interval;

-- name: forget_devices
-- Forget devices that nobody signed in.
DELETE FROM device_sign_in WHERE expire_time < now() - interval '1 hour';

-- name: forget_sign_ins
-- Forget sign-ins, with their tokens, that ended a month ago.
DELETE FROM sign_in WHERE expire_time < now() - interval '30 days';

-- name: forget_refresh_tokens
-- Forget refresh tokens that ended a day ago: by then a second use says no more than that it has ended.
DELETE FROM refresh_token WHERE expire_time < now() - interval '1 day';
