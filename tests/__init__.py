"""The tests: unit rules, stores on PostgreSQL, contracts in process, the whole mesh, the walls, and benchmarks."""
