"""Every schedule with every prediction, through training, comparison and report."""

import itertools
import json
import math

import pytest
from tiny import train

from elslightning.diffusion.prediction import PREDICTIONS
from elslightning.diffusion.schedules import SCHEDULES
from elslightning.report import figures
from elslightning.report.page.page import write_report
from elslightning.runs.checkpoints import load_network
from elslightning.runs.experiment import open_run, schedule_of

pytestmark = pytest.mark.usefixtures("no_drawing", "little_training")

NAMES = list(SCHEDULES)
SMALL = [
    *("data.train_size=20", "data.val_size=4", "machines=[bbels]", "callbacks=[checkpoint]"),
    *("comparison.num_pairs=1", "calibration.num_samples=1", "calibration.gradient_samples=1"),
]
# What each prediction is tried with besides: the network's own grid, another one, and the late start.
WITH = {
    "eps": lambda name: [],
    "v": lambda name: [f"comparison.grid={NAMES[NAMES.index(name) - 1]}"],
    "x0": lambda name: ["comparison.compatibility=official"],
}


@pytest.mark.parametrize(("schedule", "prediction"), list(itertools.product(NAMES, PREDICTIONS)))
def test_a_network_is_trained_compared_and_reported(tmp_path, monkeypatch, schedule, prediction):
    options = [f"schedule={schedule}", f"denoiser.prediction={prediction}", *WITH[prediction](schedule)]
    train(tmp_path, *SMALL, *options)
    machines = json.loads((tmp_path / "summary.json").read_text())["machines"]
    assert all(math.isfinite(entry["2"]["pearson_r"]["median"]) for entry in machines.values())
    if prediction == "v":  # pages do not look at what is predicted
        drawn = []
        # Charts are made, but not written: that costs most of a page, and has tests of its own.
        style = {"style": figures.PAGE}
        monkeypatch.setattr(
            figures, "svg", lambda draw, *data, **given: drawn.append(draw(*data, **style, **given)) or ""
        )
        page, _ = write_report(tmp_path, pairs=1, work=1.0)
        assert "There are no charts against time" not in page.read_text()
        assert drawn
        assert all(figure.axes for figure in drawn)
    run = open_run(tmp_path)
    grid = run.setting("comparison.grid")
    assert schedule_of(run) == SCHEDULES[grid or schedule]()
    network = load_network(tmp_path)
    assert (network.prediction, network.schedule) == (prediction, SCHEDULES[schedule]())
    # The table is calibrated on the grid that the comparison goes along.
    table = json.loads((tmp_path / "scales.json").read_text())["bbels"]["alpha_bar"]
    assert table == pytest.approx(SCHEDULES[grid or schedule]().noise_levels(2).flip(0).tolist())
