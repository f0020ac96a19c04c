"""Makes the reference pages out of the contracts, the command line and the settings: `python -m docs.generator`."""
