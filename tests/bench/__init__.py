"""Benchmarks: measured against a named peer in the same run, printed, and written down. None of them is a test."""
