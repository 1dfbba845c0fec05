"""The list of machines: it fits their classes, the configuration and the brute force of the tests."""

import colorsys
import re
from itertools import combinations

import pytest
import torch
from denoisers import MACHINES
from omegaconf import OmegaConf
from reference import posterior_mean

from elslightning.cli.composing import conf_dir
from elslightning.machines import LocalScoreMachine, ScoreMachine
from elslightning.machines.registry import (
    BASELINE,
    COLOURS,
    ENTRIES,
    PEER,
    display_name,
    the_theory,
    theory_of,
)
from elslightning.testing import levels, random_images


def luminance(colour: str) -> float:
    """The relative luminance of a colour, in [0, 1] (WCAG 2)."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_names_labels_and_classes_are_of_one_machine_each():
    for what in ("name", "label", "machine"):
        assert len({getattr(entry, what) for entry in ENTRIES}) == len(ENTRIES)
    assert all(issubclass(entry.machine, ScoreMachine) for entry in ENTRIES)
    assert all(re.fullmatch("[a-z][a-z0-9_]*", entry.name) for entry in ENTRIES)  # keys, folders and variables of pages
    assert PEER not in {entry.name for entry in ENTRIES}


def test_colours_can_be_told_apart_and_read():
    for one, other in combinations(COLOURS.values(), 2):
        assert one.lower() != other.lower()  # pages find a machine's lines by them
        hues = [colorsys.rgb_to_hsv(*(int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))) for colour in (one, other)]
        assert sum(abs(a - b) for a, b in zip(*hues, strict=True)) > 0.1
    for entry in ENTRIES:
        assert 1.05 / (luminance(entry.on_light) + 0.05) > 3
        assert (luminance(entry.on_dark) + 0.05) / (luminance("#121417") + 0.05) > 4.5


def test_one_machine_is_the_baseline_and_the_theory_is_another():
    assert [entry.name for entry in ENTRIES if entry.baseline] == [BASELINE] == ["is"]
    assert the_theory(["is", "ls", "bbels"]) == "ls"
    assert the_theory(["is"]) == "is"
    assert the_theory(["mean", "wiener", "is", "els"]) == "els"
    assert the_theory(["mean", "wiener", "is"]) == "is"
    assert the_theory(["mean", "wiener"]) == "mean"
    assert the_theory([]) is None


def test_each_padding_has_its_theory():
    assert (theory_of("zeros"), theory_of("circular")) == ("bbels", "els")


def test_names_are_written_by_their_labels():
    assert [display_name(entry.name) for entry in ENTRIES] == [entry.label for entry in ENTRIES]
    assert display_name("somebody's") == "somebody's"
    assert LocalScoreMachine in {entry.machine for entry in ENTRIES if entry.local}


def test_the_configuration_names_the_same_machines():
    files = {path.stem: path for path in (conf_dir() / "machines").glob("*.yaml")}
    assert files.keys() == {PEER} | {entry.name for entry in ENTRIES}
    for entry in ENTRIES:
        config = OmegaConf.load(files[entry.name])
        assert (config["_target_"], config["_partial_"]) == (f"elslightning.{entry.machine.__name__}", True)
        assert files[entry.name].read_text().startswith(f"# @package machines.{entry.name}\n")


@pytest.mark.parametrize("name", MACHINES)
def test_every_machine_is_its_twin_in_the_brute_force(name):
    images, x_t = random_images(3, 1, 5, 6), random_images(1, 1, 5, 6, seed=1)
    found = MACHINES[name](images, scales=3)(x_t, levels(0.6))[0]
    torch.testing.assert_close(found, posterior_mean(name, x_t[0], 0.6, images, 3), rtol=1e-9, atol=1e-9)
