"""What is built again from a run, and in one line what cannot be."""

import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from elslightning.diffusion.schedule import CosineSchedule
from elslightning.report.page.sections import sections
from elslightning.runs.experiment import formal_receptive_field, parameter_count, schedule_of
from elslightning.runs.run import read_run
from elslightning.system.errors import InputError

pytestmark = pytest.mark.usefixtures("no_layout")

RUN = Path(__file__).resolve().parents[1] / "fixtures" / "version_0_1" / "run"


def changed(directory: Path, schedule):
    """A run whose configuration has this schedule."""
    shutil.copytree(RUN, directory, dirs_exist_ok=True)
    config = OmegaConf.load(directory / ".hydra" / "config.yaml")
    config.schedule = schedule
    OmegaConf.save(config, directory / ".hydra" / "config.yaml")
    return read_run(directory)


def test_the_schedule_is_that_of_the_run(tmp_path):
    run = changed(tmp_path, {"_target_": "elslightning.schedule.CosineSchedule", "stretch": 1.5})
    assert isinstance(schedule_of(run), CosineSchedule)
    assert schedule_of(run).stretch == 1.5


def test_the_network_is_known_without_its_weights():
    run = read_run(RUN)
    assert formal_receptive_field(run.config) == run.gradients.formal == 7
    assert parameter_count(run.config) > 1000
    assert (formal_receptive_field(OmegaConf.create()), parameter_count(OmegaConf.create())) == (None, None)


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        (None, "names no schedule"),
        ({"stretch": 1.0}, "names no schedule"),
        ({"_target_": "os.getcwd"}, r"names os\.getcwd"),
        ({"_target_": "elslightning.CosineSchedule", "colour": "red"}, "colour"),
        ({"_target_": "elslightning.CalibrationSettings"}, "names no schedule, but a CalibrationSettings"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("no_rendering")
def test_a_schedule_that_cannot_be_built_is_said_and_never_taken_for_the_default(tmp_path, schedule, reason):
    run = changed(tmp_path, schedule)
    with pytest.raises(InputError, match=reason) as refused:
        schedule_of(run)
    shown = {section.id: section for section in sections(run, None, "There is no explorer.", None)}
    assert shown["scale"].texts[-1] == f"There are no charts against time: {refused.value}."
    assert (shown["scale"].charts, shown["way"].missing) == ((), shown["scale"].texts[-1])
