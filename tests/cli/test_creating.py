"""`elslightning create`: images in the manner of others, without training, from the words to the gallery."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import assert_refused, rounds
from tiny import cli, undrawn, unrendered

from elslightning.data.module import ImageDataModule
from elslightning.machines.scales import load_scales
from elslightning.system.files import read_csv

pytestmark = pytest.mark.usefixtures("little_training", "no_layout")

TINY = [
    "data.train_size=40",
    "data.val_size=10",
    "num_samples=3",
    "steps=6",
    "followed=1",
    "calibration.steps=2",
    "calibration.num_samples=2",
    "calibration.patch_sizes=[3,5]",
]


@pytest.fixture
def quick(monkeypatch):
    """Nothing is drawn, where pictures are not the matter."""
    undrawn(monkeypatch)
    unrendered(monkeypatch)


def created(directory, *words):
    done = cli("create", *TINY, *words, f"hydra.run.dir={directory}")
    assert done.code == 0, done.err
    return done


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("create") / "run"
    words = ["creativity=[0,0.5,1]", "machines=[bbels,is]", "windows=[1.4]"]
    return created(directory, *words), directory


def test_a_run_leaves_what_it_says(run):
    done, directory = run
    assert {path.name for path in directory.iterdir()} >= {
        "gallery.html", "images", "samples.npz", "novelty.csv", "order.csv", "summary.json", "scales.json", "run.json",
    }  # fmt: skip
    for name in ("bbELS, 0.5", "held-out images", "noise", "IS ×1", "bbELS ×1.4"):
        assert name in done.out
    with np.load(directory / "samples.npz") as arrays:
        samples = arrays["samples"]
    assert samples.shape == (9, 1, 8, 8)
    assert len(list((directory / "images").rglob("*.png"))) == 9
    picture = np.asarray(Image.open(directory / "images" / "creativity_0.5" / "002.png"))
    assert np.abs(picture[..., 0] / 127.5 - 1 - samples[5, 0].clip(-1, 1)).max() <= 1 / 255 + 1e-6
    assert (directory / "figures" / "creativity.png").stat().st_size > 1000
    assert load_scales(directory / "scales.json").keys() == {"bbels"}


def test_the_dial_goes_from_recall_to_what_is_new(run):
    _, directory = run
    measured = json.loads((directory / "summary.json").read_text("utf-8"))["creativity"]
    dial = {entry["setting"]: entry for entry in measured[:3]}
    assert dial[0]["memorised"]["mean"] == 1
    assert dial[0]["novelty"]["mean"] == 0
    assert dial[1]["novelty"]["mean"] > 0.5
    assert dial[1]["memorised"]["mean"] == 0
    assert [entry["name"] for entry in measured if entry["setting"] is None] == [
        "training images", "held-out images", "shuffled patches", "noise",
    ]  # fmt: skip
    rows = read_csv(directory / "novelty.csv")
    assert sum(row["name"] == "noise" for row in rows) == 8
    assert [entry["kind"] for entry in measured] == ["dial"] * 3 + ["family"] * 2 + ["control"] * 4
    order = [row for row in read_csv(directory / "order.csv") if float(row["setting"]) == 0]
    assert [int(row["step"]) for row in order] == [6, 5, 4, 3, 2, 1]
    assert float(order[-1]["main_share"]) == 1


def test_the_gallery_is_one_file_with_every_sample_its_mosaic_and_its_nearest_image(run):
    _, directory = run
    page = (directory / "gallery.html").read_text("utf-8")
    assert page.count('<div class="work"') == 9
    assert page.count('class="over" src="data:image/png;base64,') == 9
    assert page.count('class="near" src="data:image/png;base64,') == 9
    assert "http://" not in page.replace("http://www.w3.org", "")
    for title in ("Creativity 0: recall", "Creativity 1: texture", "The creativity map", "Where it decides"):
        assert title in page


@pytest.mark.usefixtures("quick")
def test_the_same_seed_makes_the_same_images_and_another_does_not(tmp_path):
    def samples(name, *words):
        created(tmp_path / name, *words)
        with np.load(tmp_path / name / "samples.npz") as arrays:
            return torch.from_numpy(arrays["samples"])

    words = ["scales=3", "steps=2", "followed=0", "num_samples=1"]
    one, two = samples("one", *words), samples("two", *words)
    assert torch.equal(one, two)
    assert not torch.equal(one, samples("three", *words, "seed=1"))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("machine", ["bbels", "els"])
def test_any_canvas(machine, tmp_path):
    created(tmp_path, f"machines=[{machine}]", "height=6", "width=19", "creativity=0.8")
    with np.load(tmp_path / "samples.npz") as arrays:
        assert arrays["samples"].shape == (3, 1, 6, 19)
        assert np.abs(arrays["samples"]).max() <= 1 + 1e-5
    assert 'class="near"' not in (tmp_path / "gallery.html").read_text("utf-8")


def pictures(folder, *sizes):
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number, (height, width) in enumerate(sizes):
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return [f"data.root={folder}", "data=folder"]


@pytest.mark.usefixtures("quick")
def test_a_folder_of_colour_and_a_canvas_of_another_shape(tmp_path):
    words = pictures(tmp_path / "wide", *[(8, 8)] * 12)
    done = cli("create", *TINY[2:], *words, "data.image_size=null", "width=12", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.code == 0, done.err
    with np.load(tmp_path / "run" / "samples.npz") as arrays:
        assert arrays["samples"].shape == (3, 3, 8, 12)


@pytest.fixture
def black_and_white(tmp_path):
    """Two classes of a folder: dark pictures and bright ones."""
    generator = np.random.default_rng(0)
    for name, low in (("black", 0), ("white", 200)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(20):
            pixels = generator.integers(low, low + 56, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number:02d}.png")
    return ["data=folder", f"data.root={tmp_path / 'data'}", "data.channels=1", "data.image_size=null"]


@pytest.mark.usefixtures("quick")
def test_a_class_is_made_of_its_own_images_alone(black_and_white, tmp_path):
    words = [*black_and_white, "creativity=[0,1]"]
    made = {}
    for label, scales in (("white", 3), ("1", 3), ("0", "null")):
        done = cli(
            "create", *TINY[2:], *words, f"label={label}", f"scales={scales}", f"hydra.run.dir={tmp_path / label}"
        )
        assert done.code == 0, done.err
        with np.load(tmp_path / label / "samples.npz") as arrays:
            made[label] = arrays["samples"]
    assert "created from the 18 images of class 0 (black)" in done.err
    assert np.array_equal(made["white"], made["1"])
    data = ImageDataModule("folder", root=tmp_path / "data", channels=1)
    data.setup()
    images, labels = data.train_images.numpy(), data.train_labels.numpy()
    for name, label in (("white", 1), ("0", 0)):
        own = images[labels == label]
        distances = np.square(made[name][:, None] - images[None]).sum(axis=(2, 3, 4))
        assert (labels[distances.argmin(axis=1)] == label).all()
        assert own.min() - 1e-5 <= made[name].min()
        assert made[name].max() <= own.max() + 1e-5
        # The number of the nearest image is counted among those of the class.
        rows = [row for row in read_csv(tmp_path / name / "novelty.csv") if row["setting"] == "0.0"]
        for row, sample in zip(rows, made[name], strict=False):
            assert int(row["nearest_image"]) == np.square(own - sample).sum(axis=(1, 2, 3)).argmin()
    rows = [row for row in read_csv(tmp_path / "white" / "novelty.csv") if row["name"] == "held-out images"]
    assert len(rows) == 2  # of the four that are held out


@pytest.mark.usefixtures("quick")
def test_summary_and_gallery_say_the_class(black_and_white, tmp_path):
    words = [*TINY[2:], *black_and_white, "scales=3", "steps=1", "followed=0", "max_images=5"]
    for label, name, said in ((1, "white", "5 images of class 1 (white)"), (None, None, "5 images;")):
        run = tmp_path / f"run_{label}"
        done = cli("create", *words, f"label={'null' if label is None else label}", f"hydra.run.dir={run}")
        assert done.code == 0, done.err
        summary = json.loads((run / "summary.json").read_text("utf-8"))
        assert (summary["label"], summary["class"]) == (label, name)
        assert f"made without training from {said}" in (run / "gallery.html").read_text("utf-8")


REFUSED = {
    "beyond the dial": (["creativity=1.5"], "creativity must lie between 0 (recall) and 1 (texture), not 1.5"),
    "below the dial": (["creativity=[0,-0.5]"], "creativity must lie between 0 (recall) and 1 (texture), not -0.5"),
    "no number": (["creativity=much"], "creativity must lie between 0 (recall) and 1 (texture), not 'much'"),
    "no setting": (["creativity=[]"], "creativity must be a number between 0 and 1, or a list of such"),
    "a small canvas": (["height=2"], "a canvas of 2 x 8 is smaller than the window, 3 pixels with images of 8 x 8"),
    "no canvas": (["width=0"], "width must be a whole number, at least 1, not 0"),
    "places": (["machines=[ls]", "height=9"], "ls copies from the pixel's own place: its canvas is 8 x 8, not 9 x 8"),
    "no windows": (["machines=[is]"], "the first of machines is dialled, and must be one of bbels, els, ls, not is"),
    "factors": (["windows=[0]"], "windows must be positive factors, such as [0.5,1,2], not [0]"),
    "one to create from": (["max_images=1"], "max_images must be a whole number, at least 2, not 1"),
    "even scales": (["scales=4"], "a patch size must be odd and positive, not 4"),
    "half a class": (["label=1.5"], "label must be a whole number, at least 0, not 1.5"),
    "no such number": (
        ["label=10"],
        "label=10 is not a class of the data: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
    ),
    "no such name": (
        ["label=seven"],
        "label=seven is not a class of the data: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
    ),
    "no labels": (["data=black_white", "label=0"], "label=0, but the data has no labels"),
    "one of a class": (
        ["data.train_size=10", "label=3"],
        "label=3: elslightning create needs 2 images to train and 1 held out, not 1 to train and 2 held out",
    ),
    "followed": (["followed=-1"], "followed must be a whole number, at least 0, not -1"),
}


CASES = {name: (["create", *words], message) for name, (words, message) in REFUSED.items()}
TOGETHER = [("beyond the dial", "no canvas", "no windows", "factors", "one to create from", "followed")]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("names", rounds(CASES, TOGETHER), ids=", ".join)
def test_what_cannot_be_created_is_refused_in_a_line_for_each(names, tmp_path):
    lines = assert_refused(CASES, names, *TINY, f"hydra.run.dir={tmp_path}")
    assert sorted(lines) == sorted(REFUSED[name][1] for name in names)


FOLDERS = {
    "one image": ([(8, 8)], "has too few images: validation needs one of two"),
    "different sizes": ([(8, 8), (9, 9), (8, 8)], "give data.image_size"),
}


CLASSES = {
    "a name like another": (
        "label=whyte",
        "label=whyte is not a class of the data: 0 (black), 1 (white); did you mean white?",
    ),
    "a number too great": ("label=2", "label=2 is not a class of the data: 0 (black), 1 (white)"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("word", "message"), CLASSES.values(), ids=CLASSES)
def test_a_class_that_there_is_not_is_refused_before_an_image_is_read(
    word, message, black_and_white, tmp_path, monkeypatch
):
    monkeypatch.setattr("elslightning.data.folder.decode", lambda *_: pytest.fail("an image is read"))
    done = cli("create", *black_and_white, word, f"hydra.run.dir={tmp_path / 'run'}")
    assert (done.code, done.err) == (2, f"elslightning: error: {message}\n")


@pytest.mark.usefixtures("unchecked")
def test_a_class_of_a_folder_without_classes_is_refused(tmp_path):
    words = pictures(tmp_path / "folder", *[(8, 8)] * 4)
    done = cli("create", *words, "label=cat", f"hydra.run.dir={tmp_path / 'run'}")
    assert (done.code, done.err) == (2, "elslightning: error: label=cat, but the data has no labels\n")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("sizes", "message"), FOLDERS.values(), ids=FOLDERS)
def test_a_folder_that_nothing_can_be_made_of_is_refused_in_one_line(sizes, message, tmp_path):
    words = pictures(tmp_path / "folder", *sizes)
    done = cli("create", *words, "data.image_size=null", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.code == 2
    assert message in done.err
    assert len(done.err.splitlines()) == 1
