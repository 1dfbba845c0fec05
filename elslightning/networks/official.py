"""Networks trained by the paper's code: whole objects pickled by torch.save, rebuilt as ours from their weights."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from elslightning.diffusion.schedule import CosineSchedule
from elslightning.networks.adapter import EpsDenoiser
from elslightning.networks.resnet import ResNet
from elslightning.networks.unet import UNet
from elslightning.system.errors import InputError
from elslightning.system.pickled import Call, Name, Record
from elslightning.system.pickles import read_pickle
from elslightning.system.torchfiles import TorchFile, check_extent

_DDIM = "models.DDIM"
_SCHEDULE = Name("utils.noise_schedules.cosine_noise_schedule")
_STORAGES = {"torch.FloatStorage": "<f4", "torch.DoubleStorage": "<f8", "torch.HalfStorage": "<f2"}

# The paper's classes by the names of ours; those of torch have their own.
_CLASSES = {
    "ResNet": "models.MinimalResNet",
    "UNet": "models.MinimalUNet",
    "Block": "models.UBlock",
    "TimeClassEmbedding": "models.EmbeddingModule",
}
# The paper's modules by the names of ours, where they differ.
_PARTS = {
    "heads": "embs",
    "head": "emb",
    "layers": "model",
    "classes": "class_embeddings",
    "down_blocks": "feature_blocks",
    "up_blocks": "output_blocks",
    "last_head": "last_emb",
}
# What, beside its weights, a module computes by.
_SETTINGS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Conv2d: ("kernel_size", "stride", "dilation", "groups", "padding_mode"),
    nn.ConvTranspose2d: ("kernel_size", "stride", "padding", "output_padding", "dilation", "groups"),
    nn.GroupNorm: ("num_groups", "eps"),
    nn.Embedding: ("max_norm",),
    nn.MaxPool2d: ("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
}
_TORCH = (*_SETTINGS, nn.Linear, nn.ReLU, nn.Sequential, nn.ModuleList)


Modules = dict[str, Record]


def load_official(path: str | Path) -> EpsDenoiser:
    """The network in a file of the paper's code: a `DDIM` around a `MinimalResNet` or a `MinimalUNet`.

    The file is read as data: nothing in it runs, see `elslightning.system.pickles`. The network keeps the schedule it
    was trained with, the paper's cosine, and has float32 weights, on the CPU.

    Raises:
        InputError: naming the file and the reason, if it is missing, damaged, or anything else.
    """
    return read_official(path)[0]


def read_official(path: str | Path) -> tuple[EpsDenoiser, dict[str, Any]]:
    """The network as of `load_official`, and the sections `denoiser` and `schedule` that a checkpoint of ours needs."""
    file = TorchFile(path)
    tensors = _Tensors(file)
    names = {_DDIM, _SCHEDULE.text, *_STORAGES, *_CLASSES.values(), *map(_qualified, _TORCH)}
    try:
        root = read_pickle(file.pickle, "its pickle", names, tensors.calls, tensors.storage)
        modules = _modules(_backbone(root))
        kind, options = _options(modules)
        # Without memory until the weights are known to fit.
        with torch.device("meta"):
            backbone = kind(**options)
        _check_structure(backbone, modules)
        backbone.load_state_dict(_weights(backbone, modules, file.size), assign=True)
    except InputError as error:
        raise InputError(f"{path} is not a network of the paper's code: {error}") from error
    schedule = CosineSchedule()
    config = {
        "denoiser": {"_target_": f"elslightning.{kind.__name__}", **options},
        "schedule": {"_target_": "elslightning.CosineSchedule", "stretch": schedule.stretch},
    }
    return EpsDenoiser(backbone, schedule).eval(), config


@dataclass(eq=False)
class _Storage:
    """The numbers of a storage of the file, float32."""

    value: Tensor


@dataclass(eq=False)
class _Weight:
    """A tensor of the file: a view of its storage, which others may share."""

    value: Tensor


class _Tensors:
    """Makes the tensors of a file; what it is called with comes from the file, of any type and value."""

    def __init__(self, file: TorchFile) -> None:
        self._file = file
        self._storages: dict[str, _Storage] = {}
        self.calls: dict[str, Call] = {
            "collections.OrderedDict": lambda: {},
            "__builtin__.set": lambda values: values,
            "builtins.set": lambda values: values,
            "torch._utils._rebuild_parameter": lambda weight, requires_grad, hooks: weight,
            "torch._utils._rebuild_tensor_v2": self.tensor,
        }

    def storage(self, identity: Any) -> _Storage:
        """All numbers of a storage, from its identity `("storage", type, key, location, length)`."""
        _, kind, key, _, length = identity
        if not (isinstance(kind, Name) and isinstance(key, str)):
            raise TypeError
        if kind.text not in _STORAGES:
            raise InputError(f"its numbers are of {kind.text}")
        if key not in self._storages:
            data = self._file.read(f"data/{key}")
            with np.errstate(over="ignore"):  # infinite numbers are refused where they are used
                numbers = np.frombuffer(data, dtype=_STORAGES[kind.text]).astype(np.float32)
            self._storages[key] = _Storage(torch.from_numpy(numbers))
        if length != len(self._storages[key].value):
            raise InputError(f"the storage {key} does not have the length that is given for it")
        return self._storages[key]

    def tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
    ) -> _Weight:
        """A tensor within a storage."""
        if not isinstance(storage, _Storage):
            raise TypeError
        check_extent(offset, size, stride, len(storage.value))
        if not math.prod(size):
            raise InputError("a tensor has no numbers")
        steps = [step if n > 1 else 0 for n, step in zip(size, stride, strict=True)]
        return _Weight(storage.value.as_strided(size, steps, offset))


def _backbone(root: Any) -> Any:
    """The network within the object that a file holds."""
    if not isinstance(root, Record) or root.kind != _DDIM:
        raise InputError(f"it holds {root.kind if isinstance(root, Record) else 'something else'}, not {_DDIM}")
    if root.state.get("noise_schedule") != _SCHEDULE:
        raise InputError(f"its noise_schedule is not {_SCHEDULE.text}")
    parts = _dictionary(root, "_modules")
    if list(parts) != ["backbone"] or _dictionary(root, "_parameters") or _dictionary(root, "_buffers"):
        raise InputError(f"its {_DDIM} has other parts than a backbone")
    return parts["backbone"]


def _modules(backbone: Any) -> Modules:
    """A module and all below it, by their dotted names; itself by the empty one."""
    modules: Modules = {}
    waiting, seen = [("", backbone)], set()
    while waiting:
        name, module = waiting.pop()
        if not isinstance(module, Record) or id(module) in seen:
            raise InputError(f"{name or 'backbone'} is not a module of its own")
        modules[name] = module
        seen.add(id(module))
        waiting += [(f"{name}.{part}".lstrip("."), child) for part, child in _dictionary(module, "_modules").items()]
    return modules


def _dictionary(module: Record, key: str) -> dict[str, Any]:
    """One of a module's dictionaries of named parts."""
    parts = module.state.get(key)
    if not isinstance(parts, dict) or not all(isinstance(name, str) and "." not in name for name in parts):
        raise InputError(f"a {module.kind} has no {key}")
    return parts


def _options(modules: Modules) -> tuple[type[ResNet] | type[UNet], dict[str, Any]]:
    """Which of our networks this is, and the arguments that make it."""

    def shape(name: str) -> tuple[int, ...]:
        weight = _dictionary(modules[name], "_parameters").get("weight") if name in modules else None
        if not isinstance(weight, _Weight) or weight.value.ndim < 2:
            raise InputError(f"{name} has no matrix of weights")
        return tuple(weight.value.shape)

    def count(name: str) -> int:
        return len(_dictionary(modules[name], "_modules")) if name in modules else 0

    kind: type[ResNet] | type[UNet]
    plain: tuple[str, bool | None]
    backbone = modules[""]
    if backbone.kind == _CLASSES["ResNet"]:
        kind, plain, output = ResNet, ("normalization", None), "down_projection"
        options = {"width": shape("up_projection")[0], "num_layers": count("convs")}
    elif backbone.kind == _CLASSES["UNet"]:
        kind, plain, output = UNet, ("last_norm", False), "output_conv"
        levels = [f"feature_blocks.{level}" for level in range(count("feature_blocks"))]
        features = [shape(f"{level}.model.0")[0] for level in (*levels, "bottleneck")]
        if features != [features[0] * 2**level for level in range(len(features))]:
            raise InputError(f"its levels have {features} features, which do not double from each to the next")
        options = {"width": features[0], "num_levels": len(features), "embedding_dim": shape("last_emb.1")[1]}
    else:
        raise InputError(f"its backbone is {backbone.kind}, not {' or '.join(list(_CLASSES.values())[:2])}")
    if backbone.state.get(plain[0], plain[1]) is not plain[1]:
        raise InputError(f"its {plain[0]} is not {plain[1]}")
    padding_mode = modules[output].state.get("padding_mode") if output in modules else None
    if not isinstance(padding_mode, str):
        raise InputError(f"{output} has no padding_mode")
    conditional = "embedding.class_embeddings" in modules
    return kind, {
        "channels": shape(output)[0],
        **options,
        "padding_mode": padding_mode,
        "conditional": conditional,
        "num_classes": shape("embedding.class_embeddings")[0] if conditional else None,
        "time_embedding": "paper",
    }


def _check_structure(backbone: nn.Module, modules: Modules) -> None:
    """Raises InputError unless the file's modules are of the classes and settings of ours."""
    # The paper's time embedding has no module where ours has one that does nothing.
    ours = {_their(name): part for name, part in backbone.named_modules() if not isinstance(part, nn.Identity)}
    for name in sorted(ours.keys() | modules.keys()):
        wanted = _qualified(type(ours[name])) if name in ours else "nothing"
        found = modules[name].kind if name in modules else "nothing"
        if wanted != found:
            raise InputError(f"{name or 'backbone'} is {found} where {wanted} should be")
    for name, part in ours.items():
        state = modules[name].state
        for setting in _SETTINGS.get(type(part), ()):
            if state.get(setting) != getattr(part, setting):
                raise InputError(f"the {setting} of {name} is not {getattr(part, setting)}")
        if isinstance(part, nn.Conv2d) and state.get("padding") not in ("same", (1, 1)):
            raise InputError(f"the padding of {name} is not 1")


def _weights(backbone: nn.Module, modules: Modules, size: int) -> dict[str, Tensor]:
    """The weights of the file, which has so many bytes, by the names of ours."""
    found = {
        f"{name}.{key}".lstrip("."): weight
        for name, module in modules.items()
        for kind in ("_parameters", "_buffers")
        for key, weight in _dictionary(module, kind).items()
        if weight is not None
    }
    ours = {_their(name): (name, weight.shape) for name, weight in backbone.state_dict().items()}
    if odd := sorted(ours.keys() ^ found.keys()):
        raise InputError(f"{odd[0]} is {'missing' if odd[0] in ours else 'too much'}")
    weights = {}
    for name, (our_name, shape) in ours.items():
        weight = found[name]
        if not isinstance(weight, _Weight) or weight.value.shape != shape:
            raise InputError(f"{name} is not a tensor of shape {tuple(shape)}")
        if not bool(weight.value.isfinite().all()):
            raise InputError(f"{name} has numbers that are not finite")
        weights[our_name] = weight.value
    if sum(weight.numel() for weight in weights.values()) > size:
        raise InputError("its weights are more than fit into the file")
    return {name: weight.clone(memory_format=torch.contiguous_format) for name, weight in weights.items()}


def _their(name: str) -> str:
    """The paper's name of a module or weight of ours."""
    return ".".join(_PARTS.get(part, part) for part in name.split("."))


def _qualified(kind: type[nn.Module]) -> str:
    """The paper's name of a class of ours or torch's."""
    return _CLASSES.get(kind.__name__, f"{kind.__module__}.{kind.__qualname__}")
