"""The numbers that a data set is asked for."""

from collections.abc import Mapping
from typing import Any

from elslightning.system.checks import whole

NUMBERS = ("channels", "num_classes", "train_size", "val_size", "image_size", "batch_size")
_GIVEN = ("channels", "batch_size")


def number_problems(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the values of `NUMBERS`, those of them that there are: whole numbers, or None where that
    leaves it to the data.

    >>> number_problems({"train_size": "all", "val_size": None})
    ["data.train_size must be a whole number, at least 1, not 'all'"]
    """
    asked = {key: values[key] for key in NUMBERS if key in values}
    needed = {key: value for key, value in asked.items() if value is not None or key in _GIVEN}
    return [line for key, value in needed.items() for line in whole(f"data.{key}", value, 1)]
