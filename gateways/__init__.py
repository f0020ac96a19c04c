"""The ways in which people reach their agents."""
