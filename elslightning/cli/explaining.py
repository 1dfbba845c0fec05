"""`elslightning explain KEY`: what a key means, what it is set to, and what else it can be."""

import textwrap
from collections.abc import Sequence

from omegaconf import DictConfig

from elslightning.cli.keys import choices, composed, keys, meaning, shown
from elslightning.system.checks import did_you_mean
from elslightning.system.errors import InputError

VERBS = ("train", "compare", "calibrate", "sample", "create")
_WIDTH = 100


def explain(words: Sequence[str]) -> str:
    """What the words ask for, as text.

    Args:
        words: a key, or the name of a group, or none for all; `group=option` and `key=value` beside it say in which
            configuration.

    Raises:
        InputError: for a key that no verb has.
    """
    asked = [word for word in words if "=" not in word]
    setting = [word for word in words if "=" in word]
    if not asked:
        return _overview(composed(VERBS[0], setting))
    return "\n".join(_one(key, setting) for key in asked)


def _one(key: str, setting: Sequence[str]) -> str:
    known: dict[str, object] = {}
    texts: dict[str, str] = {}  # by meaning: a key outside of the sections may mean several things
    for verb in VERBS:
        config = composed(verb, setting)
        found = keys(config)
        if key in found and not (texts and ("." in key or isinstance(found[key], DictConfig))):
            texts.setdefault(meaning(key, config), _text(key, found, config, verb))
        known |= found
    if texts:
        return "\n".join(text for said, text in texts.items() if said or len(texts) == 1)
    options = choices()
    if key in options:
        return _paragraphs(key, f"a group, which is not chosen from here: {', '.join(options[key])}")
    raise InputError(f"there is no key {key}{did_you_mean(key, [*known, *options])}")


def _text(key: str, found: dict[str, object], config: DictConfig, verb: str) -> str:
    """A key's value and meaning; of a section, those of the keys in it."""
    node, options = found[key], choices().get(key, [])
    section = isinstance(node, DictConfig)
    head = f"{key} ({verb})" if section else f"{key} = {shown(node)} ({verb})"
    lines = [meaning(key, config)]
    if options:
        chosen = config.hydra.runtime.choices.get(key)
        lines.append(f"{key}={'|'.join(options)}" + (f"; here {chosen}" if isinstance(chosen, str) else ""))
    below = [one for one in found if one.rpartition(".")[0] == key]
    text = _paragraphs(head, *lines)
    return "\n".join([text, *(_line(one, found, config) for one in below)]) if below else text


def _overview(config: DictConfig) -> str:
    """All groups with what can be chosen, and the keys outside of them."""
    found = keys(config)
    groups = [_paragraphs(f"{group}=", ", ".join(options)) for group, options in choices().items()]
    alone = [_line(key, found, config) for key in found if "." not in key and not isinstance(found[key], DictConfig)]
    return "\n".join(["Groups, each with what can be chosen:", *groups, "", "Keys of their own:", *alone])


def _line(key: str, found: dict[str, object], config: DictConfig) -> str:
    node = found[key]
    value = "" if isinstance(node, DictConfig) else f" = {shown(node)}"
    return textwrap.indent(_paragraphs(f"{key}{value}", meaning(key, config)), "  ")


def _paragraphs(head: str, *texts: str) -> str:
    shape = {"width": _WIDTH, "initial_indent": "    ", "subsequent_indent": "    ", "break_long_words": False}
    return "\n".join([head, *(textwrap.fill(text, **shape) for text in texts if text)])  # type: ignore[arg-type]
