"""Configurations: the `key=value` of command lines, what a run inherits from another, and plain values of both."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from elslightning.runs.paths import make_full
from elslightning.system.errors import InputError

INHERITED = ("seed", "data", "denoiser", "schedule", "machines", "calibration", "comparison")
"""The sections that a run takes from the checkpoint it works with, unless its own command line sets them."""
_OUTPUT = "output"


def key_and_value(override: str) -> tuple[str, str]:
    """The key that a `key=value` sets, adds (+) or takes away (~), and the value.

    >>> key_and_value("+logger.wandb.entity=me"), key_and_value("~callbacks.ema")
    (('logger.wandb.entity', 'me'), ('callbacks.ema', ''))
    """
    key, _, value = override.lstrip("+~").partition("=")
    return key, value


def key_of(override: str) -> str:
    """The key of a `key=value`."""
    return key_and_value(override)[0]


def keys_of(overrides: Iterable[str]) -> list[str]:
    """The keys of several, in their order."""
    return [key_of(override) for override in overrides]


def overrides_given() -> list[str]:
    """The `key=value` of the command line; in a multirun, those of this job."""
    return list(HydraConfig.get().overrides.task)


def without_output(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """The words of a command line without every `output=PATH`, and these paths; `~` is the home folder.

    >>> without_output(["some_run", "output=page.html"])
    (['some_run'], ['page.html'])
    """
    words = list(words)
    outputs = [word.removeprefix(f"{_OUTPUT}=") for word in words if word.startswith(f"{_OUTPUT}=")]
    outputs = [os.path.expanduser(output) for output in outputs]
    return [word for word in words if not word.startswith(f"{_OUTPUT}=")], outputs


def setting(config: DictConfig, key: str) -> Any:
    """What a configuration says for a key, as plain values; None if it says nothing or it cannot be resolved."""
    try:
        value = OmegaConf.select(config, key)
        return _plain(value)
    except OmegaConfBaseException:
        return None


def primitives(config: Any, sections: Iterable[str] | None = None) -> dict[str, Any]:
    """A configuration as dictionaries, lists, numbers and strings, resolved.

    Args:
        config: of a run.
        sections: those that are wanted, of those that there are: the others may refer to what only a running job has.

    Raises:
        InputError: for what cannot be resolved.
    """
    try:
        # What is a configuration already need not be copied, which takes longer than all else here.
        whole = config if isinstance(config, DictConfig) else OmegaConf.create(config)
        if sections is not None:
            return {name: _plain(whole[name]) for name in sections if name in whole}
        return {str(name): section for name, section in _plain(whole).items()}
    except OmegaConfBaseException as error:
        raise InputError(" ".join(str(error).split())) from error


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig | ListConfig) else value


def inheritance(cfg: DictConfig) -> dict[str, Any]:
    """What later runs start from; folders and files by their full paths, for they may run elsewhere."""
    config = primitives(cfg, INHERITED)
    make_full(config)
    config["data"].pop("download", None)  # whoever gets the checkpoint is asked anew
    # For the record: whoever opens it is asked again.
    trust = {"trust": list(cfg.trust)} if cfg.get("trust") else {}
    return config | trust


def inherit(cfg: DictConfig, inherited: Mapping[str, Any], overrides: Iterable[str]) -> None:
    """Gives `cfg` the sections of a checkpoint's configuration, except for what the command line overrides.

    Args:
        cfg: as its own command line has it, changed in place.
        inherited: the configuration of the run that made the checkpoint.
        overrides: the command line's `key=value`.
    """
    overrides = list(overrides)
    keys = keys_of(overrides)
    asked = {key: setting(cfg, key) for key in keys}
    struct = OmegaConf.is_struct(cfg)
    OmegaConf.set_struct(cfg, False)
    for section in [section for section in INHERITED if section in inherited and section not in keys]:
        cfg[section] = inherited[section]
        if section == "data":
            cfg.data.pop("download", None)  # what a file says is no errand: whoever wants one says so
        for override, key in zip(overrides, keys, strict=True):
            parent, _, name = key.rpartition(".")
            if override.startswith("~") and key.startswith(f"{section}."):
                OmegaConf.select(cfg, parent).pop(name, None)
            elif key.startswith(f"{section}."):
                OmegaConf.update(cfg, key, asked[key], force_add=True)
    OmegaConf.set_struct(cfg, bool(struct))
