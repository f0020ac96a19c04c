-- What the browser's door asks of the tables: identity providers, sign-ins on their way, and SCIM.

-- name: put_identity_provider
-- Keep an identity provider. An empty secret leaves the one before.
INSERT INTO identity_provider (
    tenant_id, identity_provider_id, display_name, issuer, client_id, sealed_secret, scopes, groups_claim, create_users,
    directory_id
) VALUES (
    %(tenant_id)s::uuid, %(identity_provider_id)s::text, %(display_name)s::text, %(issuer)s::text, %(client_id)s::text,
    %(sealed_secret)s::text, %(scopes)s::text[], %(groups_claim)s::text, %(create_users)s::bool, %(directory_id)s::text
)
ON CONFLICT (tenant_id, identity_provider_id) DO UPDATE
SET
    display_name = excluded.display_name, issuer = excluded.issuer, client_id = excluded.client_id,
    sealed_secret = CASE WHEN excluded.sealed_secret = '' THEN identity_provider.sealed_secret ELSE excluded.sealed_secret END,
    scopes = excluded.scopes, groups_claim = excluded.groups_claim, create_users = excluded.create_users,
    directory_id = excluded.directory_id, update_time = clock_timestamp();

-- name: find_identity_provider
-- One identity provider.
SELECT
    tenant_id, identity_provider_id, display_name, issuer, client_id, sealed_secret, scopes, groups_claim, create_users,
    directory_id, update_time
FROM identity_provider
WHERE tenant_id = %(tenant_id)s::uuid AND identity_provider_id = %(identity_provider_id)s::text;

-- name: page_identity_providers
-- Identity providers of a tenant by id, after an id.
SELECT
    tenant_id, identity_provider_id, display_name, issuer, client_id, sealed_secret, scopes, groups_claim, create_users,
    directory_id, update_time
FROM identity_provider
WHERE tenant_id = %(tenant_id)s::uuid AND identity_provider_id > %(after)s::text
ORDER BY identity_provider_id LIMIT %(size)s::int;

-- name: delete_identity_provider
-- Remove an identity provider.
DELETE FROM identity_provider
WHERE tenant_id = %(tenant_id)s::uuid AND identity_provider_id = %(identity_provider_id)s::text;

-- name: count_linked_users
-- How many users are known by an identity provider.
SELECT count(*)::int AS users FROM user_account
WHERE tenant_id = %(tenant_id)s::uuid AND identity_provider = %(identity_provider_id)s::text;

-- name: add_web_sign_in
-- A browser begins to sign in.
INSERT INTO web_sign_in (state_digest, tenant_id, identity_provider_id, browser_digest, redirect, expire_time)
VALUES (
    %(state_digest)s::bytea, %(tenant_id)s::uuid, %(identity_provider_id)s::text, %(browser_digest)s::bytea,
    %(redirect)s::text, %(expire_time)s::timestamptz
);

-- name: take_web_sign_in
-- Take a sign-in that a browser has begun: of two who come with it, one gets it.
DELETE FROM web_sign_in WHERE state_digest = %(state_digest)s::bytea
RETURNING tenant_id, identity_provider_id, browser_digest, redirect, expire_time;

-- name: forget_web_sign_ins
-- Forget sign-ins that nobody ended.
DELETE FROM web_sign_in WHERE expire_time < now();

-- name: find_user_by_subject
-- The user whom an identity provider knows by a subject.
SELECT user_id FROM user_account
WHERE
    tenant_id = %(tenant_id)s::uuid AND identity_provider = %(identity_provider)s::text AND subject = %(subject)s::text;

-- name: find_waiting_users
-- Users who were added to sign in by an identity provider and have not yet: by the id that SCIM gave them, or by a mail
-- address that the provider has verified. Two rows are enough to know that it names nobody.
SELECT user_id FROM user_account
WHERE
    tenant_id = %(tenant_id)s::uuid AND identity_provider = '' AND password_hash = '' AND user_id <> %(operator)s::uuid
    AND status <> 'deactivated'
    AND (
        (external_id <> '' AND external_id = %(subject)s::text)
        OR (%(email)s::text <> '' AND email <> '' AND lower(email) = lower(%(email)s::text))
    )
LIMIT 2;

-- name: link_user
-- From now on an identity provider knows a user by a subject.
UPDATE user_account
SET
    identity_provider = %(identity_provider)s::text, subject = %(subject)s::text,
    directory_object_id = %(directory_object_id)s::text, update_time = clock_timestamp()
WHERE
    tenant_id = %(tenant_id)s::uuid AND user_id = %(user_id)s::uuid AND identity_provider = '' AND password_hash = '';

-- name: user_groups
-- The names of the groups of a user that SCIM has brought.
SELECT user_group.name FROM user_group_member JOIN user_group USING (tenant_id, group_id)
WHERE user_group_member.tenant_id = %(tenant_id)s::uuid AND user_group_member.user_id = %(user_id)s::uuid
ORDER BY user_group.name;

-- name: put_scim_token
-- Keep the digest of a tenant's SCIM token, in place of the one before.
INSERT INTO scim_token (tenant_id, digest) VALUES (%(tenant_id)s::uuid, %(digest)s::bytea)
ON CONFLICT (tenant_id) DO UPDATE SET digest = excluded.digest, create_time = now(), last_use_time = NULL;

-- name: find_scim_token
-- Whose a SCIM token is.
SELECT scim_token.tenant_id, tenant.status FROM scim_token JOIN tenant USING (tenant_id)
WHERE scim_token.digest = %(digest)s::bytea;

-- name: touch_scim_token
-- Remember when a SCIM token was last used, by the minute.
UPDATE scim_token SET last_use_time = now()
WHERE
    tenant_id = %(tenant_id)s::uuid AND (last_use_time IS NULL OR last_use_time < now() - interval '1 minute');

-- name: revoke_group_roles
-- Take from a user roles that came from groups.
DELETE FROM user_role
WHERE
    tenant_id = %(tenant_id)s::uuid AND user_id = %(user_id)s::uuid AND source = 'group'
    AND role_id = ANY (%(role_ids)s::uuid[]);

-- name: scim_users
-- Users as SCIM sees them, in the order in which they were added, with how many there are in all.
SELECT
    person.user_id, person.handle, person.email, person.display_name, person.status, person.external_id,
    person.create_time, person.update_time, count(*) OVER ()::int AS total,
    ARRAY(
        SELECT json_build_object('id', user_group.group_id, 'name', user_group.name)
        FROM user_group_member JOIN user_group USING (tenant_id, group_id)
        WHERE user_group_member.tenant_id = person.tenant_id AND user_group_member.user_id = person.user_id
        ORDER BY user_group.name
    ) AS groups
FROM user_account AS person
WHERE
    person.tenant_id = %(tenant_id)s::uuid AND person.user_id <> %(operator)s::uuid AND person.status <> 'deactivated'
    AND (%(user_id)s::uuid IS NULL OR person.user_id = %(user_id)s::uuid)
    AND (%(handle)s::text IS NULL OR person.handle = %(handle)s::text)
    AND (%(external_id)s::text IS NULL OR person.external_id = %(external_id)s::text)
    AND (%(email)s::text IS NULL OR lower(person.email) = lower(%(email)s::text))
ORDER BY person.user_id OFFSET %(skip)s::int LIMIT %(size)s::int;

-- name: save_external_id
-- Change the id of a user in the program that brings them.
UPDATE user_account SET external_id = %(external_id)s::text
WHERE tenant_id = %(tenant_id)s::uuid AND user_id = %(user_id)s::uuid;

-- name: leave_groups
-- Take a user out of every group.
DELETE FROM user_group_member WHERE tenant_id = %(tenant_id)s::uuid AND user_id = %(user_id)s::uuid;

-- name: scim_groups
-- Groups as SCIM sees them, in the order in which they were added, with how many there are in all.
SELECT
    user_group.group_id, user_group.name, user_group.external_id, user_group.create_time, user_group.update_time,
    count(*) OVER ()::int AS total,
    CASE WHEN %(members)s::bool THEN ARRAY(
        SELECT json_build_object('id', person.user_id, 'name', person.display_name)
        FROM user_group_member JOIN user_account AS person USING (tenant_id, user_id)
        WHERE user_group_member.tenant_id = user_group.tenant_id AND user_group_member.group_id = user_group.group_id
        ORDER BY person.user_id
    ) ELSE '{}' END AS members
FROM user_group
WHERE
    user_group.tenant_id = %(tenant_id)s::uuid
    AND (%(group_id)s::uuid IS NULL OR user_group.group_id = %(group_id)s::uuid)
    AND (%(group_name)s::text IS NULL OR lower(user_group.name) = lower(%(group_name)s::text))
    AND (%(external_id)s::text IS NULL OR user_group.external_id = %(external_id)s::text)
ORDER BY user_group.group_id OFFSET %(skip)s::int LIMIT %(size)s::int;

-- name: add_group
-- Add a group.
INSERT INTO user_group (group_id, tenant_id, name, external_id)
VALUES (%(group_id)s::uuid, %(tenant_id)s::uuid, %(group_name)s::text, %(external_id)s::text) ON CONFLICT DO NOTHING;

-- name: save_group
-- Change a group.
UPDATE user_group
SET name = %(group_name)s::text, external_id = %(external_id)s::text, update_time = clock_timestamp()
WHERE tenant_id = %(tenant_id)s::uuid AND group_id = %(group_id)s::uuid;

-- name: delete_group
-- Remove a group.
DELETE FROM user_group WHERE tenant_id = %(tenant_id)s::uuid AND group_id = %(group_id)s::uuid;

-- name: known_users
-- Which of these users there are, without those of the box itself.
SELECT user_id FROM user_account
WHERE
    tenant_id = %(tenant_id)s::uuid AND user_id = ANY (%(user_ids)s::uuid[]) AND user_id <> %(operator)s::uuid
    AND status <> 'deactivated';

-- name: join_group
-- Put users into a group.
INSERT INTO user_group_member (tenant_id, group_id, user_id)
SELECT %(tenant_id)s::uuid, %(group_id)s::uuid, joined.user_id FROM unnest(%(user_ids)s::uuid[]) AS joined (user_id)
ON CONFLICT DO NOTHING;

-- name: quit_group
-- Take users out of a group.
DELETE FROM user_group_member
WHERE
    tenant_id = %(tenant_id)s::uuid AND group_id = %(group_id)s::uuid AND user_id = ANY (%(user_ids)s::uuid[]);

-- name: part_user
-- A user has left: the account has no way in any more, and its name is free.
UPDATE user_account
SET
    status = 'deactivated', handle = left(handle, 80) || '+' || left(user_id::text, 36), identity_provider = '', subject = '',
    directory_object_id = '', external_id = '', password_hash = '', update_time = clock_timestamp()
WHERE tenant_id = %(tenant_id)s::uuid AND user_id = %(user_id)s::uuid;

-- name: drop_roles
-- Take every role from a user.
DELETE FROM user_role WHERE tenant_id = %(tenant_id)s::uuid AND user_id = %(user_id)s::uuid;
