-- Providers as they are wanted, as they are applied, and the tokens of the model door.

-- One row per tenant that has a runtime: the lock that puts its changes in order, and when it was last applied.
CREATE TABLE runtime (
    tenant_id uuid PRIMARY KEY,
    apply_time timestamptz
);

-- The desired state: what people asked for.
CREATE TABLE provider (
    tenant_id uuid NOT NULL,
    provider_id text NOT NULL COLLATE "C",
    kind text NOT NULL,
    base_url text NOT NULL,
    models text[] NOT NULL,
    default_model text NOT NULL,
    preferred boolean NOT NULL,
    sealed_key text NOT NULL,
    key_time timestamptz,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    request_id uuid,
    request_digest bytea NOT NULL,
    PRIMARY KEY (tenant_id, provider_id),
    CONSTRAINT provider_id_is_a_slug CHECK (provider_id ~ '^[a-z][a-z0-9-]{0,31}$'),
    CONSTRAINT kind_is_known CHECK (kind IN ('anthropic', 'openai', 'azure', 'openai-compatible', 'ollama')),
    CONSTRAINT has_models CHECK (cardinality(models) > 0),
    CONSTRAINT default_model_is_a_model CHECK (default_model = ANY (models)),
    CONSTRAINT key_has_a_time CHECK ((sealed_key = '') = (key_time IS NULL)),
    CONSTRAINT key_is_sealed CHECK (sealed_key = '' OR sealed_key LIKE 'v_:%')
);

-- For the rule that at most one provider of a tenant is preferred; with none, the demo model is.
CREATE UNIQUE INDEX provider_preferred ON provider (tenant_id) WHERE preferred;

-- For a repeated request: it finds the provider that the first one made.
CREATE UNIQUE INDEX provider_request ON provider (tenant_id, request_id) WHERE request_id IS NOT NULL;

-- The applied state: what sandboxes are configured with and what the model door opens to. Only an apply writes here.
CREATE TABLE applied_provider (
    tenant_id uuid NOT NULL REFERENCES runtime,
    provider_id text NOT NULL COLLATE "C",
    kind text NOT NULL,
    base_url text NOT NULL,
    models text[] NOT NULL,
    default_model text NOT NULL,
    preferred boolean NOT NULL,
    sealed_key text NOT NULL,
    key_time timestamptz,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, provider_id)
);

-- One throw-away token per sandbox, kept as its digest: who reads the table cannot use the door.
CREATE TABLE model_token (
    sandbox_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    user_id uuid NOT NULL,
    digest bytea NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT digest_is_sha256 CHECK (octet_length(digest) = 32)
);

-- For the model door: a call brings a token and nothing else to find it by.
CREATE UNIQUE INDEX model_token_digest ON model_token (digest);
