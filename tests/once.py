"""What every command does again, and what comes out the same each time: done once in a process."""

import copy
import functools
import os
from typing import Any

import pytest
from compositions import composed_once
from copies import copied_at_once
from lightning.fabric.utilities import registry
from torch import Tensor

from elslightning.data import sources
from elslightning.diffusion.shapes import Progress
from elslightning.measurement.novelty import Novelty, Reference
from elslightning.runs import provenance


def once(patch: pytest.MonkeyPatch) -> None:
    """Has Hydra read a file of the configuration once, and compose the same words once; Lightning looks once for what
    other packages bring, scikit-learn unpacks its digits once, and git is asked once about a working directory."""
    composed_once(patch)
    copied_at_once(patch)
    patch.setattr(registry, "entry_points", functools.cache(registry.entry_points))  # of every installed package
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
