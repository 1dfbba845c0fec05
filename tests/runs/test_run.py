"""Runs read from their directories: what is there, and in one line what cannot be read."""

import json

import numpy as np
import pytest
from files import unsealed
from tiny import PAIRS, train

from elslightning.machines.scales import load_scales
from elslightning.runs.experiment import open_run
from elslightning.runs.run import read_run
from elslightning.system.errors import InputError

pytestmark = pytest.mark.usefixtures("no_drawing")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(tmp_path_factory.mktemp("run"), "comparison.network_steps=[3,2]")


@pytest.fixture
def copied(trained, tmp_path):
    for path in trained.rglob("*"):
        if path.is_file() and path.suffix != ".ckpt":
            target = tmp_path / path.relative_to(trained)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return unsealed(tmp_path)


def test_a_run_is_read_as_it_was_written(trained):
    run = read_run(trained)
    machines = ["bbels", "ls", "is", "wiener", "mean"]
    assert (run.machines, run.theories, run.theory) == (machines, machines, "bbels")
    assert (run.network_steps, run.steps, run.reference_steps) == ([3, 2], 2, 2)
    summary = json.loads((trained / "summary.json").read_text())
    for name in run.machines:
        for steps in run.network_steps:
            r = run.values(name, steps)
            assert r.shape == (PAIRS,)
            assert np.median(r) == pytest.approx(summary["machines"][name][str(steps)]["pearson_r"]["median"])
    written = load_scales(trained / "scales.json")
    assert {name: table.to_dict() for name, table in run.scales.items()} == {
        name: table.to_dict() for name, table in written.items()
    }
    with np.load(trained / "samples.npz") as arrays:
        np.testing.assert_array_equal(run.images("ls", 2), arrays["ls"])
        np.testing.assert_array_equal(run.network_images(3), arrays["network_3"])
    assert run.network_images(4) is None
    assert run.labels() == [None] * PAIRS
    beside = {name: summary[name] for name in ("doubts", "files", "checksum")}
    assert run.comparison.summary() | beside == run.summary == summary
    assert run.setting("denoiser.num_classes") == 10  # an interpolation
    assert run.setting("nothing.of.this") is None


def test_the_gradients_are_those_of_the_table(trained):
    run = read_run(trained)
    lines = (trained / "receptive_field.csv").read_text().splitlines()
    place = lines[0].split(",").index("x0_size_90")
    assert run.gradients.size(0.9).tolist() == [int(line.split(",")[place]) for line in lines[1:]]
    assert run.gradients.formal == 7


def test_other_networks_are_no_theories(copied):
    config = copied / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("elslightning.BoundaryBrokenScoreMachine", "elslightning.Checkpoint"))
    run = read_run(copied)
    assert (run.theories, run.theory) == (["ls", "is", "wiener", "mean"], "ls")


def test_a_run_that_did_little_has_little(tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    run = read_run(tmp_path)
    assert (run.comparison, run.calibrations, run.scales, run.samples, run.gradients) == (None, {}, {}, {}, None)
    assert (run.theory, run.steps, run.reference_steps) == (None, None, None)


DAMAGE = {
    "comparison.csv": (b"pair,machine\n0,is\n", "has no column steps"),
    "calibration.csv": (b"machine,step,alpha_bar,patch_size,sample,agreement\nls,1,0.5,3,0,nan\n", "is damaged"),
    "summary.json": (b"[]", "is not a JSON object"),
    "samples.npz": (b"PK", "cannot read"),
    "receptive_field.npz": (b"", "cannot read"),
    ".hydra/config.yaml": (b"{", "cannot read"),
    "scales.json": (b"{}", "is not a file of scale tables"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_named(copied, name):
    content, reason = DAMAGE[name]
    (copied / name).write_bytes(content)
    with pytest.raises(InputError, match=reason) as refused:
        read_run(copied)
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)


def test_gradients_of_different_lengths_are_refused(copied):
    np.savez(
        copied / "receptive_field.npz", alpha_bar=[0.5], gradient=np.ones((2, 3, 3)), x0_gradient=np.ones((1, 3, 3))
    )
    with pytest.raises(InputError, match="does not hold the gradients"):
        read_run(copied)


@pytest.mark.parametrize(
    "changes",
    [
        {"gradient": np.ones((2, 3))},
        {"gradient": np.ones((2, 3, 3), dtype=np.int64)},
        {"alpha_bar": np.zeros(0), "gradient": np.ones((0, 3, 3)), "x0_gradient": np.ones((0, 3, 3))},
        {"formal": np.array(1.5)},
        {"formal": np.array([7])},
        {"other": np.ones(2)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_other_arrays_are_no_gradients(copied, changes):
    whole = {"alpha_bar": np.ones(2), "gradient": np.ones((2, 3, 3)), "x0_gradient": np.ones((2, 3, 3), dtype=">f4")}
    np.savez(copied / "receptive_field.npz", **whole)
    assert read_run(copied).gradients.x0_gradient.shape == (2, 3, 3)
    np.savez(copied / "receptive_field.npz", **whole | changes)
    with pytest.raises(InputError, match="does not hold the gradients"):
        read_run(copied)


def sampled(directory, summary=None, **arrays):
    if summary is not None:
        (directory / "summary.json").write_text(json.dumps(summary))
    (directory / ".hydra").mkdir()
    (directory / ".hydra" / "config.yaml").write_text("verb: sample\n")
    np.savez(directory / "samples.npz", samples=np.zeros((2, 1, 3, 3), np.float32), **arrays)


OF_SAMPLE = {"samples": 2, "source": "ls", "steps": 3, "consistency": {"median": 0.5, "low": 0.4, "high": 0.6}}


@pytest.mark.parametrize("summary", [OF_SAMPLE, None], ids=["machine", "network"])
def test_a_run_of_sample_is_read_but_not_reported(tmp_path, summary):
    sampled(tmp_path, summary, labels=np.arange(2))
    run = read_run(tmp_path)
    assert run.sampled
    assert run.summary == (summary or {})
    assert (run.machines, run.network_steps, run.samples["labels"].tolist()) == ([], [], [0, 1])
    with pytest.raises(InputError, match="compares nothing that could be reported"):
        open_run(tmp_path)


@pytest.mark.parametrize("changes", [{"consistency": {"median": "a"}}, {"consistency": 1}, {"machines": {}}], ids=str)
def test_a_damaged_summary_of_samples_is_named(tmp_path, changes):
    sampled(tmp_path, OF_SAMPLE | changes)
    with pytest.raises(InputError, match=r"summary\.json is damaged"):
        read_run(tmp_path)


def test_a_table_of_an_older_version_is_left_out(copied):
    (copied / "calibration.csv").write_text("machine,step\nls,1\n")
    assert read_run(copied).calibrations == {}


def test_pickled_arrays_are_not_opened(copied):
    np.savez(copied / "samples.npz", is_=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="cannot read"):
        read_run(copied)


@pytest.mark.parametrize(("make", "reason"), [(False, "is not a directory"), (True, "is no run")])
def test_what_is_no_run_is_refused(tmp_path, make, reason):
    directory = tmp_path / "some"
    if make:
        directory.mkdir()
    with pytest.raises(InputError, match=reason):
        read_run(directory)
