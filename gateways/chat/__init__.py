"""The terminal: the `oiab` command line, and the chat in it."""
