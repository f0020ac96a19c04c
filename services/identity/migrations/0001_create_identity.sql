-- Who people are, how they prove it, and what they may do.

CREATE TABLE tenant (
    tenant_id uuid PRIMARY KEY,
    slug text NOT NULL COLLATE "C" CONSTRAINT slug_is_one_tenants UNIQUE,
    name text NOT NULL,
    status text NOT NULL DEFAULT 'active',
    default_role_id uuid,
    create_time timestamptz NOT NULL DEFAULT now(),
    request_id uuid,
    request_digest bytea,
    CONSTRAINT slug_is_a_slug CHECK (slug ~ '^[a-z][a-z0-9-]{0,62}$'),
    CONSTRAINT tenant_status_is_known CHECK (status IN ('active', 'suspended'))
);

-- For a repeated request: it finds the tenant that the first one made.
CREATE UNIQUE INDEX tenant_request ON tenant (request_id) WHERE request_id IS NOT NULL;

CREATE TABLE role (
    role_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenant,
    name text NOT NULL COLLATE "C",
    description text NOT NULL DEFAULT '',
    permissions jsonb NOT NULL,
    built_in boolean NOT NULL DEFAULT false,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    request_id uuid,
    request_digest bytea,
    CONSTRAINT name_is_one_roles UNIQUE (tenant_id, name),
    -- What belongs to a role names its tenant, too, so that no row ties two tenants together.
    CONSTRAINT role_of_tenant UNIQUE (tenant_id, role_id),
    CONSTRAINT role_name_is_a_slug CHECK (name ~ '^[a-z][a-z0-9-]{0,62}$')
);

-- For a repeated request: it finds the role that the first one made.
CREATE UNIQUE INDEX role_request ON role (tenant_id, request_id) WHERE request_id IS NOT NULL;

ALTER TABLE tenant ADD CONSTRAINT default_role_is_the_tenants
FOREIGN KEY (tenant_id, default_role_id) REFERENCES role (tenant_id, role_id) ON DELETE SET NULL (default_role_id);

-- Which group of the identity provider has which role. It is applied at every sign-in.
CREATE TABLE group_role (
    tenant_id uuid NOT NULL REFERENCES tenant,
    group_name text NOT NULL COLLATE "C",
    role_id uuid NOT NULL,
    place integer NOT NULL,
    PRIMARY KEY (tenant_id, group_name, role_id),
    FOREIGN KEY (tenant_id, role_id) REFERENCES role (tenant_id, role_id) ON DELETE CASCADE
);

CREATE TABLE user_account (
    user_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenant,
    handle text NOT NULL COLLATE "C",
    email text NOT NULL DEFAULT '',
    display_name text NOT NULL DEFAULT '',
    status text NOT NULL DEFAULT 'active',
    -- By which identity provider the user signs in, and who they are there. Both are empty for a local account.
    identity_provider text NOT NULL DEFAULT '',
    subject text NOT NULL DEFAULT '',
    -- Their object id in the directory (`oid` of Entra ID), and their id in the program that brings them by SCIM.
    directory_object_id text NOT NULL DEFAULT '',
    external_id text NOT NULL DEFAULT '',
    password_hash text NOT NULL DEFAULT '',
    sign_in_time timestamptz,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    request_id uuid,
    request_digest bytea,
    CONSTRAINT handle_is_one_users UNIQUE (tenant_id, handle),
    CONSTRAINT user_of_tenant UNIQUE (tenant_id, user_id),
    CONSTRAINT handle_can_be_said CHECK (handle ~ '^[a-z0-9][a-z0-9._@+-]{0,126}$'),
    CONSTRAINT user_status_is_known CHECK (status IN ('active', 'suspended', 'deactivated')),
    CONSTRAINT subject_is_somebodys CHECK ((identity_provider = '') = (subject = '')),
    CONSTRAINT password_is_hashed CHECK (password_hash = '' OR password_hash LIKE '$argon2id$%')
);

-- For a sign-in by an identity provider, which knows its user by the subject.
CREATE UNIQUE INDEX user_account_subject ON user_account (tenant_id, identity_provider, subject) WHERE subject <> '';

-- For a sign-in by mail address, and for SCIM's filters.
CREATE INDEX user_account_email ON user_account (tenant_id, lower(email)) WHERE email <> '';
CREATE INDEX user_account_external ON user_account (tenant_id, external_id) WHERE external_id <> '';

-- For a repeated request: it finds the user that the first one made.
CREATE UNIQUE INDEX user_account_request ON user_account (tenant_id, request_id) WHERE request_id IS NOT NULL;

-- Who has which role: given to them (direct), or because they are in a group (group).
CREATE TABLE user_role (
    tenant_id uuid NOT NULL,
    user_id uuid NOT NULL,
    role_id uuid NOT NULL,
    source text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, user_id, role_id, source),
    FOREIGN KEY (tenant_id, user_id) REFERENCES user_account (tenant_id, user_id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, role_id) REFERENCES role (tenant_id, role_id) ON DELETE CASCADE,
    CONSTRAINT source_is_known CHECK (source IN ('direct', 'group'))
);

-- For the holders of a role, when it changes or goes.
CREATE INDEX user_role_holders ON user_role (tenant_id, role_id);

-- A sign-in: the family of the refresh tokens that keep it.
CREATE TABLE sign_in (
    sign_in_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    user_id uuid NOT NULL,
    device text NOT NULL DEFAULT '',
    ip_address text NOT NULL DEFAULT '',
    user_agent text NOT NULL DEFAULT '',
    identity_provider text NOT NULL DEFAULT '',
    create_time timestamptz NOT NULL DEFAULT now(),
    refresh_time timestamptz NOT NULL DEFAULT now(),
    expire_time timestamptz NOT NULL,
    revoke_time timestamptz,
    -- Why it was ended, such as `signed_out` or `reused`. Empty while it holds.
    revoke_reason text NOT NULL DEFAULT '',
    FOREIGN KEY (tenant_id, user_id) REFERENCES user_account (tenant_id, user_id) ON DELETE CASCADE,
    CONSTRAINT sign_in_of_tenant UNIQUE (tenant_id, sign_in_id),
    CONSTRAINT revoked_for_a_reason CHECK ((revoke_time IS NULL) = (revoke_reason = ''))
);

-- For the list of a user's sign-ins, newest first, and for ending all of them.
CREATE INDEX sign_in_of_user ON sign_in (tenant_id, user_id, sign_in_id DESC);

-- For forgetting what ended long ago.
CREATE INDEX sign_in_expiry ON sign_in (expire_time);

-- Refresh tokens as their digests: who reads the table cannot use them.
CREATE TABLE refresh_token (
    digest bytea PRIMARY KEY,
    tenant_id uuid NOT NULL,
    sign_in_id uuid NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    expire_time timestamptz NOT NULL,
    use_time timestamptz,
    use_request uuid,
    successor bytea,
    FOREIGN KEY (tenant_id, sign_in_id) REFERENCES sign_in (tenant_id, sign_in_id) ON DELETE CASCADE,
    CONSTRAINT refresh_digest_is_sha256 CHECK (octet_length(digest) = 32),
    CONSTRAINT used_for_a_successor CHECK ((use_time IS NULL) = (successor IS NULL))
);

-- For a sign-in that goes, with its tokens.
CREATE INDEX refresh_token_family ON refresh_token (tenant_id, sign_in_id);

CREATE TABLE api_token (
    api_token_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    user_id uuid NOT NULL,
    name text NOT NULL,
    scopes text[] NOT NULL,
    prefix text NOT NULL,
    digest bytea NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    expire_time timestamptz NOT NULL,
    last_use_time timestamptz,
    revoke_time timestamptz,
    request_id uuid,
    request_digest bytea,
    FOREIGN KEY (tenant_id, user_id) REFERENCES user_account (tenant_id, user_id) ON DELETE CASCADE,
    CONSTRAINT api_digest_is_sha256 CHECK (octet_length(digest) = 32),
    CONSTRAINT has_scopes CHECK (cardinality(scopes) > 0)
);

-- For the list of a user's tokens, newest first, and for ending all of them.
CREATE INDEX api_token_of_user ON api_token (tenant_id, user_id, api_token_id DESC);

-- For a repeated request: it finds the token that the first one made.
CREATE UNIQUE INDEX api_token_request ON api_token (tenant_id, user_id, request_id) WHERE request_id IS NOT NULL;

-- Failures to sign in, by account and by address (attempts.py). Accounts that do not exist have rows like the others.
CREATE TABLE attempt (
    tenant_id uuid NOT NULL,
    subject text NOT NULL COLLATE "C",
    failures integer NOT NULL,
    wait_until timestamptz NOT NULL,
    change_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, subject)
);

-- For forgetting what is a day old.
CREATE INDEX attempt_age ON attempt (change_time);

-- Devices that ask to be signed in (RFC 8628). Until somebody approves one it is nobody's, and counts as the first tenant's.
CREATE TABLE device_sign_in (
    device_digest bytea PRIMARY KEY,
    tenant_id uuid NOT NULL,
    user_code text NOT NULL CONSTRAINT user_code_is_one_devices UNIQUE,
    device text NOT NULL DEFAULT '',
    ip_address text NOT NULL DEFAULT '',
    user_agent text NOT NULL DEFAULT '',
    state text NOT NULL DEFAULT 'pending',
    user_id uuid,
    identity_provider text NOT NULL DEFAULT '',
    create_time timestamptz NOT NULL DEFAULT now(),
    expire_time timestamptz NOT NULL,
    poll_time timestamptz,
    poll_seconds integer NOT NULL,
    CONSTRAINT device_state_is_known CHECK (state IN ('pending', 'approved', 'denied', 'done')),
    CONSTRAINT approved_by_somebody CHECK ((user_id IS NOT NULL) = (state IN ('approved', 'done')))
);

-- For forgetting what has ended.
CREATE INDEX device_sign_in_expiry ON device_sign_in (expire_time);

CREATE TABLE identity_provider (
    tenant_id uuid NOT NULL REFERENCES tenant,
    identity_provider_id text NOT NULL COLLATE "C",
    display_name text NOT NULL DEFAULT '',
    issuer text NOT NULL,
    client_id text NOT NULL,
    sealed_secret text NOT NULL DEFAULT '',
    scopes text[] NOT NULL DEFAULT '{}',
    groups_claim text NOT NULL DEFAULT '',
    create_users boolean NOT NULL DEFAULT false,
    directory_id text NOT NULL DEFAULT '',
    update_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, identity_provider_id),
    CONSTRAINT identity_provider_id_is_a_slug CHECK (identity_provider_id ~ '^[a-z][a-z0-9-]{0,31}$'),
    CONSTRAINT client_secret_is_sealed CHECK (sealed_secret = '' OR sealed_secret LIKE 'v_:%')
);

-- The token of the program that brings a tenant's users and groups by SCIM, as its digest.
CREATE TABLE scim_token (
    tenant_id uuid PRIMARY KEY REFERENCES tenant,
    digest bytea NOT NULL CONSTRAINT scim_digest_is_one_tenants UNIQUE,
    create_time timestamptz NOT NULL DEFAULT now(),
    last_use_time timestamptz,
    CONSTRAINT scim_digest_is_sha256 CHECK (octet_length(digest) = 32)
);

-- Groups that SCIM brings. Their members get the roles of `group_role`.
CREATE TABLE user_group (
    group_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenant,
    name text NOT NULL COLLATE "C",
    external_id text NOT NULL DEFAULT '',
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT name_is_one_groups UNIQUE (tenant_id, name),
    CONSTRAINT group_of_tenant UNIQUE (tenant_id, group_id)
);

CREATE TABLE user_group_member (
    tenant_id uuid NOT NULL,
    group_id uuid NOT NULL,
    user_id uuid NOT NULL,
    PRIMARY KEY (tenant_id, group_id, user_id),
    FOREIGN KEY (tenant_id, group_id) REFERENCES user_group (tenant_id, group_id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, user_id) REFERENCES user_account (tenant_id, user_id) ON DELETE CASCADE
);

-- For the groups of a user.
CREATE INDEX user_group_member_of ON user_group_member (tenant_id, user_id);

-- What the audit log has to be told: written with the change itself, removed when Audit has it on disk.
CREATE TABLE audit_outbox (
    outbox_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid NOT NULL,
    record jsonb NOT NULL,
    -- Why Audit would not have it. It is kept for people to look at, and holds up no other.
    refusal text,
    create_time timestamptz NOT NULL DEFAULT now()
);

-- For the courier, which brings what waits in its order.
CREATE INDEX audit_outbox_waiting ON audit_outbox (outbox_id) WHERE refusal IS NULL;
