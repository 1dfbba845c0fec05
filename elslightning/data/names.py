"""What classes are called: for people, who read names in figures; everything else counts in numbers."""

from pathlib import Path

from elslightning.data.folder import class_folders
from elslightning.system.errors import InputError

_DIGITS = tuple("0123456789")
_NAMES = {
    "digits": _DIGITS,
    "mnist": _DIGITS,
    "fashion_mnist": (
        *("T-shirt", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
}


def class_names(dataset: str, root: str | Path | None = None) -> tuple[str, ...]:
    """The names of the classes of a data set, in the order of their numbers; none where they are not known.

    Args:
        dataset: a name from `elslightning.data.SOURCES`.
        root: the folder of the data set "folder", whose classes are named like its sub-folders.

    >>> class_names("cifar10")[3]
    'cat'
    """
    if dataset == "folder" and root is not None:
        try:
            return tuple(class_folders(Path(root).expanduser()))
        except InputError:  # it may be gone since the run
            return ()
    return _NAMES.get(dataset, ())
