"""Org in a Box on one machine: its home folder, its processes, its real parts."""
