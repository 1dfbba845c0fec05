"""The keys of the verbs' configurations: which there are, what they mean, and which one a mistyped word may mean."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import CompactHydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

from elslightning.cli.composing import conf_dir
from elslightning.runs.configuration import key_of
from elslightning.system.checks import alike, did_you_mean

_NO_KEY = re.compile(r"Could not override '([^']+)'")
_NO_OPTION = re.compile(r"Could not (?:find|load) '([^']+)/([^'/]+)'")
_OWN = ("hydra", "paths", "verb")


def composed(verb: str, words: Sequence[str] = ()) -> DictConfig:
    """The configuration of a verb, with Hydra's own part, which says what was chosen; words that do not compose are
    left out."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        if (found := _compose(verb, words)) is not None:
            return found
        kept: list[str] = []
        for word in words:
            if _compose(verb, [*kept, word]) is not None:
                kept.append(word)
        return compose(verb, kept, return_hydra_config=True)


def _compose(verb: str, words: Sequence[str]) -> DictConfig | None:
    try:
        return compose(verb, list(words), return_hydra_config=True)
    except (CompactHydraException, ValueError):
        return None


def keys(config: Any, place: str = "") -> dict[str, Any]:
    """Every key of a configuration, sections included, as it is typed, with its value before interpolation."""
    found: dict[str, Any] = {}
    if not isinstance(config, DictConfig):
        return found
    for name, node in config.items_ex(resolve=False):
        key = f"{place}{name!s}"
        if key in _OWN or str(name).startswith("_"):
            continue
        found[key] = node
        found |= keys(node, f"{key}.")
    return found


def choices() -> dict[str, list[str]]:
    """What stands in every group: `denoiser=` one of these."""
    found: dict[str, list[str]] = {}
    for path in sorted(conf_dir().rglob("*/*.yaml")):
        place = path.relative_to(conf_dir())
        if place.parts[0] not in _OWN:
            found.setdefault(place.parts[0], []).append(Path(*place.parts[1:]).with_suffix("").as_posix())
    return found


def explained(message: str, verb: str, words: Sequence[str]) -> str:
    """What Hydra says of words that it cannot compose, in the words of whoever typed them.

    Args:
        message: Hydra's, in a line.
        verb: what was to be done.
        words: that follow it.
    """
    # What no word names, a file of conf/ does: Hydra says which.
    if (found := _NO_KEY.search(message)) is not None and any(found[1] in word for word in words):
        key = found[1]
        known = keys(composed(verb, [word for word in words if not word.startswith("-") and key_of(word) != key]))
        near = alike(key, known) or _elsewhere(key, known)
        section = key.rpartition(".")[0]
        more = f"elslightning explain {section}" if section in known else "elslightning explain"
        return f"there is no key {key}{f'; did you mean {near}?' if near else ''} ({more} lists those that there are)"
    if (found := _NO_OPTION.search(message)) is not None:
        group, option = found[1].split("/")[0], found[2]
        return f"{message.rstrip('.')}{did_you_mean(option, choices().get(group, ()))}"
    return re.sub(r"\s*See https?://\S+ for details", "", message)


def _elsewhere(key: str, known: Collection[str]) -> str:
    """A key in a section whose last word is like that of this one, if there is only one such key."""
    last = alike(key.rpartition(".")[2], {one.rpartition(".")[2] for one in known})
    found = [one for one in known if last and one.rpartition(".")[2] == last]
    return found[0] if len(found) == 1 else ""


def meaning(key: str, config: DictConfig) -> str:
    """What a key means: the comment above it in the file of `conf/` that sets it, else what the class that takes it
    says of its argument; empty if neither says anything.

    Args:
        key: of the configuration.
        config: as `composed` returns it.
    """
    return next((text for path in _files(key, config) if (text := _comment(path, key))), "") or _argument(key, config)


def _files(key: str, config: DictConfig) -> list[Path]:
    """The files that may set a key, the one that was chosen first."""
    chosen = config.hydra.runtime.choices
    top, _, rest = key.partition(".")
    paths = []
    if not rest:
        paths.append(conf_dir() / f"{config.verb}.yaml")
    option = chosen.get(top)
    if isinstance(option, str):
        paths.append(conf_dir() / top / f"{option}.yaml")
    if rest and (conf_dir() / top / f"{rest.split('.')[0]}.yaml").is_file():
        return [conf_dir() / top / f"{rest.split('.')[0]}.yaml"]
    # What one file does not say may stand in the one that it begins with.
    return [*paths, *(path for path in sorted((conf_dir() / top).glob("*.yaml")) if rest and path not in paths)]


def _comment(path: Path, key: str) -> str:
    """The comment lines above a key, or, for a file that is the whole section, those at its top."""
    if not path.is_file():
        return ""
    lines, last = path.read_text("utf-8").splitlines(), key.rpartition(".")[2]
    whole = "." not in key and path.parent != conf_dir()
    places = [n for n, line in enumerate(lines) if re.match(rf"\s*{re.escape(last)}:", line)]
    end = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines)) if whole else None
    if end is None:
        if not places:
            return ""
        end = places[0]
    start = end
    while start and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    text = (line.strip().lstrip("#").strip() for line in lines[start:end])
    return " ".join(line for line in text if not line.startswith("@package"))


def _argument(key: str, config: DictConfig) -> str:
    """What the docstring of a section's class says of the argument that a key sets."""
    from hydra.utils import get_object  # imports torch, through the class

    section, _, name = key.rpartition(".")
    parent = OmegaConf.select(config, section) if section else None
    if not isinstance(parent, DictConfig) or "_target_" not in parent:
        return ""
    try:
        target = get_object(parent["_target_"])
        text = f"{target.__doc__ or ''}\n{target.__init__.__doc__ or ''}"
    except Exception:  # an extra that is not installed
        return ""
    found = re.search(rf"^( +)(?:\w+, )*{name}(?:, \w+)*(?: \([^)]*\))?: (.*(?:\n\1 +\S.*)*)", text, re.MULTILINE)
    return " ".join(found[2].split()) if found else ""


def shown(value: Any) -> str:
    """A value as it would be typed."""
    if isinstance(value, DictConfig | ListConfig):
        value = OmegaConf.to_container(value, resolve=False)
    else:
        value = value._value() if hasattr(value, "_value") else value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return "[" + ",".join(map(shown, value)) + "]" if isinstance(value, list) else str(value)
