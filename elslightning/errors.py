"""The one exception type for input that cannot be worked with."""


class InputError(ValueError):
    """Bad input, described in one line: the value, the place, and what would be right."""
