"""What a caller can mend."""


class StackError(Exception):
    """The stack cannot start or go on: what, found, expected, cure."""
