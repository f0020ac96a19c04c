-- A message that its receiver refuses is kept for people to look at, and holds up no other.
ALTER TABLE outbox ADD COLUMN refused boolean NOT NULL DEFAULT false;
