"""The files of a run directory: what is written is what is read, and every column has its type in one place."""

import csv
import json
import math
import tempfile
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import snapshot
from torch import Tensor

from elslightning.machines.scales import ScaleTable
from elslightning.measurement.agreement import agreement
from elslightning.measurement.calibration import Calibration
from elslightning.measurement.candidates import sizes_only
from elslightning.measurement.comparison import FURTHER, Comparison
from elslightning.measurement.doubts import doubts
from elslightning.measurement.gradients import GradientField
from elslightning.measurement.novelty import ENDS
from elslightning.measurement.result import Result, Samples
from elslightning.report.page.creativity import Standing
from elslightning.runs import contents, layout
from elslightning.runs.belonging import CHECKSUM, FILES
from elslightning.runs.run import read_run
from elslightning.runs.writing import write
from elslightning.system.errors import InputError
from elslightning.system.files import write_csv
from elslightning.testing import levels

NAMES = st.sampled_from(["bbels", "ls", "is", "own machine"])


def same(a, b) -> bool:
    """Whether all numbers and names in two results are equal; numbers in a file have no width."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.shape == b.shape and torch.equal(a.double(), b.double())
    if is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, part.name), getattr(b, part.name)) for part in fields(a))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(value, b[key]) for key, value in a.items())
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def results(draw) -> Result:
    """Results of a measurement, of any of the parts that there may be."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    machines = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    steps, sizes = draw(st.integers(1, 3)), draw(st.sampled_from([(3,), (1, 3, 7)]))
    noise_levels = torch.linspace(0.01, 0.99, steps, dtype=torch.float64)
    scales = {
        name: ScaleTable(noise_levels, torch.tensor(sizes)[torch.arange(steps) % len(sizes)]) for name in machines
    }
    calibrations = {}
    if draw(st.booleans()):
        evidence = torch.randn(
            steps, len(sizes), 2, generator=generator, dtype=draw(st.sampled_from([torch.float32, torch.float64]))
        )
        calibrations = {name: Calibration(scales[name], noise_levels, sizes_only(sizes), evidence) for name in machines}
    gradients = None
    if draw(st.booleans()):
        formal = draw(st.sampled_from([None, 7]))
        gradients = GradientField(
            noise_levels, *torch.rand(2, steps, 5, 4, generator=generator).double(), formal=formal
        )
    comparison = comparisons(draw, machines, generator) if draw(st.booleans()) else None
    known = scales if calibrations or draw(st.booleans()) else {}
    return Result(calibrations, known, comparison, gradients)


def comparisons(draw, machines, generator) -> Comparison:
    pairs, shape = draw(st.integers(1, 3)), (draw(st.sampled_from([1, 3])), 3, 4)
    counts = draw(st.lists(st.integers(1, 30), min_size=1, max_size=2, unique=True))
    labels = draw(st.none() | st.just(torch.arange(pairs)))
    network = {count: torch.randn(pairs, *shape, generator=generator) for count in counts}
    peers = (
        {"checkpoint": {count: torch.randn(pairs, *shape, generator=generator) for count in counts}}
        if draw(st.booleans())
        else {}
    )
    samples = {name: torch.randn(pairs, *shape, generator=generator) for name in machines}
    comparison = Comparison([], network, samples, labels, peers)
    classes = [None] * pairs if labels is None else labels.tolist()
    further = draw(st.booleans())  # what runs of 0.1 do not have
    beyond = dict.fromkeys(FURTHER, draw(st.none() | st.just(0.25))) | {"network_outside": 0.5}
    for name in (*machines, *peers):
        for count in counts:
            measured = {
                key: value.tolist() for key, value in agreement(comparison.samples(name, count), network[count]).items()
            }
            for pair, label in enumerate(classes):
                steps = count if name in peers else 5
                place = {"pair": pair, "label": label, "machine": name, "steps": steps, "network_steps": count}
                values = {key: column[pair] for key, column in measured.items()}
                comparison.rows.append(place | values | (beyond if further else {}))
    if draw(st.booleans()):
        comparison.consistency.extend(
            {"pair": pair, "label": label, "machine": machines[0], "source": source, "steps": 5, "consistency": share}
            for source in (machines[0], "network")
            for (pair, label), share in zip(
                enumerate(classes), torch.rand(pairs, generator=generator).double().tolist(), strict=True
            )
        )
    if draw(st.booleans()):
        comparison.handover.extend(
            {"pair": pair, "label": label, "machine": machines[0], "steps": 5, "after": after, "pearson_r": 0.5}
            for after in (0, 2)
            for pair, label in enumerate(classes)
        )
    if draw(st.booleans()):
        comparison.stepwise.extend(
            {"pair": pair, "label": label, "machine": name, "step": step, "alpha_bar": 1 / step}
            | {"eps_cosine": 0.5, "x0_mse": 0.25}
            for name in comparison.names
            for step in (3, 2, 1)
            for pair, label in enumerate(classes)
        )
    return comparison


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_reading_is_the_inverse_of_writing(data):
    result = results(data.draw)
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "first", Path(folder) / "second"
        write(result, first)
        (first / ".hydra").mkdir(parents=True)
        (first / ".hydra" / "config.yaml").write_text("verb: train\n")
        run = read_run(first)
        assert same(run.result, result)
        said = {"doubts": doubts(result)} if result.comparison is not None and result.comparison.further else {}
        known = {name: content for name, content in run.summary.items() if name not in (FILES, CHECKSUM)}
        assert result.comparison is None or known == result.comparison.summary() | said
        write(run.result, second)
        assert snapshot(second) == {name: content for name, content in snapshot(first).items() if ".hydra" not in name}


@pytest.mark.parametrize("labels", [None, torch.arange(2)], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("shares", [None, torch.tensor([0.25, 0.75]).double()], ids=["network", "machine"])
def test_samples_are_read_as_they_were_written(tmp_path, labels, shares):
    drawn = Samples("ls", 3, torch.randn(2, 1, 4, 4), labels, shares)
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("verb: sample\n")
    write(drawn, tmp_path)
    run = read_run(tmp_path)
    assert run.sampled
    assert run.comparison is None
    assert torch.equal(run.drawn["samples"], drawn.samples)
    assert same(run.drawn.get("labels"), labels)
    assert (shares is None) == (run.summary == {})
    assert shares is None or (run.summary["source"], run.summary["consistency"]["median"]) == ("ls", 0.5)


def a_result() -> Result:
    others = {"softness": math.inf, "response": 0.5, "threshold": 0.1, "temperature": 2.0, "smoothing": 0.0}
    table = ScaleTable([0.9, 0.1], [3, 5], {name: [value] * 2 for name, value in others.items()})
    settings = tuple({"patch_size": size} | others for size in (3, 5))
    calibration = Calibration(table, levels(0.1, 0.9), settings, torch.rand(2, 2, 3))
    image = torch.rand(2, 1, 3, 3)
    row = {"label": None, "machine": "ls", "steps": 2, "network_steps": 2}
    values = {"pearson_r": 0.5, "pearson_r2": 0.25, "r2_score": 0.1, "cosine": 0.5, "mse": 0.3}
    values |= dict.fromkeys(FURTHER, 0.25)
    share = {"label": None, "machine": "ls", "source": "ls", "steps": 2, "consistency": 0.5}
    comparison = Comparison(
        [{"pair": pair} | row | values for pair in range(2)],
        {2: image},
        {"ls": image},
        None,
        consistency=[{"pair": pair} | share for pair in range(2)],
        handover=[
            {"pair": pair, "label": None, "machine": "ls", "steps": 2, "after": 1, "pearson_r": 0.5}
            for pair in range(2)
        ],
        stepwise=[
            {
                "pair": pair,
                "label": None,
                "machine": "ls",
                "step": 2,
                "alpha_bar": 0.5,
                "eps_cosine": 0.5,
                "x0_mse": 0.25,
            }
            for pair in range(2)
        ],
    )
    field = GradientField(levels(0.1, 0.9), torch.rand(2, 3, 3), torch.rand(2, 3, 3))
    return Result({"ls": calibration}, {"ls": table}, comparison, field)


@pytest.mark.parametrize("name", layout.TABLES)
def test_the_columns_that_are_written_are_those_of_the_class(tmp_path, name):
    write(a_result(), tmp_path)
    measured = dict.fromkeys(ENDS, 0.5)
    write_csv(tmp_path / layout.CREATIVITY, Standing({"network": {"novelty": measured}}, ["ls"], 1).rows())
    with (tmp_path / name).open(newline="") as file:
        heading = next(csv.reader(file))
    assert heading == list(layout.TABLES[name].__annotations__)
    kinds = get_type_hints(layout.TABLES[name])
    for row in layout.read_table(tmp_path / name):
        for column, value in row.items():
            assert isinstance(value, kinds[column])


def test_calibrations_go_from_the_noisiest_step_down():
    rows = list(contents.calibration_rows(a_result().calibrations))
    assert [(row["step"], row["alpha_bar"], row["patch_size"], row["sample"]) for row in rows] == [
        (step, level, size, sample) for step, level in ((2, 0.1), (1, 0.9)) for size in (3, 5) for sample in range(3)
    ]


@pytest.mark.parametrize(
    "change", [lambda rows: rows.pop(), lambda rows: rows[0].update(step=9)], ids=["lost", "other"]
)
def test_agreement_that_is_not_complete_is_refused(change):
    rows = list(contents.calibration_rows(a_result().calibrations))
    change(rows)
    with pytest.raises(InputError, match=r"calibration\.csv is damaged"):
        contents.as_calibrations(Path("calibration.csv"), rows, a_result().scales, "cosine")


def test_the_rows_of_a_receptive_field_go_from_noise_to_image():
    gradients = torch.zeros(3, 2, 9, 9)
    gradients[0, 0, 1:8, 1:8] = gradients[0, 1, 3:6, 3:6] = gradients[1, :, 4, 4] = 1
    field = GradientField(levels(0.2, 0.6), gradients[1], gradients[0])
    of_eps = {"eps_size_50": 1, "eps_size_90": 1, "eps_size_99": 1}
    assert list(contents.receptive_field_rows(field)) == [
        {"step": 2, "alpha_bar": 0.2, "x0_size_50": 5, "x0_size_90": 7, "x0_size_99": 7} | of_eps,
        {"step": 1, "alpha_bar": 0.6, "x0_size_50": 3, "x0_size_90": 3, "x0_size_99": 3} | of_eps,
    ]


def test_a_comparison_whose_images_are_gone_keeps_its_numbers(tmp_path):
    result = a_result()
    write(result, tmp_path)
    (tmp_path / layout.SAMPLES).unlink()
    run = read_run(tmp_path)
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written.pop("doubts") == doubts(result)
    assert layout.SAMPLES in written.pop(FILES)
    del written[CHECKSUM]
    assert run.comparison.summary() == result.comparison.summary() == written
    assert (run.comparison.theories, run.comparison.network_steps) == (["ls"], [2])
    assert (run.samples, run.images("ls", 2), run.network_images(2)) == ({}, None, None)
    assert layout.SAMPLES not in {path.name for path in write(run.result, tmp_path / "again")}
