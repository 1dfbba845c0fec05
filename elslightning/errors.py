"""The exceptions for input that cannot be worked with."""


class InputError(ValueError):
    """Bad input, described in one line: the value, the place, and what would be right."""


class LaunchError(InputError):
    """What keeps not only this job but the whole command from being run as it was started."""
