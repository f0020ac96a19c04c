-- Sandboxes are told of deleted sessions, so that what their agents keep of them is deleted, too.
ALTER TABLE outbox DROP CONSTRAINT outbox_receiver_is_known;
ALTER TABLE outbox ADD CONSTRAINT outbox_receiver_is_known CHECK (receiver IN ('queue', 'audit', 'agent'));
