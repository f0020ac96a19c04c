"""The Sandbox service: one isolated agent per user, and the turns that run in it."""
