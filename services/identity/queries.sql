-- What identity asks of its tables: tenants, roles, users, and what they may do.

-- name: add_tenant
-- Add a tenant.
INSERT INTO tenant (tenant_id, slug, name, request_id, request_digest)
VALUES (%(tenant_id)s::uuid, %(slug)s::text, %(tenant_name)s::text, %(request_id)s::uuid, %(request_digest)s::bytea)
ON CONFLICT DO NOTHING;

-- name: lock_tenant
-- Put the changes of a tenant's people and roles in order: whoever holds this row sees all that was changed before.
SELECT tenant_id FROM tenant WHERE tenant_id = %(tenant_id)s::uuid FOR NO KEY UPDATE;

-- name: find_tenant
-- One tenant, by its id or its slug.
SELECT tenant.tenant_id, tenant.slug, tenant.name, tenant.status, tenant.create_time, role.name AS default_role,
    tenant.request_digest
FROM tenant LEFT JOIN role ON role.tenant_id = tenant.tenant_id AND role.role_id = tenant.default_role_id
WHERE tenant.tenant_id = %(tenant_id)s::uuid OR tenant.slug = %(slug)s::text OR tenant.request_id = %(request_id)s::uuid;

-- name: page_tenants
-- Tenants by slug, after a slug.
SELECT tenant.tenant_id, tenant.slug, tenant.name, tenant.status, tenant.create_time, role.name AS default_role
FROM tenant LEFT JOIN role ON role.tenant_id = tenant.tenant_id AND role.role_id = tenant.default_role_id
WHERE tenant.slug > %(after)s::text ORDER BY tenant.slug LIMIT %(size)s::int;

-- name: list_tenant_ids
-- Every tenant.
SELECT tenant_id FROM tenant ORDER BY tenant_id;

-- name: save_tenant
-- Change a tenant.
UPDATE tenant SET name = %(tenant_name)s::text, default_role_id = %(default_role_id)s::uuid
WHERE tenant_id = %(tenant_id)s::uuid;

-- name: list_group_roles
-- Which groups of a tenant have which role, in the order in which they were said.
SELECT group_role.group_name, group_role.role_id, role.name AS role
FROM group_role JOIN role ON role.tenant_id = group_role.tenant_id AND role.role_id = group_role.role_id
WHERE group_role.tenant_id = %(tenant_id)s::uuid ORDER BY group_role.place, group_role.group_name;

-- name: clear_group_roles
-- Forget which groups have which role.
DELETE FROM group_role WHERE tenant_id = %(tenant_id)s::uuid;

-- name: add_group_role
-- Give a group a role.
INSERT INTO group_role (tenant_id, group_name, role_id, place)
VALUES (%(tenant_id)s::uuid, %(group_name)s::text, %(role_id)s::uuid, %(place)s::int) ON CONFLICT DO NOTHING;

-- name: add_role
-- Make a role.
INSERT INTO role (role_id, tenant_id, name, description, permissions, built_in, request_id, request_digest)
VALUES (
    %(role_id)s::uuid, %(tenant_id)s::uuid, %(role_name)s::text, %(description)s::text, %(permissions)s::jsonb,
    %(built_in)s::bool, %(request_id)s::uuid, %(request_digest)s::bytea
);

-- name: put_built_in_role
-- Make a role that comes with the tenant, or bring it to what this release says of it.
INSERT INTO role (role_id, tenant_id, name, description, permissions, built_in)
VALUES (
    %(role_id)s::uuid, %(tenant_id)s::uuid, %(role_name)s::text, %(description)s::text, %(permissions)s::jsonb, true
)
ON CONFLICT (tenant_id, name) DO UPDATE
SET description = excluded.description, permissions = excluded.permissions, built_in = true, update_time = now()
WHERE role.permissions <> excluded.permissions OR role.description <> excluded.description OR NOT role.built_in;

-- name: find_role
-- One role of a tenant, by its id, its name, or the request that made it.
SELECT role_id, tenant_id, name, description, permissions, built_in, create_time, update_time, request_digest
FROM role
WHERE
    tenant_id = %(tenant_id)s::uuid
    AND (role_id = %(role_id)s::uuid OR name = %(role_name)s::text OR request_id = %(request_id)s::uuid)
ORDER BY role_id = %(role_id)s::uuid DESC NULLS LAST LIMIT 1;

-- name: find_roles
-- Roles of a tenant by their ids.
SELECT role_id, tenant_id, name, description, permissions, built_in, create_time, update_time
FROM role WHERE tenant_id = %(tenant_id)s::uuid AND role_id = ANY (%(role_ids)s::uuid[]);

-- name: page_roles
-- Roles of a tenant, those that came with it first, then by name, after a name.
SELECT role_id, tenant_id, name, description, permissions, built_in, create_time, update_time
FROM role
WHERE
    tenant_id = %(tenant_id)s::uuid
    AND (NOT built_in, name) > (NOT %(after_built_in)s::bool, %(after)s::text)
ORDER BY NOT built_in, name LIMIT %(size)s::int;

-- name: save_role
-- Change a role.
UPDATE role
SET
    name = %(role_name)s::text, description = %(description)s::text, permissions = %(permissions)s::jsonb,
    update_time = clock_timestamp()
WHERE tenant_id = %(tenant_id)s::uuid AND role_id = %(role_id)s::uuid;

-- name: delete_role
-- Delete a role, and take it from all who have it.
DELETE FROM role WHERE tenant_id = %(tenant_id)s::uuid AND role_id = %(role_id)s::uuid;

-- name: list_role_sets
-- Which sets of roles the holders of a role have: few, however many the holders are.
SELECT DISTINCT held.role_ids
FROM (
    SELECT array_agg(DISTINCT every.role_id ORDER BY every.role_id) AS role_ids
    FROM user_role AS every
    WHERE
        every.tenant_id = %(tenant_id)s::uuid
        AND every.user_id IN (
            SELECT user_id FROM user_role
            WHERE tenant_id = %(tenant_id)s::uuid AND role_id = %(role_id)s::uuid
        )
    GROUP BY every.user_id
) AS held;

-- name: add_user
-- Add a user.
INSERT INTO user_account (
    user_id, tenant_id, handle, email, display_name, status, identity_provider, subject, directory_object_id, external_id,
    password_hash, request_id, request_digest
) VALUES (
    %(user_id)s::uuid, %(tenant_id)s::uuid, %(handle)s::text, %(email)s::text, %(display_name)s::text, %(status)s::text,
    %(identity_provider)s::text, %(subject)s::text, %(directory_object_id)s::text, %(external_id)s::text,
    %(password_hash)s::text, %(request_id)s::uuid, %(request_digest)s::bytea
)
ON CONFLICT DO NOTHING;

-- name: find_user
-- One user of a tenant, by their id, their handle, or the request that made them.
SELECT
    person.user_id, person.tenant_id, person.handle, person.email, person.display_name, person.status,
    person.identity_provider, person.subject, person.password_hash, person.sign_in_time, person.create_time,
    person.update_time, person.request_digest,
    ARRAY(
        SELECT DISTINCT role.name FROM user_role JOIN role USING (tenant_id, role_id)
        WHERE user_role.tenant_id = person.tenant_id AND user_role.user_id = person.user_id ORDER BY role.name
    ) AS roles
FROM user_account AS person
WHERE
    person.tenant_id = %(tenant_id)s::uuid
    AND (
        person.user_id = %(user_id)s::uuid OR person.handle = %(handle)s::text
        OR person.request_id = %(request_id)s::uuid
    )
ORDER BY person.user_id = %(user_id)s::uuid DESC NULLS LAST LIMIT 1;

-- name: find_users_by_email
-- Users of a tenant with a mail address; two rows are enough to know that it names nobody.
SELECT user_id FROM user_account
WHERE tenant_id = %(tenant_id)s::uuid AND email <> '' AND lower(email) = lower(%(email)s::text) LIMIT 2;

-- name: page_users
-- Users of a tenant by handle, after a handle.
SELECT
    person.user_id, person.tenant_id, person.handle, person.email, person.display_name, person.status,
    person.identity_provider, person.subject, person.password_hash, person.sign_in_time, person.create_time,
    person.update_time,
    ARRAY(
        SELECT DISTINCT role.name FROM user_role JOIN role USING (tenant_id, role_id)
        WHERE user_role.tenant_id = person.tenant_id AND user_role.user_id = person.user_id ORDER BY role.name
    ) AS roles
FROM user_account AS person
WHERE person.tenant_id = %(tenant_id)s::uuid AND person.handle > %(after)s::text
ORDER BY person.handle LIMIT %(size)s::int;

-- name: save_user
-- Change a user.
UPDATE user_account
SET
    handle = %(handle)s::text, email = %(email)s::text, display_name = %(display_name)s::text, status = %(status)s::text,
    update_time = clock_timestamp()
WHERE tenant_id = %(tenant_id)s::uuid AND user_id = %(user_id)s::uuid;

-- name: save_password
-- Set or forget the password of a user.
UPDATE user_account SET password_hash = %(password_hash)s::text, update_time = clock_timestamp()
WHERE tenant_id = %(tenant_id)s::uuid AND user_id = %(user_id)s::uuid;

-- name: rehash_password
-- Keep the same password in another form, unless it was changed meanwhile.
UPDATE user_account SET password_hash = %(password_hash)s::text
WHERE tenant_id = %(tenant_id)s::uuid AND user_id = %(user_id)s::uuid AND password_hash = %(before)s::text;

-- name: roles_of_user
-- The roles of a user.
SELECT DISTINCT role.role_id, role.tenant_id, role.name, role.description, role.permissions, role.built_in,
    role.create_time, role.update_time
FROM user_role JOIN role USING (tenant_id, role_id)
WHERE user_role.tenant_id = %(tenant_id)s::uuid AND user_role.user_id = %(user_id)s::uuid;

-- name: assign_role
-- Give a user a role.
INSERT INTO user_role (tenant_id, user_id, role_id, source)
VALUES (%(tenant_id)s::uuid, %(user_id)s::uuid, %(role_id)s::uuid, %(source)s::text) ON CONFLICT DO NOTHING;

-- name: unassign_role
-- Take a role from a user, from wherever they have it.
DELETE FROM user_role
WHERE tenant_id = %(tenant_id)s::uuid AND user_id = %(user_id)s::uuid AND role_id = %(role_id)s::uuid;

-- name: keep_group_roles
-- Take from a user the roles that came from groups, but for those that they still have by one.
DELETE FROM user_role
WHERE
    tenant_id = %(tenant_id)s::uuid AND user_id = %(user_id)s::uuid AND source = 'group'
    AND role_id <> ALL (%(role_ids)s::uuid[]);

-- name: other_owners
-- How many active users besides one are owners.
SELECT count(DISTINCT person.user_id)::int AS owners
FROM user_role JOIN role USING (tenant_id, role_id) JOIN user_account AS person USING (tenant_id, user_id)
WHERE
    user_role.tenant_id = %(tenant_id)s::uuid AND role.name = 'owner' AND role.built_in
    AND person.status = 'active' AND person.user_id <> %(user_id)s::uuid;

-- name: tell_news
-- Tell every replica that what a user or a tenant may do is to be read anew. It is told with the commit, or not at all.
SELECT pg_notify('oiab_identity', %(news)s::text);
