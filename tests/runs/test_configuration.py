"""Configurations: what the words of a command line say, and what a run inherits."""

import pytest
from omegaconf import OmegaConf

from elslightning.runs.configuration import inherit, keys_of, primitives, setting, without_output
from elslightning.runs.targets import at_present
from elslightning.system.errors import InputError


def test_keys_of_overrides():
    assert keys_of(["a.b=1", "+c=x=y", "~d.e", "++f.g="]) == ["a.b", "c", "d.e", "f.g"]


def test_outputs_are_taken_out_of_the_words():
    assert without_output(["a", "output=b=c", "d", "output="]) == (["a", "d"], ["b=c", ""])
    assert without_output([]) == ([], [])


def config():
    return OmegaConf.create(
        {"data": {"channels": 1}, "denoiser": {"channels": "${data.channels}"}, "seed": "${nowhere}"}
    )


def test_sections_are_resolved_without_the_others():
    assert primitives(config(), ("data", "denoiser", "machines")) == {
        "data": {"channels": 1},
        "denoiser": {"channels": 1},
    }
    with pytest.raises(InputError, match="nowhere"):
        primitives(config())


def test_a_setting_that_cannot_be_told_is_none():
    assert [setting(config(), key) for key in ("denoiser", "seed", "nothing.of.this")] == [{"channels": 1}, None, None]


INHERITED = {"data": {"root": "there", "train_size": 40}, "machines": {"ls": {"a": 1}, "is": {"a": 2}}, "seed": 5}


@pytest.mark.parametrize(
    ("overrides", "changes"),
    [
        ([], {}),
        (["data.train_size=7"], {"data": {"root": "there", "train_size": 7}}),
        (["+data.new=9"], {"data": {"root": "there", "train_size": 40, "new": 9}}),
        (["~machines.ls"], {"machines": {"is": {"a": 2}}}),
        (["data=other"], {"data": {"train_size": 7, "new": 9}}),
        (["seed=1"], {"seed": 1}),
        (["seedling=3", "device=cpu"], {}),
    ],
    ids=str,
)
def test_what_a_run_inherits_gives_way_to_its_command_line(overrides, changes):
    cfg = OmegaConf.create({"data": {"train_size": 7, "new": 9}, "machines": {"els": {}}, "seed": 1, "device": "cpu"})
    OmegaConf.set_struct(cfg, True)
    inherit(cfg, INHERITED, overrides)
    assert OmegaConf.to_container(cfg) == INHERITED | {"device": "cpu"} | changes
    assert OmegaConf.is_struct(cfg)


def test_addresses_of_earlier_versions_become_those_of_today():
    earlier = {
        "schedule": {"_target_": "elslightning.schedule.CosineSchedule", "stretch": "${of.something}"},
        "optimizer": {"_target_": "torch.optim.Adam"},
        "callbacks": [{"_target_": "elslightning.progress.FitProgress"}],
    }
    assert at_present(earlier) == {
        "schedule": {"_target_": "elslightning.CosineSchedule", "stretch": "${of.something}"},
        "optimizer": {"_target_": "torch.optim.Adam"},
        "callbacks": [{"_target_": "elslightning.FitProgress"}],
    }
