"""What a configuration may build: classes by name, out of a list, and what the user trusts besides."""

import dataclasses
import inspect
import itertools
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from types import NoneType
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from elslightning.diffusion.schedule import Schedule
from elslightning.diffusion.schedules import SCHEDULES
from elslightning.machines.registry import MACHINES
from elslightning.system.errors import InputError

BUILDABLE = frozenset(
    {
        "CalibrationSettings",
        "Checkpoint",
        "ComparisonSettings",
        "DiffusersNetwork",
        "DiffusersUNet",
        "ImageDataModule",
        "LevelsSchedule",
        "ModuleNetwork",
        "RegisteredNetwork",
        "ResNet",
        "UNet",
        "UnitSchedule",
        *(machine.__name__ for machine in MACHINES.values()),
        *(schedule.__name__ for schedule in SCHEDULES.values()),
    }
)
"""Classes, and no function: all that the configuration in a file may name. It may be a stranger's, and Hydra would call
whatever it says."""
_OWN = "elslightning."
# What nobody can mean: of these, a file could have anything done.
_NEVER = {
    *sys.stdlib_module_names,
    "elslightning",
    "hydra",
    "lightning",
    "numpy",
    "omegaconf",
    "pytorch_lightning",
    "torch",
}
_trusted: ContextVar[tuple[str, ...]] = ContextVar("trusted", default=())


@contextmanager
def trusting(modules: Iterable[str]) -> Iterator[None]:
    """Within the block, what these modules define is built where a file or a configuration names it.

    Args:
        modules: their names, such as `mynet`, which stands for all within it.

    Raises:
        InputError: for what is no name of a module, and modules with which a file could have anything done.
    """
    names = _names(modules)
    token = _trusted.set((*_trusted.get(), *names))
    try:
        yield
    finally:
        _trusted.reset(token)


def _names(modules: Any) -> list[str]:
    """The modules that are trusted, as they were listed."""
    if isinstance(modules, str) or not isinstance(modules, Iterable):
        raise InputError(f"trust must be a list of modules, such as trust=[mynet], not {modules!r}")
    names = list(modules)
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise InputError(f"trust={name} is not the name of a module")
        if name.partition(".")[0] in _NEVER:
            raise InputError(f"trust=[{name}]: a file could have anything done with it; name your own module")
    return names


def trusted_object(address: Any, place: str) -> Any:
    """The class or function of this address, which a trusted module defines itself.

    Raises:
        InputError: with the words that would allow it, if its module is not trusted; if it cannot be imported; and for
            what the module only imports: `mynet.os.system` is not its own.
    """
    name = str(address)
    if not any(name.startswith(f"{module}.") for module in _trusted.get()):
        top = name.partition(".")[0]
        if "." not in name or top in _NEVER or not top.isidentifier():
            raise InputError(f"{place} names {name}, which is not a class of elslightning's that a file may name")
        raise InputError(
            f"{place} names {name}, which is not a class of elslightning's; if you know that code and trust it, add "
            f"trust=[{top}]"
        )
    try:
        found = get_object(name)
    except Exception as error:  # importing runs its code, which may raise anything
        reason = " ".join(str(error.__cause__ or error).split())
        raise InputError(
            f"{place} names {name}, which cannot be imported ({reason}): is the folder of its module in PYTHONPATH?"
        ) from error
    home = f"{getattr(found, '__module__', None)}."
    own = any(home.startswith(f"{module}.") for module in _trusted.get())
    if not own or not (inspect.isclass(found) or inspect.isfunction(found)):
        raise InputError(f"{place} names {name}, which is no class or function that a trusted module defines")
    return found


def section_of(schedule: Schedule) -> dict[str, Any]:
    """The section of a configuration that builds a schedule."""
    assert dataclasses.is_dataclass(schedule)
    values = {field.name: getattr(schedule, field.name) for field in dataclasses.fields(schedule)}
    plain = {
        name: section_of(value) if isinstance(value, Schedule) else list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
    }
    return {"_target_": f"{_OWN}{type(schedule).__name__}", **plain}


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
        InputError: unless every `_target_` is one of `BUILDABLE` or trusted (see `trusting`); for Hydra's other special
            keys, but for `_partial_`; for interpolations: what `${oc.create:...}` makes may name anything; and for a
            configuration without an end.
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
                trusted_object(value, place)
                continue
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


def _is_plain(config: Any) -> bool:
    """Whether a section names classes of `BUILDABLE` only, and has nothing in it that Hydra would read otherwise."""
    if isinstance(config, list):
        return all(_is_plain(value) for value in config)
    if isinstance(config, dict):
        special = {key for key in config if not isinstance(key, str) or key.startswith("_")}
        own = special <= {"_target_", "_partial_"} and isinstance(config.get("_partial_", False), bool)
        package, _, name = str(config.get("_target_", "elslightning.ResNet")).rpartition(".")
        named = package == "elslightning" and name in BUILDABLE and ("_target_" in config or not special)
        return own and named and all(_is_plain(value) for value in config.values())
    return type(config) in (NoneType, bool, int, float) or (
        type(config) is str and config != "???" and "${" not in config
    )


def _made(config: Any) -> Any:
    """What Hydra makes of such a section, which takes it a hundred times as long."""
    if isinstance(config, list):
        return [_made(value) for value in config]
    if not isinstance(config, dict):
        return config
    values = {key: _made(value) for key, value in config.items() if key not in ("_target_", "_partial_")}
    if "_target_" not in config:
        return values
    target = getattr(sys.modules["elslightning"], config["_target_"].rpartition(".")[2])
    return partial(target, **values) if config.get("_partial_") else target(**values)


def build(config: Any, **arguments: Any) -> Any:
    """Instantiates a configuration with a `_target_`, with plain lists and dictionaries as arguments.

    Raises:
        InputError: in one line, whatever went wrong.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else config
        if isinstance(plain, dict) and not arguments:
            if _is_plain(plain):
                try:
                    return _made(plain)
                except InputError:
                    raise
                except Exception:  # Hydra runs into it again, and says where
                    pass
            if plain is config:  # Hydra copies it for what is added otherwise
                return instantiate(config | {"_convert_": "all"})
        return instantiate(config, _convert_="all", **arguments)
    except InputError:
        raise
    except (InstantiationException, OmegaConfBaseException, TypeError, ValueError, RecursionError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__
        raise InputError(*(cause.problems if cause else [" ".join(str(error).split())])) from error
