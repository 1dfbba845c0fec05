"""What the classes of a run are called."""

from collections.abc import Sequence

from elslightning.data.names import class_names
from elslightning.runs.run import Run


def names_of(run: Run) -> tuple[str, ...]:
    """The names of a run's classes, in the order of their numbers; none where they are not known."""
    return class_names(str(run.setting("data.dataset")), run.setting("data.root"))


def called(names: Sequence[str], label: int) -> str:
    """A class by its name, or as a number where it has none but that.

    >>> called(("cat", "dog"), 1), called(("cat", "dog"), 2), called(("0", "1"), 1)
    ('dog', 'class 2', 'class 1')
    """
    name = names[label] if 0 <= label < len(names) else ""
    return name if name and not name.isdecimal() else f"class {label}"
