"""Audit: everything that was done, in order, for keeps."""
