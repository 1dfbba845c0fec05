"""Trained networks on disk: read without executing anything, and built again from what the file says."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from elslightning.errors import InputError
from elslightning.networks import EpsDenoiser
from elslightning.training import CHECKPOINT_FORMAT

# What a checkpoint's configuration may name as `_target_`: it comes from a file, perhaps a stranger's.
_TRUSTED = ("elslightning.networks.", "elslightning.schedule.")


def build(config: Any, **arguments: Any) -> Any:
    """Instantiates a configuration with a `_target_`, with plain lists and dictionaries as arguments.

    Raises:
        InputError: in one line, whatever went wrong.
    """
    try:
        return instantiate(config, _convert_="all", **arguments)
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__
        raise InputError(str(cause) if cause else " ".join(str(error).split())) from error


def build_network(config: Mapping[str, Any]) -> EpsDenoiser:
    """The untrained network of a configuration with the sections `denoiser` and `schedule`."""
    return EpsDenoiser(build(config["denoiser"]), build(config["schedule"]))


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint file that `path` names: itself, or `checkpoints/last.ckpt` of a run directory.

    Raises:
        InputError: if there is none.
    """
    path = Path(path)
    found = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
    if not found.is_file():
        raise InputError(f"checkpoint={path}: there is no file {found}")
    return found


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint of ours, loaded with `weights_only=True`.

    Raises:
        InputError: if the file is missing, damaged, foreign, or of a newer format.
    """
    path = find_checkpoint(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path} cannot be read as a checkpoint: {reason}") from error
    mark = content.get("elslightning") if isinstance(content, dict) else None
    if not isinstance(mark, dict) or "state_dict" not in content:
        raise InputError(f"{path} is not a checkpoint of elslightning")
    if mark.get("format") != CHECKPOINT_FORMAT:
        raise InputError(f"{path} has checkpoint format {mark.get('format')}; this version reads {CHECKPOINT_FORMAT}")
    if not {"denoiser", "schedule"} <= set(mark.get("config", ())):
        raise InputError(f"{path} does not say which network it holds")
    return content


def load_network(path: str | Path) -> tuple[EpsDenoiser, dict[str, Any]]:
    """The trained network of a checkpoint, and the configuration of the run that made it.

    With weight averaging, these are the averaged weights.

    Raises:
        InputError: also if the weights do not fit the network that the checkpoint names.
    """
    content = read_checkpoint(path)
    config = content["elslightning"]["config"]
    for section in ("denoiser", "schedule"):
        target = str(config[section].get("_target_")) if isinstance(config[section], dict) else "nothing"
        if not target.startswith(_TRUSTED):
            raise InputError(f"{path} names {target} as its {section}, which is not one of elslightning's")
        nested = [key for key, value in config[section].items() if isinstance(value, dict | list)]
        if nested:
            raise InputError(f"{path} has a {section} with {nested[0]} that is not a plain value")
    network = build_network(config)
    prefix = "denoiser."
    weights = {
        name.removeprefix(prefix): value for name, value in content["state_dict"].items() if name.startswith(prefix)
    }
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} does not fit its own configuration: {reason}") from error
    return network.eval(), config
