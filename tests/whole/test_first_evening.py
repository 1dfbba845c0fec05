"""A new user's evening: a folder of images in two classes, and all that is done with it, command by command."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import MARKS, opened, text, visit
from PIL import Image, ImageDraw
from tiny import cli, undrawn

import elslightning as els
from elslightning.cli import estimating, sizing
from elslightning.measurement.cost import Cost
from elslightning.report.figures.style import PRINT
from elslightning.training.task import DenoisingTask

SMALL = [
    *("data.image_size=8", "denoiser.width=16", "denoiser.num_layers=1", "machines=[bbels,is]"),
    *("calibration.steps=2", "calibration.patch_sizes=[3,5]", "calibration.gradient_samples=2"),
    *("comparison.steps=2", "comparison.network_steps=2"),
]
"""What makes the training one of seconds; all else is found out."""
CLASSES = {"disc": "ellipse", "slab": "rectangle"}


def draw(root: Path, count: int = 20) -> Path:
    """Photographs of discs and slabs, in colour, each in the folder of its class."""
    numbers = np.random.default_rng(0)
    for name, shape in CLASSES.items():
        (root / name).mkdir(parents=True)
        for n in range(count):
            image = Image.new("RGB", (20, 16), tuple(numbers.integers(0, 80, 3).tolist()))
            x, y, *colour = (*numbers.integers(1, 8, 2).tolist(), *numbers.integers(120, 255, 3).tolist())
            getattr(ImageDraw.Draw(image), shape)([x, y, x + 7, y + 6], fill=tuple(colour))
            image.save(root / name / f"{n:02}.jpg")
    return root


@pytest.fixture(scope="module")
def evening(tmp_path_factory, little_training):
    """A working directory with pictures/ and a finished training in first/, and what the first commands said."""
    here = tmp_path_factory.mktemp("evening")
    draw(here / "pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        undrawn(patch)
        patch.setattr(sizing, "OPTIMIZER_STEPS", 12)
        patch.setattr(sizing, "SAMPLES", (2, 2))
        patch.setattr(sizing, "PAIRS", (6, 6))
        with pytest.MonkeyPatch.context() as quick:  # the training itself is measured
            quick.setattr(estimating, "seconds_per_step", lambda *arguments: 0.1)
            quick.setattr(estimating, "cost", lambda *arguments: Cost({"calibrating bbels": 1.0}, {"is": 1.0}, {}))
            said = {"doctor": cli("doctor", "pictures")}
        said["train"] = cli("train", "experiment=folder", "data.root=pictures", *SMALL, "hydra.run.dir=first")
        yield here, said


def test_the_doctor_says_what_it_understood_how_long_it_takes_and_what_to_type(evening):
    done = evening[1]["doctor"]
    assert done.code == 0, done.out
    understood, recommended = [line for line in done.out.splitlines() if "pictures" in line]
    assert "36 images to train and 4 to validate on" in understood
    assert "2 classes: disc (20), slab (20)" in understood
    assert re.search(
        r"elslightning train experiment=folder data\.root=pictures: about .+ \(training .+, report .+\)$", recommended
    )


def test_the_training_is_sized_estimated_and_done(evening):
    here, said = evening
    done, run = said["train"], here / "first"
    assert done.code == 0, done.err
    assert "2 classes; set data.num_classes=2, denoiser.conditional=true, data.channels=3" in done.err
    assert re.search(r"about .+ \(training .+ GiB, calibration .+ GiB, comparison .+ GiB, report .+\)\n", done.err)
    assert "\r" not in done.err
    assert re.search(r"^bbels +2 +-?\d\.\d{3}", done.out, re.MULTILINE)
    assert done.out.endswith("files: first/\n")
    record = json.loads((run / "run.json").read_text())
    assert record["images"] == {"train": 36, "val": 4, "classes": 2}
    assert record["finished"]
    with (run / "comparison.csv").open() as file:
        assert len({row["pair"] for row in csv.DictReader(file)}) == 6
    assert els.load_network(run).conditional
    assert set(els.read_run(run).machines) == {"bbels", "is"}


def test_the_report_names_the_classes(evening):
    run = evening[0] / "first"
    text = (run / "report.html").read_text()
    assert "36 training images, 4 for validation, 2 classes (disc, slab)" in text
    assert re.search(r"#\d+, disc</span>", text)
    assert "class 0" not in text + (run / "report.md").read_text()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with opened(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(params=[390, 1280])
def page(request, evening, chromium):
    return visit(chromium, evening[0] / "first", width=request.param)


class TestInTheBrowser:
    pytestmark = MARKS

    def test_the_report_opens_fits_and_names_the_classes(self, page):
        assert [entry for entry in page.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
        assert page.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
        assert re.search(r"training image \d+, (disc|slab)", text(page, "ex-source-caption"))


@pytest.mark.parametrize("source", ["network", "bbels"])
def test_samples_are_drawn(evening, source):
    words = ["checkpoint=first", f"source={source}", "num_samples=3", "steps=2", f"hydra.run.dir=by_{source}"]
    done = cli("sample", *words)
    assert done.code == 0, done.err
    with np.load(evening[0] / f"by_{source}" / "samples.npz") as arrays:
        assert {array.shape for name, array in arrays.items() if array.ndim == 4} == {(3, 3, 8, 8)}
    assert (evening[0] / f"by_{source}" / "figures" / "samples.png").is_file()


def test_figures_are_drawn_for_print(evening, plain_fonts, monkeypatch):
    monkeypatch.setitem(vars(PRINT), "dpi", 30)
    done = cli("figures", "first")
    assert done.code == 0, done.err
    drawn = sorted((evening[0] / "first").rglob("*.pdf"))
    assert len(drawn) >= 4
    assert all(path.read_bytes().startswith(b"%PDF") for path in drawn)
    for path in drawn:
        with Image.open(path.with_suffix(".png")) as image:
            assert min(image.size) > 20


def test_the_network_is_exported_as_it_is(evening):
    done = cli("export", "first", "output=network.safetensors")
    assert done.code == 0, done.err
    exported, own = (els.load_network(name).state_dict() for name in ("network.safetensors", "first"))
    assert exported.keys() == own.keys()
    assert all(torch.equal(exported[name], own[name]) for name in own)


def test_it_is_compared_again(evening):
    done = cli("compare", "checkpoint=first", "report=false", "scales=first/scales.json", "hydra.run.dir=again")
    assert done.code == 0, done.err
    assert (evening[0] / "again" / "comparison.csv").read_text() == (
        evening[0] / "first" / "comparison.csv"
    ).read_text()


def test_a_sweep_that_was_stopped_goes_on(evening, monkeypatch):
    step = DenoisingTask.training_step
    words = [
        "train",
        "--multirun",
        "experiment=folder",
        "data.root=pictures",
        *SMALL,
        "seed=1,2",
        "compare=false",
        "estimate=false",
    ]
    words += ["trainer.max_epochs=2", "calibration.num_samples=2", "comparison.num_pairs=2", "hydra.sweep.dir=sweep"]

    def stopping(task, *arguments):
        if (evening[0] / "sweep" / "1").exists():
            raise KeyboardInterrupt
        return step(task, *arguments)

    monkeypatch.setattr(DenoisingTask, "training_step", stopping)
    done = cli(*words)
    assert done.code == 130
    assert "go on with the same command: jobs that are finished are not done again" in done.err
    kept = (evening[0] / "sweep" / "0" / "run.json").read_bytes()
    monkeypatch.undo()
    done = cli(*words)
    assert done.code == 0, done.err
    assert (evening[0] / "sweep" / "0" / "run.json").read_bytes() == kept
    with (evening[0] / "sweep" / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["status"]) for row in rows] == [("1", "finished"), ("2", "finished")]
