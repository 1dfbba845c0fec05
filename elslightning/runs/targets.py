"""What a configuration may build: classes by name, out of a list, and never a function that a file names."""

import itertools
from collections.abc import Iterator
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf.errors import OmegaConfBaseException

from elslightning.diffusion.schedules import SCHEDULES
from elslightning.machines.registry import MACHINES
from elslightning.system.errors import InputError

BUILDABLE = frozenset(
    {
        "CalibrationSettings",
        "Checkpoint",
        "ComparisonSettings",
        "ImageDataModule",
        "ResNet",
        "UNet",
        *(machine.__name__ for machine in MACHINES.values()),
        *(schedule.__name__ for schedule in SCHEDULES.values()),
    }
)
"""Classes, and no function: all that the configuration in a file may name. It may be a stranger's, and Hydra would call
whatever it says."""
_OWN = "elslightning."


_MOST = 100_000
"""Values of a configuration: a list of lists that are all the same one can stand for more than there is time for."""


def own(config: Any, place: str) -> Any:
    """A configuration from a file, with the classes it names at their present addresses `elslightning.<Name>`.

    Versions differ in the room where a class lives, so only the last word of an `elslightning.…` path counts, out of
    `BUILDABLE`.

    Args:
        config: what was read; it is left as it is.
        place: where it stands, for errors.

    Raises:
        InputError: unless every `_target_` is one of `BUILDABLE`; for Hydra's other special keys, but for `_partial_`;
            and for interpolations: what `${oc.create:...}` makes may name anything; and for one without an end.
    """
    return _own(config, place, itertools.count(), place)


def _own(config: Any, place: str, counter: Iterator[int], whole: str) -> Any:
    if next(counter) > _MOST:
        raise InputError(f"{whole} has more than {_MOST} values")
    if isinstance(config, str) and "${" in config:
        raise InputError(f"{place} refers to something else, {config[:100]}, which a checkpoint may not do")
    if isinstance(config, list | tuple):
        return [_own(value, place, counter, whole) for value in config]
    if not isinstance(config, dict):
        return config
    found: dict[Any, Any] = {}
    for key, value in config.items():
        found[key] = _own(value, f"{place}.{key}", counter, whole)
        if key == "_target_":
            address = str(value)
            name = address.rpartition(".")[2]
            if not address.startswith(_OWN) or name not in BUILDABLE:
                raise InputError(f"{place} names {value}, which is not a class of elslightning's")
            found[key] = _OWN + name
        elif str(key).startswith("_") and key != "_partial_":
            raise InputError(f"{place} has the key {key}, which a checkpoint may not have")
    return found


def at_present(config: Any) -> Any:
    """A configuration that this program composed, perhaps in an earlier version, with elslightning's classes and
    functions at their present addresses `elslightning.<Name>`; all else is left as it is."""
    if isinstance(config, list):
        return [at_present(value) for value in config]
    if not isinstance(config, dict):
        return config
    found = {key: at_present(value) for key, value in config.items()}
    if str(found.get("_target_")).startswith(_OWN):
        found["_target_"] = _OWN + found["_target_"].rpartition(".")[2]
    return found


def build(config: Any, **arguments: Any) -> Any:
    """Instantiates a configuration with a `_target_`, with plain lists and dictionaries as arguments.

    Raises:
        InputError: in one line, whatever went wrong.
    """
    try:
        return instantiate(config, _convert_="all", **arguments)
    except InputError:
        raise
    except (InstantiationException, OmegaConfBaseException, TypeError, ValueError, RecursionError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__
        raise InputError(*(cause.problems if cause else [" ".join(str(error).split())])) from error
