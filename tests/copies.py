"""Copies and texts of configurations, of which a command makes dozens: the same that OmegaConf makes, sooner."""

import copy
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, ListConfig, _utils, nodes, omegaconf
from omegaconf.base import ContainerMetadata, Metadata

VALUES = (nodes.AnyNode, nodes.StringNode, nodes.IntegerNode, nodes.FloatNode, nodes.BooleanNode, nodes.PathNode)

SLOWLY = {kind: kind.__deepcopy__ for kind in (DictConfig, ListConfig)}
"""What OmegaConf does itself."""


class Unfamiliar(Exception):
    """A node of another kind than is copied here."""


def copied_at_once(patch: pytest.MonkeyPatch) -> None:
    """Has OmegaConf copy its nodes field by field, which `copy.deepcopy` finds out anew for each, ask only of classes
    of others whether they are data classes, and write YAML with the emitter of libyaml."""
    for kind, slowly in SLOWLY.items():
        patch.setattr(kind, "__deepcopy__", _copied(slowly))
    for name in ("is_attr_class", "is_dataclass"):
        patch.setattr(_utils, name, _of_others(getattr(_utils, name)))
    emitter = getattr(yaml, "CDumper", None)
    if emitter is not None:
        written = omegaconf.get_omega_conf_dumper()
        dumper = type("Dumper", (emitter,), {"yaml_representers": written.yaml_representers})
        patch.setattr(omegaconf, "get_omega_conf_dumper", lambda: dumper)


def _of_others(asks: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether an object is of some kind of class, which those of Python's own and OmegaConf's types are not."""
    plain = {str, int, float, bool, type(None), dict, list, DictConfig, ListConfig, *VALUES}
    return lambda obj: type(obj) not in plain and asks(obj)


def _copied(slowly: Any) -> Any:
    def copied(self: Any, memo: dict[int, Any]) -> Any:
        try:
            return _copy(self, self.__dict__["_parent"], memo)
        except Unfamiliar:
            return slowly(self, memo)

    return copied


def _copy(node: Any, parent: Any, memo: dict[int, Any]) -> Any:
    kind, fields = type(node), node.__dict__
    if kind not in (DictConfig, ListConfig, *VALUES):
        raise Unfamiliar
    made: Any = object.__new__(kind)
    known = made.__dict__
    known["_metadata"] = _metadata(fields["_metadata"], memo)
    known["_parent"] = parent
    if kind in VALUES:
        known["_flags_cache"] = None
        known["_val"] = fields["_val"]  # as it is, by OmegaConf's own rule
        return made
    known["_flags_cache"] = copy.copy(fields["_flags_cache"])
    content = fields["_content"]
    if isinstance(content, dict):
        content = {key: _copy(value, made, memo) for key, value in content.items()}
    elif isinstance(content, list):
        content = [_copy(value, made, memo) for value in content]
    known["_content"] = content
    return made


def _metadata(metadata: Metadata, memo: dict[int, Any]) -> Metadata:
    if type(metadata) not in (Metadata, ContainerMetadata):
        raise Unfamiliar
    made = object.__new__(type(metadata))
    fields = made.__dict__
    fields.update(metadata.__dict__)
    fields["flags"] = copy.copy(metadata.flags)
    cache = metadata.resolver_cache
    fields["resolver_cache"] = copy.deepcopy(cache, memo) if cache else defaultdict(dict)
    return made
