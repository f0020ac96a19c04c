"""What lives inside a sandbox."""
