"""What every command does again, and what comes out the same each time: done once in a process."""

import copy
import functools
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from compositions import listed, merged, remembered
from hydra._internal import config_loader_impl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from lightning.fabric.utilities import registry
from torch import Tensor

from elslightning.data import sources
from elslightning.diffusion.shapes import Progress
from elslightning.measurement.novelty import Novelty, Reference
from elslightning.runs import provenance


def once(patch: pytest.MonkeyPatch) -> None:
    """Has Hydra read a file of the configuration once, and compose the same words once; Lightning looks once for what
    other packages bring, scikit-learn unpacks its digits once, and git is asked once about a working directory."""
    Plugins.instance()  # which imports them anew: those that were imported before are others
    loader = config_loader_impl.ConfigLoaderImpl
    load, found = ConfigRepository.load_config, {}

    def loaded(self: ConfigRepository, config_path: str) -> Any:
        sources = [(source.scheme(), source.provider, source.path) for source in self.get_sources()]
        paths = [Path(path, config_path).with_suffix(".yaml") for scheme, _, path in sources if scheme == "file"]
        stats = [(stat.st_mtime_ns, stat.st_size) for stat in (path.stat() for path in paths if path.is_file())]
        key = (config_path, *sources, *stats, len(ConfigStore.instance().repo))
        if key not in found:
            found[key] = pickle.dumps(load(self, config_path))
        return pickle.loads(found[key])

    patch.setattr(ConfigRepository, "load_config", loaded)
    patch.setattr(registry, "entry_points", functools.cache(registry.entry_points))  # of every installed package
    patch.setattr(loader, "load_configuration", remembered(loader.load_configuration))
    name = "_compose_config_from_defaults_list"
    patch.setattr(loader, name, merged(getattr(loader, name)))
    patch.setattr(config_loader_impl, "create_defaults_list", listed(config_loader_impl.create_defaults_list))
    digits = functools.cache(sources.load_digits)
    patch.setattr(sources, "load_digits", lambda: copy.deepcopy(digits()))
    ask = provenance.git
    asked = functools.cache(lambda directory: ask())
    patch.setattr(provenance, "git", functools.wraps(ask)(lambda: copy.deepcopy(asked(os.getcwd()))))


def measured_once(patch: pytest.MonkeyPatch) -> None:
    """Has reports that are written again and again of the same images train a classifier and measure samples once."""
    make, measure = Reference.__init__, Reference.measure
    made: dict[Any, dict[str, Any]] = {}
    measured: dict[Any, Novelty] = {}

    def initialised(self: Reference, images: Tensor, labels: Tensor | None = None, **options: Any) -> None:
        key = (_numbers(images), _numbers(labels), *sorted(options.items()))
        if key not in made:
            make(self, images, labels, **options)
            made[key] = vars(self) | {"key": key}
        vars(self).update(made[key])

    def known(self: Reference, samples: Tensor, labels: Tensor | None = None, *, progress: Progress) -> Novelty:
        key = (vars(self)["key"], _numbers(samples), _numbers(labels))
        if key not in measured:
            measured[key] = measure(self, samples, labels, progress=progress)
        return measured[key]

    patch.setattr(Reference, "__init__", initialised)
    patch.setattr(Reference, "measure", known)


def _numbers(tensor: Tensor | None) -> Any:
    return None if tensor is None else (tensor.shape, tensor.dtype, tensor.numpy().tobytes())
