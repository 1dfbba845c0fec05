"""Where a network stands between recall and invention, in the report of its run."""

import shutil

import pytest
import torch

from elslightning.measurement.novelty import ENDS
from elslightning.report.page.creativity import HELDOUT, Standing, section, standing
from elslightning.report.page.page import write_report
from elslightning.runs.experiment import open_run, rebuild
from elslightning.runs.layout import read_creativity

CONTROLS = ["training images", HELDOUT, "shuffled patches", "noise"]


@pytest.fixture(scope="module")
def found(trained_once):
    run = open_run(trained_once)
    return standing(run, rebuild(run))


def test_network_machines_and_controls_are_measured_alike(found):
    assert list(found.found) == ["network", *found.machines, *CONTROLS]
    assert {"bbels", "is"} <= set(found.machines)
    names = {frozenset(summary) for summary in found.found.values()}
    assert len(names) == 1
    assert found.found["training images"]["novelty"]["mean"] == 0
    assert found.found["training images"]["memorised"]["mean"] == 1
    assert [point["group"] for point in found.points()][-4:] == [None] * 4


def test_both_decide_on_the_way_by_the_theory_s_windows(found):
    assert found.orders.keys() == {"bbELS", "network"}
    for order in found.orders.values():
        assert order.effective.shape == (2, 2, 8, 8)
        assert order.effective.min() >= 1
        assert order.main_share.shape == (2, 2)
    assert not torch.equal(found.orders["bbELS"].effective[-1], found.orders["network"].effective[-1])


@pytest.mark.usefixtures("no_rendering")
def test_the_report_has_a_section_and_a_file(trained_once, found, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(trained_once, directory)
    write_report(directory)
    assert found.sentence() in (directory / "report.md").read_text("utf-8")
    read = read_creativity(directory / "creativity.csv")
    for name, summary in found.found.items():
        for measure, entry in summary.items():
            assert {end: read[name][measure][end] for end in ENDS} == pytest.approx(entry)


def entry(mean, width=0.01):
    return {"mean": mean, "low": mean - width, "high": mean + width}


@pytest.mark.parametrize(
    ("novelty", "fidelity", "words"),
    [
        (0.4, 0.9, "are less new than images held out, and just as much like the training images"),
        (0.81, 0.5, "are as new as images held out, and less like the training images"),
        (0.95, 0.99, "are newer than images held out, and more like the training images"),
    ],
)
def test_the_sentence_says_where_it_stands(novelty, fidelity, words):
    network = {"novelty": entry(novelty), "fidelity": entry(fidelity), "memorised": entry(0.25)}
    mark = {"novelty": entry(0.8), "fidelity": entry(0.9), "memorised": entry(0.0)}
    text = Standing({"network": network, HELDOUT: mark}, [], 8).sentence()
    assert words in text
    assert "25 % of the samples are training images again" in text


def test_without_samples_the_section_says_why():
    assert section(None, "").missing == "Creativity is not measured: no samples, or no images held out."
    assert section(None, "There is no explorer: gone.").missing == "Creativity is not measured: gone."
