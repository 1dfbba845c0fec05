"""What every command does again, and what comes out the same each time: done once in a process."""

import copy
import functools
import os

import pytest
from compositions import composed_once
from lightning.fabric.utilities import registry

from elslightning.data import sources
from elslightning.runs import provenance


def once(patch: pytest.MonkeyPatch) -> None:
    """Has Hydra read a file of the configuration once, and compose the same words once; Lightning looks once for what
    other packages bring, scikit-learn unpacks its digits once, and git is asked once about a working directory."""
    composed_once(patch)
    patch.setattr(registry, "entry_points", functools.cache(registry.entry_points))  # of every installed package
    digits = functools.cache(sources.load_digits)
    patch.setattr(sources, "load_digits", lambda: copy.deepcopy(digits()))
    ask = provenance.git
    asked = functools.cache(lambda directory: ask())
    patch.setattr(provenance, "git", functools.wraps(ask)(lambda: copy.deepcopy(asked(os.getcwd()))))
