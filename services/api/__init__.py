"""Api: sessions, turns and their event log, and the one door for clients."""
