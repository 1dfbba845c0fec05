"""Every schedule with every prediction, through training, comparison and report."""

import itertools
import json
import math

import pytest
from tiny import TRAIN, cli

from elslightning.diffusion.prediction import PREDICTIONS
from elslightning.diffusion.schedules import SCHEDULES
from elslightning.runs.checkpoints import load_network
from elslightning.runs.experiment import open_run, schedule_of

NAMES = list(SCHEDULES)
# What each prediction is tried with besides: the network's own grid, another one, and the late start.
WITH = {
    "eps": lambda name: [],
    "v": lambda name: [f"comparison.grid={NAMES[NAMES.index(name) - 1]}"],
    "x0": lambda name: ["comparison.compatibility=official"],
}


@pytest.mark.parametrize(("schedule", "prediction"), list(itertools.product(NAMES, PREDICTIONS)))
def test_a_network_is_trained_compared_and_reported(tmp_path, schedule, prediction):
    reported = prediction == "v"  # pages cost most of the time, and do not look at what is predicted
    small = [override for override in TRAIN if not reported or not override.startswith("report=")]
    options = [f"schedule={schedule}", f"denoiser.prediction={prediction}", *WITH[prediction](schedule)]
    done = cli("train", *small, *options, "callbacks=[checkpoint]", f"hydra.run.dir={tmp_path}")
    assert done.code == 0, done.err
    machines = json.loads((tmp_path / "summary.json").read_text())["machines"]
    assert all(math.isfinite(entry["2"]["pearson_r"]["median"]) for entry in machines.values())
    assert "there is no report" not in done.err
    assert (tmp_path / "report.html").is_file() is reported
    if reported:
        assert "There are no charts against time" not in (tmp_path / "report.html").read_text()
    run = open_run(tmp_path)
    grid = run.setting("comparison.grid")
    assert schedule_of(run) == SCHEDULES[grid or schedule]()
    network = load_network(tmp_path)
    assert (network.prediction, network.schedule) == (prediction, SCHEDULES[schedule]())
    # The table is calibrated on the grid that the comparison goes along.
    table = json.loads((tmp_path / "scales.json").read_text())["bbels"]["alpha_bar"]
    assert table == pytest.approx(SCHEDULES[grid or schedule]().noise_levels(2).flip(0).tolist())
