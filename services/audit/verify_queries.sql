-- Verification by sets: the database hashes, and only what is wrong comes back. The layout is the one of seal.py.

-- name: verify_chain
-- The damaged records in a stretch of a tenant's chain: their hash, their place, their body. The record before the
-- stretch is read along, since it is a part of the first hash.
WITH link AS (
    SELECT
        r.sequence, r.hash, r.commitment, r.user_id, r.action, r.create_time, b.sequence IS NOT NULL AS kept,
        lag(r.sequence) OVER stretch AS place_before,
        lag(r.hash) OVER stretch AS hash_before,
        uuid_send(r.tenant_id) || int8send(r.sequence) || uuid_send(r.record_id) || timestamptz_send(r.create_time)
        || timestamptz_send(r.append_time) || r.commitment
        || coalesce('\x00000010'::bytea || uuid_send(r.user_id), '\x00000000'::bytea)
        || coalesce('\x00000008'::bytea || int8send(r.duration_us), '\x00000000'::bytea)
        || int4send(octet_length(r.actor)) || convert_to(r.actor, 'UTF8')
        || int4send(octet_length(r.action)) || convert_to(r.action, 'UTF8')
        || int4send(octet_length(r.target)) || convert_to(r.target, 'UTF8')
        || int4send(octet_length(r.session_id)) || convert_to(r.session_id, 'UTF8')
        || int4send(octet_length(r.channel)) || convert_to(r.channel, 'UTF8') AS layout,
        sha256(
            convert_to(E'orginabox.audit.body.v1\n', 'UTF8') || b.salt
            || int4send(octet_length(b.ip_address)) || convert_to(b.ip_address, 'UTF8')
            || int4send(octet_length(b.user_agent)) || convert_to(b.user_agent, 'UTF8')
            || int4send(octet_length(b.payload::text)) || convert_to(b.payload::text, 'UTF8')
        ) AS body_commitment
    FROM record AS r LEFT JOIN body AS b ON b.tenant_id = r.tenant_id AND b.sequence = r.sequence
    WHERE
        r.tenant_id = %(tenant_id)s::uuid
        AND r.sequence BETWEEN %(first)s::bigint - 1 AND %(last)s::bigint
    WINDOW stretch AS (ORDER BY r.sequence)
),

checked AS (
    SELECT
        sequence, user_id, action, create_time, kept,
        sequence = coalesce(place_before, 0) + 1 AS in_place,
        hash = sha256(
            convert_to(E'orginabox.audit.record.v1\n', 'UTF8')
            || coalesce(hash_before, decode(repeat('00', 32), 'hex')) || layout
        ) AS sealed,
        kept IS FALSE OR body_commitment = commitment AS body_sealed
    FROM link
    WHERE sequence >= %(first)s::bigint
)

SELECT sequence, in_place, sealed, body_sealed, kept
FROM checked
WHERE
    NOT in_place OR NOT sealed OR NOT body_sealed
    OR NOT (
        kept OR EXISTS (
            SELECT FROM record AS erasure
            WHERE
                erasure.tenant_id = %(tenant_id)s::uuid AND erasure.sequence > checked.sequence
                AND (
                    (erasure.action = 'data.audit_erase' AND erasure.target = 'user:' || checked.user_id)
                    OR (
                        erasure.action = 'data.audit_expire'
                        AND split_part(erasure.target, ':', 1) = split_part(checked.action, '.', 1)
                        AND checked.create_time < to_timestamp(split_part(erasure.target, ':', 2)::float8)
                    )
                )
        )
    )
ORDER BY sequence
LIMIT 32;

-- name: verify_head
-- The end of a tenant's log and what stands there, and how far the records and bodies go.
SELECT
    h.sequence, h.hash, r.hash AS record_hash,
    (SELECT max(sequence) FROM record WHERE tenant_id = h.tenant_id) AS last_record,
    (SELECT max(sequence) FROM body WHERE tenant_id = h.tenant_id) AS last_body
FROM head AS h LEFT JOIN record AS r ON r.tenant_id = h.tenant_id AND r.sequence = h.sequence
WHERE h.tenant_id = %(tenant_id)s::uuid;

-- name: verify_checkpointed
-- The ends that were signed and are not what the records say.
SELECT c.size, c.sequence, r.hash IS NULL AS missing
FROM checkpoint_head AS c LEFT JOIN record AS r ON r.tenant_id = c.tenant_id AND r.sequence = c.sequence
WHERE
    c.tenant_id = %(tenant_id)s::uuid AND c.size > %(after)s::bigint
    AND r.hash IS DISTINCT FROM c.hash
ORDER BY c.sequence LIMIT 1;

-- name: hash_of
-- The hash of one record.
SELECT hash FROM record WHERE tenant_id = %(tenant_id)s::uuid AND sequence = %(sequence)s::bigint;

-- name: list_chains
-- Every tenant that has a head, records, or an end that was signed. Of the records only one per tenant is read.
WITH RECURSIVE writing AS (
    (SELECT tenant_id FROM record ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT r.tenant_id FROM record AS r WHERE r.tenant_id > writing.tenant_id ORDER BY r.tenant_id LIMIT 1)
    FROM writing WHERE writing.tenant_id IS NOT NULL
)

SELECT tenant_id FROM head WHERE sequence > 0
UNION SELECT tenant_id FROM checkpoint_head
UNION SELECT tenant_id FROM writing WHERE tenant_id IS NOT NULL
ORDER BY tenant_id;
