"""Configurations that were composed before: the same words give the same again, and Hydra takes long over them."""

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobRuntime
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

PLACE = re.compile(r"(hydra\.(?:run|sweep)\.dir)=(/[\w./-]+)")
"""A word that names a directory and decides nothing else: every test has its own."""


def remembered(compose: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    """`ConfigLoaderImpl.load_configuration`, which composes what depends on nothing new once."""
    found: dict[Any, bytes] = {}

    def composed(
        self: ConfigLoaderImpl,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        words = [PLACE.sub(r"\1=/place", word) if PLACE.fullmatch(word) else word for word in overrides]
        options = (run_mode, from_shell, validate_sweep_overrides)
        runtime = (os.getcwd(), version.getbase(), JobRuntime().get("name"))
        key = (config_name, *words, options, runtime, files(self), len(ConfigStore.instance().repo))
        if key not in found:
            config = compose(self, config_name, words, *options)
            OmegaConf.clear_cache(config)  # in which the time of day is
            found[key] = pickle.dumps(config)
        config = pickle.loads(found[key])
        told = iter(range(len(config.hydra.overrides.hydra)))
        for word in overrides:
            if match := PLACE.fullmatch(word):
                index = next(n for n in told if PLACE.fullmatch(config.hydra.overrides.hydra[n]))
                config.hydra.overrides.hydra[index] = word
                OmegaConf.update(config, match[1], match[2])
        return config

    return composed


def files(loader: ConfigLoaderImpl) -> tuple[tuple[str, int, int], ...]:
    """What lies where configurations are looked for."""
    places = [place.path.removeprefix("file://") for place in loader.get_search_path().get_path()]
    paths = [path for place in places if os.path.isdir(place) for path in Path(place).rglob("*.yaml")]
    return tuple((str(path), (stat := path.stat()).st_mtime_ns, stat.st_size) for path in paths)
