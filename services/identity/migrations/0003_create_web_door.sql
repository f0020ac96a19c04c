-- Sign-ins by an identity provider that a browser has begun and not ended yet. Each is good for one use. What the browser
-- keeps is not here: neither the secret that binds them to it, nor what PKCE needs, which is derived from that secret.
CREATE TABLE web_sign_in (
    state_digest bytea PRIMARY KEY,
    tenant_id uuid NOT NULL,
    identity_provider_id text NOT NULL COLLATE "C",
    browser_digest bytea NOT NULL,
    redirect text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    expire_time timestamptz NOT NULL,
    -- A provider that goes takes with it the sign-ins that wait for it.
    FOREIGN KEY (tenant_id, identity_provider_id) REFERENCES identity_provider ON DELETE CASCADE,
    CONSTRAINT state_digest_is_sha256 CHECK (octet_length(state_digest) = 32),
    CONSTRAINT browser_digest_is_sha256 CHECK (octet_length(browser_digest) = 32)
);

-- For a provider that goes, and for forgetting what has ended.
CREATE INDEX web_sign_in_provider ON web_sign_in (tenant_id, identity_provider_id);
CREATE INDEX web_sign_in_expiry ON web_sign_in (expire_time);

-- For SCIM's filters and for its pages, which go by the time at which users and groups were added.
CREATE INDEX user_group_external ON user_group (tenant_id, external_id) WHERE external_id <> '';
