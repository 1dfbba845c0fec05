"""Sections of a configuration become what Hydra would make of them."""

from functools import partial
from typing import Any

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from tiny import compose_config

from elslightning.runs.targets import _is_plain, build
from elslightning.system.errors import InputError


def same(one: Any, other: Any) -> bool:
    """Whether two objects are the same but for where they lie."""
    if isinstance(one, partial):
        return isinstance(other, partial) and one.func is other.func and same(one.keywords, other.keywords)
    if isinstance(one, torch.nn.Module):
        return str(one) == str(other) and same(dict(one.state_dict()), dict(other.state_dict()))
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if type(one).__module__.startswith("elslightning"):
        return type(one) is type(other) and same(vars(one), vars(other))
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("part", ["data", "denoiser", "schedule", "calibration", "comparison", "machines"])
def test_own_classes_are_built_as_hydra_builds_them(part, tmp_path):
    config = compose_config("train", tmp_path)[part]
    for section in config.values() if part == "machines" else [config]:
        plain = OmegaConf.to_container(section, resolve=True)
        assert _is_plain(plain)
        made = []
        for make, given in ((build, plain), (build, section), (partial(instantiate, _convert_="all"), section)):
            torch.manual_seed(0)
            made.append(make(given))
        assert same(made[0], made[2])
        assert same(made[1], made[2])


def test_sections_within_sections_are_built_and_lists_are_copied():
    sizes = [3, 5]
    section = {"_target_": "elslightning.CalibrationSettings", "_partial_": True, "patch_sizes": sizes}
    nested = {"_target_": "elslightning.Checkpoint", "_partial_": True, "path": [{"within": section}]}
    found = build(nested).keywords["path"][0]["within"]
    assert same(found, build(section))
    assert found.keywords["patch_sizes"] == sizes
    assert found.keywords["patch_sizes"] is not sizes


@pytest.mark.parametrize(
    "changed",
    [
        {"width": "${oc.env:HOME}"},
        {"width": "???"},
        {"width": (16,)},
        {"width": {1: 2}},
        {"width": {"_partial_": True}},
        {"width": [{"_target_": "builtins.int"}]},
        {"_args_": [1]},
        {"_recursive_": False},
        {"_partial_": "yes"},
        {"_target_": "elslightning.networks.resnet.ResNet"},
        {"_target_": "elslightning.load_network"},
        {"_target_": "ResNet"},
    ],
    ids=str,
)
def test_all_else_is_left_to_hydra(changed):
    section = {"_target_": "elslightning.ResNet", "channels": 1, "width": 16}
    assert _is_plain(section)
    assert not _is_plain(section | changed)


def test_what_goes_wrong_is_said_as_hydra_says_it():
    section = {"_target_": "elslightning.ResNet", "channels": 1, "colour": "red"}
    with pytest.raises(InstantiationException) as of_hydra:
        instantiate(section)
    with pytest.raises(InputError) as ours:
        build(section)
    assert str(ours.value) == " ".join(str(of_hydra.value).split())
