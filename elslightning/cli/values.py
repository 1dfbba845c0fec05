"""What is wrong with single values of a configuration: told before anything that takes seconds to be imported."""

import functools
from collections.abc import Collection, Mapping
from typing import Any

from omegaconf import DictConfig, Node

from elslightning.cli.composing import conf_dir
from elslightning.data.numbers import number_problems
from elslightning.measurement.names import HELDOUT, NETWORK
from elslightning.runs.configuration import setting
from elslightning.runs.finding import find_checkpoint
from elslightning.system.checks import flag, is_whole, one_of, raise_for, whole
from elslightning.system.errors import InputError
from elslightning.system.files import read_config

SECTIONS = ("data", "denoiser", "calibration", "comparison")
"""Sections whose files say of what kind their values are."""


def refuse_values(config: DictConfig, *, single: bool) -> None:
    """Refuses what can be told of a composed configuration by itself; `preflight.check` finds the rest.

    Args:
        config: with Hydra's part.
        single: whether this is a job, and not what the jobs of a multirun have in common.

    Raises:
        InputError: with a line for every problem.
    """
    plain = _resolved(config)
    verb, choices = str(plain.get("verb")), config.hydra.runtime.choices
    lines = [f"there is no key {key}, which elslightning {verb} needs" for key in _missing(config, verb)]
    lines += value_problems(verb, plain)
    lines += number_problems(plain.get("data") or {})
    for section in SECTIONS:
        path = conf_dir() / section / f"{choices.get(section)}.yaml"
        if isinstance(plain.get(section), dict) and path.is_file():
            known = [line.split()[0] for line in lines]
            lines += kind_problems(section, plain[section], _usual(path), known)
    raise_for(*lines, *network_problems(plain, single=single))


# One of this package, and the same for every job.
_usual = functools.cache(read_config)


def _missing(config: DictConfig, verb: str) -> list[str]:
    """The keys of the verb's own file that were taken away, as by `~seed`."""
    if verb != config.hydra.job.config_name:  # which is said later
        return []
    path = conf_dir() / f"{verb}.yaml"
    own = [str(key) for key in _usual(path) if key not in ("defaults", "hydra")] if path.is_file() else []
    lost = [key for key in (*own, *(["trainer"] if verb == "train" else [])) if key not in config]
    return lost + (["trainer.max_epochs"] if "trainer" in config and "max_epochs" not in config.trainer else [])


def _resolved(config: DictConfig) -> dict[str, Any]:
    """A configuration as plain values, but for Hydra's part, and for what cannot be resolved before a job runs."""
    found: dict[str, Any] = {}
    for key in config:
        node = config._get_node(key)
        if key == "hydra" or not isinstance(node, Node):
            continue
        if isinstance(node, DictConfig) and not node._is_none():
            found[str(key)] = _resolved(node)
        elif (value := setting(config, str(key))) is not None or node._is_none():
            found[str(key)] = value
    return found


def kind_problems(place: str, section: Mapping[str, Any], usual: Any, known: Collection[str] = ()) -> list[str]:
    """Text where a section's file has a whole number, or true or false.

    >>> from omegaconf import OmegaConf
    >>> kind_problems("denoiser", {"width": "wide"}, OmegaConf.create({"width": 48}))
    ["denoiser.width must be a whole number, not 'wide'"]

    Args:
        place: the section's name.
        section: its values.
        usual: the content of its file.
        known: keys that need not be looked at.
    """
    lines = []
    for key, value in section.items():
        if f"{place}.{key}" in known:
            continue
        node = usual._get_node(key) if isinstance(usual, DictConfig) else None
        kind = None if node is None or node._is_interpolation() or not isinstance(value, str) else type(usual[key])
        if kind is bool:
            lines += flag(f"{place}.{key}", value)
        elif kind is int:
            lines.append(f"{place}.{key} must be a whole number, not {value!r}")
    return lines


def value_problems(verb: str, config: Mapping[str, Any]) -> list[str]:
    """What is wrong with the keys outside of the sections, and with those of the trainer; keys that are missing are
    not asked for."""
    lines = []
    for key, minimum in (("seed", 0), ("num_samples", 1), ("steps", 1)):
        if key in config:
            lines += whole(key, config[key], minimum)
    for key in ("compare", "conditional", "shard_bank", "data_changed"):
        if key in config:
            lines += flag(key, config[key])
    label = config.get("label")
    if verb == "create" and isinstance(label, str):
        label = None  # the name of a class, which the data know
    if label is not None:
        lines += whole("label", label, 0)
    if verb == "create":
        lines += creation_problems(config)
    if verb == "train" and "trainer" in config:
        lines += trainer_problems(config["trainer"])
    return lines


def trainer_problems(trainer: Mapping[str, Any]) -> list[str]:
    """The keys of the trainer of which Lightning would say too late, or in many lines, what is wrong."""
    lines = whole("trainer.max_epochs", trainer["max_epochs"], -1) if "max_epochs" in trainer else []
    for key, minimum in (("max_steps", -1), ("num_nodes", 1), ("check_val_every_n_epoch", 1)):
        if trainer.get(key) is not None:
            lines += whole(f"trainer.{key}", trainer[key], minimum)
    if trainer.get("precision") is not None:
        lines += one_of("trainer.precision", trainer["precision"], ("32-true", "bf16-mixed", "16-mixed"))
    devices = trainer.get("devices", "auto")
    if isinstance(devices, bool) or (is_whole(devices) and devices != -1 and devices < 1):
        lines.append(f"trainer.devices must be a number of devices, at least 1, or auto, not {devices!r}")
    return lines


def settings_of(creativity: Any) -> list[Any]:
    """The settings of the dial, one or several."""
    return list(creativity) if isinstance(creativity, list | tuple) else [creativity]


def creation_problems(config: Mapping[str, Any]) -> list[str]:
    """What is wrong with the keys of `create` outside of the sections; those that are missing are not asked for."""
    asked = settings_of(config.get("creativity", 0.5))
    lines = [] if asked else ["creativity must be a number between 0 and 1, or a list of such"]
    lines += [
        f"creativity must lie between 0 (recall) and 1 (texture), not {value!r}"
        for value in asked
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1
    ]
    for key in ("height", "width"):
        if config.get(key) is not None:
            lines += whole(key, config[key], 1)
    if config.get("max_images") is not None:
        lines += whole("max_images", config["max_images"], 2)
    lines += whole("followed", config.get("followed", 0), 0)
    windows = config.get("windows", [])
    if not isinstance(windows, list) or any(
        isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 100 for value in windows
    ):
        lines.append(f"windows must be positive factors, such as [0.5,1,2], not {windows!r}")
    if not config.get("machines"):
        lines.append("machines must name at least one machine")
    return lines


def names_network(config: Mapping[str, Any]) -> bool:
    """Whether a configuration, as plain values, names a network: by `checkpoint` or by `network`."""
    return config.get("checkpoint") is not None or bool(config.get("network"))


def network_problems(config: Mapping[str, Any], *, single: bool = True) -> list[str]:
    """What is wrong with how a configuration names its network; in a multirun, where `single` is false, each job may
    name one yet."""
    lines = []
    if config.get("network") and config.get("checkpoint") is not None:
        lines.append("checkpoint=PATH and network=NAME both name a network: give one of them")
    verb = config.get("verb")
    if single and verb in ("calibrate", "compare") and not names_network(config):
        objective = (config.get("calibration") or {}).get("objective")
        if verb == "compare" or objective != HELDOUT:
            lines.append(f"elslightning {verb} needs checkpoint=PATH: a checkpoint file or a run directory")
    if config.get("checkpoint") is not None:
        try:
            find_checkpoint(str(config["checkpoint"]))
        except InputError as error:
            lines += error.problems
    if single and verb == "sample" and config.get("source") == NETWORK and not names_network(config):
        lines.append("source=network needs checkpoint=PATH")
    return lines
