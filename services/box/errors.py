"""What can go wrong with an installation, as sentences for the person at the terminal."""


class BoxError(Exception):
    """A failure whose message says what happened and what to do about it."""
