"""The browser's door: pages for signing in, and SCIM for directories."""
