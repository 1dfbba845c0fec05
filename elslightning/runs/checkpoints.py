"""Trained networks on disk: read without executing anything, and built again from what the file says."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn.modules.module import register_module_parameter_registration_hook

from elslightning.networks.adapter import NetworkDenoiser, ScheduledDenoiser
from elslightning.networks.official import read_official
from elslightning.runs.brought import DiffusersNetwork, inherited_from
from elslightning.runs.finding import find_checkpoint
from elslightning.runs.targets import build, own, trusting
from elslightning.system.errors import InputError
from elslightning.system.tensorfiles import SUFFIX, read_tensors
from elslightning.system.torchfiles import check_loadable

CHECKPOINT_FORMAT = 1
# Of the names of a network's weights in a checkpoint.
PREFIX = "denoiser."
_OFFICIAL = (".pt", ".pth")  # of files of the paper's code


def build_network(config: Mapping[str, Any]) -> NetworkDenoiser:
    """The untrained network of a configuration with the sections `denoiser` and `schedule`."""
    return NetworkDenoiser(build(config["denoiser"]), build(config["schedule"]))


def written_checkpoint(trainer: pl.Trainer) -> Path | None:
    """The checkpoint that a trainer wrote last and that is still there, or None."""
    paths = [Path(getattr(callback, "best_model_path", "") or "none") for callback in trainer.checkpoint_callbacks]
    there = [path for path in paths if path.is_file()]
    return max(there, key=lambda path: path.stat().st_mtime, default=None)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint of ours, loaded with `weights_only=True`, or of exported weights (.safetensors).

    Raises:
        InputError: if the file is missing, damaged, foreign, or of a newer format.
    """
    path = find_checkpoint(path)
    content = _from_tensors(path) if path.suffix == SUFFIX else _from_torch(path)
    mark = content.get("elslightning") if isinstance(content, dict) else None
    if not isinstance(mark, dict) or "state_dict" not in content:
        raise InputError(f"{path} is not a checkpoint of elslightning")
    if mark.get("format") != CHECKPOINT_FORMAT:
        raise InputError(f"{path} has checkpoint format {mark.get('format')}; this version reads {CHECKPOINT_FORMAT}")
    config, weights = mark.get("config"), content.get("state_dict")
    if not isinstance(config, dict) or not all(isinstance(config.get(name), dict) for name in ("denoiser", "schedule")):
        raise InputError(f"{path} does not say which network it holds")
    if not isinstance(weights, dict):
        raise InputError(f"{path} holds no weights")
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(f"{path} does not fit its own configuration: {name} is not a tensor")
    try:
        config = own(config, f"the configuration in {path}")
    except RecursionError as error:
        raise InputError(f"the configuration in {path} is nested too deeply") from error
    return content | {"elslightning": mark | {"config": config}}


def _from_torch(path: Path) -> Any:
    try:
        check_loadable(path)
    except InputError as error:
        reason = str(error).replace(f"{path} ", "it ")
        raise InputError(f"{path} cannot be read as a checkpoint: {reason}") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's own words advise to load it in a way that executes what it says
        raise InputError(f"{path} cannot be read as a checkpoint: torch refuses it ({type(error).__name__})") from error


def _from_tensors(path: Path) -> dict[str, Any]:
    """What a checkpoint would hold, from a file written by `elslightning.runs.exchange.export`."""
    tensors, strings = read_tensors(path)
    if "elslightning" not in strings:
        return {}
    number = strings["elslightning"]
    try:
        config = {name: json.loads(strings[name]) for name in ("denoiser", "schedule") if name in strings}
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} does not say which network it holds: {error}") from error
    return {
        "state_dict": {f"{PREFIX}{name}": tensor for name, tensor in tensors.items()},
        "elslightning": {"format": int(number) if number.isdecimal() else number, "config": config},
    }


def configuration_of(path: str | Path) -> dict[str, Any]:
    """What a run that works with this network takes from it: the configuration of the run that made it, or of a network
    from elsewhere what is known; errors as of `open_network`, but for those of the network itself."""
    found = find_checkpoint(path)
    if found.is_dir():
        return inherited_from(DiffusersNetwork(found))
    official = _read_official(found)
    return read_checkpoint(found)["elslightning"]["config"] if official is None else official[1]


def open_network(path: str | Path) -> tuple[ScheduledDenoiser, dict[str, Any]]:
    """The trained network that a path names, and the configuration of the run that made it, as far as that is known.

    With weight averaging, these are the averaged weights. The global random number generator is left as it was.

    Args:
        path: a run directory, a checkpoint, exported weights (.safetensors), a file of the paper's code (.pt), or a
            folder of diffusers.

    Raises:
        InputError: also if the weights do not fit the network that the checkpoint names.
    """
    network, mark = open_trained(path)
    return network, mark["config"]


def open_trained(path: str | Path) -> tuple[ScheduledDenoiser, dict[str, Any]]:
    """As `open_network`, with all that the checkpoint says of itself: `config`, and perhaps `data_sha256`, the checksum
    of the images that the network was trained on."""
    found = find_checkpoint(path)
    if found.is_dir():
        return DiffusersNetwork(found).open(), {"config": configuration_of(found)}
    official = _read_official(found)
    return _open_own(path) if official is None else (official[0], {"config": official[1]})


def _read_official(path: Path) -> tuple[ScheduledDenoiser, dict[str, Any]] | None:
    """The network of a file of the paper's code; None for one of ours, and of another name."""
    if path.suffix not in _OFFICIAL:
        return None
    try:
        read_checkpoint(path)
    except InputError:
        return read_official(path)
    return None


def _open_own(path: str | Path) -> tuple[NetworkDenoiser, dict[str, Any]]:
    content = read_checkpoint(path)
    config = content["elslightning"]["config"]
    try:
        # A configuration may ask for more memory and layers than there are.
        with torch.device("meta"), _at_most(len(content["state_dict"])):
            wanted = build_network(config).state_dict()
        weights = {
            name.removeprefix(PREFIX): value for name, value in content["state_dict"].items() if name.startswith(PREFIX)
        }
        differences = _differences(wanted, weights)
        with torch.random.fork_rng(devices=[]):  # for the weights it has before it gets its own
            network = build_network(config) if not differences else None
    except InputError as error:
        raise InputError(*(f"{path}: {problem}" for problem in error.problems)) from error
    except (AttributeError, TypeError) as error:
        raise InputError(f"{path} does not say which network it holds: {error}") from error
    if network is None:
        raise InputError(f"{path} does not fit its own configuration: {differences}")
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{path} has weights of another kind: {error}") from error
    for name, value in network.state_dict().items():
        if not bool(value.isfinite().all()):
            raise InputError(f"{path} has weights that are not finite, in {name}")
    return network.eval(), content["elslightning"]


@contextmanager
def _at_most(tensors: int) -> Iterator[None]:
    """Within the block, a network of more than twice so many parameters is not made to its end.

    Raises:
        InputError: of whoever has so few tensors.
    """
    count, most = itertools.count(1), 2 * tensors + 100

    def refuse(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        if next(count) > most:
            raise InputError(
                f"it does not fit its own configuration, which makes a network of more than {most} tensors where it "
                f"has {tensors}"
            )

    handle = register_module_parameter_registration_hook(refuse)
    try:
        yield
    finally:
        handle.remove()


def load_network(path: str | Path, *, trust: Iterable[str] = ()) -> ScheduledDenoiser:
    """The one door to trained networks on disk, which come in evaluation mode on the CPU.

    >>> load_network("outputs/nowhere")
    Traceback (most recent call last):
    ...
    elslightning.system.errors.InputError: checkpoint=outputs/nowhere: there is no file outputs/nowhere

    Args:
        path: as of `open_network`.
        trust: modules whose code may run, such as `["mynet"]`, for a checkpoint of a class of one's own.

    Raises:
        InputError: in one line, as `open_network`.
    """
    if not isinstance(path, str | Path):
        raise InputError(f"load_network takes the path of a network, not a {type(path).__name__}")
    with trusting(trust):
        return open_network(path)[0]


def _differences(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """What sets the weights of a file apart from those of a network, by the first of each kind; empty if nothing."""
    shapes = [
        f"size mismatch for {name}: {tuple(found[name].shape)} where the network has {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in found and found[name].shape != value.shape
    ]
    missing = [f'it lacks "{name}"' for name in wanted if name not in found]
    unknown = [f'the network has no "{name}"' for name in found if name not in wanted]
    kinds = [kind for kind in (missing, unknown, shapes) if kind]
    return "; ".join(kind[0] + (f" and {len(kind) - 1} more" if len(kind) > 1 else "") for kind in kinds)


@dataclass(frozen=True)
class Checkpoint:
    """A trained network among the machines: another seed or architecture shows how predictable a network is at all.

    Called like the machines' classes, as `checkpoint(images, labels)`; of the images only the device counts.

    Args:
        path: whatever `load_network` opens.
    """

    path: str | Path | None = None

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> ScheduledDenoiser:
        """The network, in evaluation mode, on the device of the images.

        Raises:
            InputError: without a path, and as `load_network`.
        """
        if not isinstance(self.path, str | Path):
            raise InputError(f"machines=[checkpoint] needs machines.checkpoint.path=PATH, not {self.path!r}")
        return open_network(self.path)[0].to(images.device)
