"""Keyrings for tests: one without a database, and servers that speak as the places of a master key do."""
