"""Configurations that were composed before: the same words give the same again, and Hydra takes long over them."""

import functools
import os
import pickle
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import version
from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import InputDefault, ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobRuntime
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, base

PLACE = re.compile(r"(hydra\.(?:run|sweep)\.dir)=(/[\w./-]+)")
"""A word that names a directory and decides nothing else: every test has its own."""


def composed_once(patch: pytest.MonkeyPatch) -> None:
    """Has Hydra read a file of the configuration once, and compose the same words once."""
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
    patch.setattr(loader, "load_configuration", remembered(loader.load_configuration))
    name = "_compose_config_from_defaults_list"
    patch.setattr(loader, name, merged(getattr(loader, name)))
    patch.setattr(config_loader_impl, "create_defaults_list", listed(config_loader_impl.create_defaults_list))
    patch.setattr(OverridesParser, "parse_rule", parsed(OverridesParser.parse_rule))
    patch.setattr(base, "parse", functools.cache(base.parse))  # interpolations, whose trees are looked at only
    name = "_create_interpolation_map"
    patch.setattr(defaults_list, name, interpolated(getattr(defaults_list, name)))


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
        places = [place.path for place in self.get_search_path().get_path()]
        key = (config_name, *words, options, runtime, files(places), len(ConfigStore.instance().repo))
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


def listed(create: Callable[..., DefaultsList]) -> Callable[..., DefaultsList]:
    """`create_defaults_list`, which looks through the files once for what is chosen of groups: values are no matter."""
    found: dict[Any, DefaultsList] = {}

    def created(repo: IConfigRepository, overrides_list: list[Override], **options: Any) -> DefaultsList:
        told = [one for one in overrides_list if not one.is_sweep_override()]
        of_groups = [repo.group_exists(one.key_or_group) for one in told]
        chosen = [one for one, of_group in zip(told, of_groups, strict=True) if of_group]
        if any(isinstance(one.value(), dict) for one in chosen):
            return create(repo=repo, overrides_list=overrides_list, **options)
        places = [source.path for source in repo.get_sources()]
        lines = [one.input_line for one in chosen]
        key = (*lines, *options.items(), files(places), len(ConfigStore.instance().repo))
        if key not in found:
            found[key] = create(repo=repo, overrides_list=overrides_list, **options)
        values = [one for one, of_group in zip(told, of_groups, strict=True) if not of_group]
        return replace(found[key], config_overrides=values)

    return created


def merged(compose: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    """`ConfigLoaderImpl._compose_config_from_defaults_list`, which merges the files of a list of `listed` once."""
    found: dict[int, tuple[list[ResultDefault], bytes]] = {}

    def composed(self: ConfigLoaderImpl, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        known, config = found.get(id(defaults), (None, b""))
        if known is not defaults:
            config = pickle.dumps(compose(self, defaults=defaults, repo=repo))
            found[id(defaults)] = defaults, config
        return pickle.loads(config)

    return composed


def parsed(parse: Callable[..., Any]) -> Callable[..., Any]:
    """`OverridesParser.parse_rule`, which reads a word once; what cannot be read it reads again."""
    found: dict[tuple[str, str], bytes] = {}

    def read(self: OverridesParser, s: str, rule_name: str) -> Any:
        if (s, rule_name) not in found:
            found[s, rule_name] = pickle.dumps(parse(self, s, rule_name))
        return pickle.loads(found[s, rule_name])

    return read


def interpolated(choices: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    """`_create_interpolation_map`, of what defaults may refer to, where any of them does."""

    def known(overrides: Overrides, defaults: list[InputDefault], self_added: bool) -> DictConfig:
        if any(default.is_interpolation() for default in defaults):
            return choices(overrides, defaults, self_added)
        return DictConfig({})

    return known


def files(places: Iterable[str]) -> tuple[tuple[str, int, int], ...]:
    """What lies where configurations are looked for."""
    folders = [place.removeprefix("file://") for place in places]
    return tuple(entry for folder in folders if os.path.isdir(folder) for entry in _below(folder))


def _below(folder: str) -> Iterator[tuple[str, int, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _below(entry.path)
            elif entry.name.endswith(".yaml"):
                stat = entry.stat()
                yield entry.path, stat.st_mtime_ns, stat.st_size
