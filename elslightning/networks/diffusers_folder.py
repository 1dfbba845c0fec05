"""Folders that diffusers' `save_pretrained` writes, read as data: JSON and safetensors, nothing else, nothing run."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elslightning.networks.diffusers_names import INDEX, SCHEDULER, UNET, WEIGHTS
from elslightning.networks.diffusers_schedules import Said, said
from elslightning.networks.diffusers_unet import CLASS, DiffusersDenoiser, build_unet, check_unet, unet_class
from elslightning.system.errors import InputError
from elslightning.system.files import read_json
from elslightning.system.tensorfiles import read_tensors

# Keys by which other programs find code to run.
_CODE = {"auto_map", "_target_", "custom_pipeline", "trust_remote_code", "quantization_config"}
# What averaging of weights leaves in a configuration, which says nothing of the network.
_AVERAGING = {"decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step", "use_ema_warmup"}
# Attention as diffusers named its weights before 0.12.
_EARLIER = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
_MOST_BYTES = 10_000_000  # of a JSON file: trained betas are thousands of numbers at most


def load_diffusers(path: str | Path) -> DiffusersDenoiser:
    """The network in a folder of diffusers, in evaluation mode, on the CPU.

    A folder of a pipeline holds `unet/` and `scheduler/`; of a model alone, `scheduler_config.json` lies beside or in
    `scheduler/`. Weights are read from `diffusion_pytorch_model.safetensors` alone.

    Raises:
        InputError: naming the file and the reason, if one is missing, damaged, names code, or does not fit the others.
    """
    folder = _folder(path)
    scheduler = read_scheduler(path)[0]
    config = _read(folder / UNET, CLASS)
    weights_path = folder / WEIGHTS
    if not weights_path.is_file():
        others = sorted(file.name for file in folder.glob("*.bin"))
        reason = f"; {others[0]} is a pickle, which could run code: convert it to safetensors" if others else ""
        raise InputError(f"{folder} has no {WEIGHTS}{reason}")
    kept = {key: value for key, value in config.items() if not key.startswith("_") and key not in _AVERAGING}
    place = folder / UNET
    try:
        check_unet(kept)
        known = inspect.signature(unet_class().__init__).parameters
        unknown = [key for key in kept if key not in known]
        if unknown:
            raise InputError(f"a {CLASS} has no {unknown[0]}")
        # Without memory until the weights are known to fit.
        with torch.device("meta"):
            unet = build_unet(kept)
    except InputError as error:
        raise InputError(*(f"{place}: {problem}" for problem in error.problems)) from error
    unet.load_state_dict(_weights(weights_path, unet.state_dict()), assign=True)
    return DiffusersDenoiser(unet, scheduler).eval()


def read_scheduler(path: str | Path) -> tuple[dict[str, Any], Said]:
    """The configuration of the scheduler in a folder of diffusers, and what it says of the network.

    Raises:
        InputError: if there is none, or it is not understood.
    """
    _folder(path)
    root = Path(path)
    for file in (root / "scheduler" / SCHEDULER, root / SCHEDULER, root.parent / "scheduler" / SCHEDULER):
        if file.is_file():
            config = _read(file)
            return config, said(config, str(file))
    raise InputError(f"{root} has no scheduler/{SCHEDULER}, which says what the network predicts, and at which times")


def _folder(path: str | Path) -> Path:
    """The folder of the UNet; what a pipeline says of itself is checked."""
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"{root} is no folder of diffusers: there is no such folder")
    if (root / INDEX).is_file():
        index = _read(root / INDEX)
        if index.get("unet") != ["diffusers", CLASS]:
            raise InputError(f"{root / INDEX} names {index.get('unet')!r} as its unet: a {CLASS} of diffusers is read")
    for folder in (root / "unet", root):
        if (folder / UNET).is_file():
            return folder
    raise InputError(f"{root} is no folder of diffusers: it has neither unet/{UNET} nor {UNET}")


def _read(path: Path, kind: str | None = None) -> dict[str, Any]:
    """A configuration, if it names no code and is of a class."""
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(f"{path} is too long for a configuration")
    config = read_json(path)
    if not isinstance(config, dict):
        raise InputError(f"{path} is no configuration of diffusers")
    try:
        code = _code(config)
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply") from error
    if code is not None:
        raise InputError(f"{path} has the key {code}, by which code is run: it is not read")
    if kind is not None and config.get("_class_name") != kind:
        raise InputError(f"{path} is of class {config.get('_class_name')!r}: a {kind} is read")
    return config


def _code(config: Any) -> str | None:
    """A key that names code, however deep it lies."""
    if isinstance(config, dict):
        found = next((key for key in config if key in _CODE and config[key] is not None), None)
        return found or next((name for value in config.values() if (name := _code(value))), None)
    if isinstance(config, list):
        return next((name for value in config if (name := _code(value))), None)
    return None


def _weights(path: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a file by the names of the network.

    Raises:
        InputError: unless they are exactly those of the network, of floating point, and finite.
    """
    tensors = {}
    for name, tensor in read_tensors(path)[0].items():
        for earlier, today in _EARLIER.items():
            if name not in wanted and earlier in name:
                name = name.replace(earlier, today)
        tensors[name] = tensor
    if odd := sorted(wanted.keys() ^ tensors.keys()):
        amiss = "missing" if odd[0] in wanted else "too much"
        raise InputError(f"{path} does not fit its configuration: {odd[0]} is {amiss}")
    for name, tensor in tensors.items():
        shape = wanted[name].shape
        if tensor.shape != shape:
            raise InputError(
                f"{path} does not fit its configuration: {name} has shape {tuple(tensor.shape)}, not {tuple(shape)}"
            )
        if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            raise InputError(f"{path} has numbers that are not finite, in {name}")
    return {name: tensor.float() for name, tensor in tensors.items()}
