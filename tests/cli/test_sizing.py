"""`experiment=folder`: what is counted of a folder, what is measured, and what contradicts it."""

import shlex

import pytest
from files import write_images
from PIL import Image
from tiny import cli

from elslightning.cli import sizing
from elslightning.cli.estimating import of_training
from elslightning.cli.sizing import sized
from elslightning.data.survey import survey
from elslightning.measurement.cost import Cost
from elslightning.system.errors import InputError

GIVEN = ["trainer.max_epochs=1", "calibration.num_samples=2", "comparison.num_pairs=3"]


@pytest.fixture
def classes(tmp_path):
    root = tmp_path / "pictures"
    write_images(root, [f"{name}/{n:02}.png" for name in ("cat", "dog") for n in range(20)], size=(12, 9))
    return root


def added(root, *words):
    """What is added to the words of a training, by key."""
    typed = ["experiment=folder", f"data.root={root}", *words]
    found = sized(typed, "train")
    assert found[-len(typed) :] == typed
    return dict(word.split("=") for word in found[: -len(typed)])


def test_classes_size_and_number_come_from_the_files(classes):
    assert added(classes, *GIVEN) == {
        "data.num_classes": "2",
        "denoiser.conditional": "true",
        "data.image_size": "9",
        "data.channels": "3",
        "data.train_size": "36",
    }


def test_a_flat_folder_of_large_grey_images_has_no_classes(tmp_path):
    for n in range(4):
        Image.new("L", (80, 60), 9 * n).save(tmp_path / f"{n}.png")
    found = added(tmp_path, *GIVEN)
    assert (found["data.num_classes"], found["denoiser.conditional"]) == ("null", "false")
    assert (found["data.image_size"], found["data.channels"]) == ("32", "1")


def test_what_is_said_is_not_added(classes):
    assert "data.image_size" not in added(classes, *GIVEN, "data.image_size=6")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.num_classes=3", r"data\.num_classes=3, but .* has 2 folders that are classes \(cat, dog\)"),
        ("data.num_classes=3", r"or give data\.num_classes=2"),
    ],
)
def test_a_contradiction_names_the_key(classes, word, message):
    with pytest.raises(InputError, match=message):
        added(classes, *GIVEN, word)


def test_a_conditional_network_needs_classes(tmp_path):
    write_images(tmp_path, [f"{n}.png" for n in range(4)])
    with pytest.raises(InputError, match=r"denoiser\.conditional=true, but .* has no folders that are classes"):
        added(tmp_path, *GIVEN, "denoiser.conditional=true")


def test_all_that_is_missing_is_said_at_once():
    with pytest.raises(InputError) as refused:
        sized(["checkpoint=/nowhere", "network.path=/there"], "compare")
    assert len(refused.value.problems) == 2


@pytest.mark.parametrize("verb", ["train", "sample"])
def test_a_folder_that_is_missing_is_refused_at_once(tmp_path, verb):
    words = ["experiment=folder", f"data.root={tmp_path / 'nowhere'}"]
    with pytest.raises(InputError, match=r"data\.root=.*nowhere is not a folder"):
        sized(words, verb)
    assert sized([*words, "--cfg", "job"], verb) == [*words, "--cfg", "job"]


@pytest.mark.parametrize(
    ("verb", "word"),
    [
        ("compare", "checkpoint"),
        ("calibrate", "checkpoint"),
        ("sample", "checkpoint"),
        ("compare", "scales"),
        ("train", "machines.checkpoint.path"),
        ("compare", "network.weights"),
    ],
)
def test_so_is_every_other_file(tmp_path, verb, word):
    nowhere = tmp_path / "no where"
    with pytest.raises(InputError, match=rf"^{word}={nowhere}: there is no file {nowhere}$"):
        sized([f"{word}={nowhere}"], verb)
    nowhere.touch()
    assert sized([f"{word}={nowhere}"], verb) == [f"{word}={nowhere}"]


def test_numbers_and_several_files_are_not_looked_for(tmp_path):
    for words in (["scales=7"], ["scales=3,5", "--multirun"], [f"checkpoint=choice('{tmp_path}/a','b')", "--multirun"]):
        assert sized(words, "compare") == words


def test_no_folder_is_refused():
    with pytest.raises(InputError, match=r"experiment=folder needs data\.root=FOLDER"):
        sized(["experiment=folder"], "train")


def test_other_trainings_stay_as_they_are(tmp_path):
    words = ["experiment=digits", f"data.root={tmp_path}"]
    assert sized(words, "train") is words
    resumed = ["experiment=folder", "resume=x", "data.root=/nowhere"]
    assert sized(resumed, "train") is resumed


@pytest.fixture
def machine(monkeypatch):
    """A machine of which a step, a sample and a pair cost so many seconds."""

    def costs(step, sample, pair):
        per = Cost({"calibrating bbels": sample}, {"bbels, 20 steps": pair}, {})
        monkeypatch.setattr("elslightning.cli.estimating.seconds_per_step", lambda *arguments: step)
        monkeypatch.setattr("elslightning.cli.estimating.cost", lambda *arguments: per)

    return costs


def test_phases_are_sized_to_their_minutes(classes, machine, capsys):
    machine(step=0.5, sample=36.0, pair=10.0)
    found = added(classes, "denoiser.width=16", "denoiser.num_layers=1")
    # 36 images in batches of 32 are two steps.
    assert int(found["trainer.max_epochs"]) == sizing.MINUTES["training"] * 60 / 0.5 / 2
    assert int(found["calibration.num_samples"]) == sizing.MINUTES["calibration"] * 60 / 36
    assert int(found["comparison.num_pairs"]) == sizing.MINUTES["comparison"] * 60 / 10
    assert "2 classes" in capsys.readouterr().err
    words = ["experiment=folder", f"data.root={classes}", *(f"{key}={value}" for key, value in found.items())]
    phases = {phase.name: phase.seconds for phase in of_training(words, (3, 9, 9), 36, 4, 2).phases}
    assert phases["calibration"] == pytest.approx(sizing.MINUTES["calibration"] * 60)
    assert phases["comparison"] == pytest.approx(sizing.MINUTES["comparison"] * 60)
    # And twelve looks at the four images for validation.
    assert phases["training"] == pytest.approx(sizing.MINUTES["training"] * 60 + 12 * 4 / 32 * 0.5 / 3)


def test_a_fast_machine_does_not_do_more_than_makes_sense(classes, machine):
    machine(step=1e-4, sample=1e-3, pair=1e-3)
    found = added(classes, "denoiser.width=16", "denoiser.num_layers=1")
    assert int(found["trainer.max_epochs"]) * 2 == sizing.OPTIMIZER_STEPS
    assert int(found["calibration.num_samples"]) == sizing.SAMPLES[1]
    assert int(found["comparison.num_pairs"]) == sizing.PAIRS[1]


def test_a_slow_machine_takes_fewer_images(tmp_path, machine, monkeypatch):
    monkeypatch.setattr(sizing, "FEWEST", 5)
    write_images(tmp_path, [f"{n:02}.png" for n in range(44)], size=(8, 8))
    machine(step=0.1, sample=240.0, pair=1.0)
    found = added(tmp_path, "denoiser.width=16", "denoiser.num_layers=1")
    # 40 images and three samples would take twice the minutes.
    assert (found["data.train_size"], found["calibration.num_samples"]) == ("20", "3")


def test_several_processes_do_not_measure(classes, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "trainer.max_epochs" not in added(classes)


def test_headers_that_cannot_be_read_are_left_to_the_decoder(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    Image.new("RGB", (5, 7)).save(tmp_path / "b.png")
    found = survey(tmp_path, "here")
    assert (found.side, found.channels, found.classes) == (5, 3, ())
    (tmp_path / "b.png").write_text("no image")
    with pytest.raises(InputError, match="here: none of the images can be read"):
        survey(tmp_path, "here")


@pytest.mark.usefixtures("no_drawing")
def test_a_training_is_sized_measured_and_kept_with_the_run(classes, tmp_path, monkeypatch):
    monkeypatch.setattr(sizing, "OPTIMIZER_STEPS", 2)
    monkeypatch.setattr(sizing, "SAMPLES", (2, 2))
    monkeypatch.setattr(sizing, "PAIRS", (3, 3))
    small = shlex.split(
        "denoiser.width=16 denoiser.num_layers=1 machines=[bbels,is] calibration.steps=2 calibration.patch_sizes=[3,5]"
        " comparison.steps=2 comparison.network_steps=2 report=false estimate=false"
    )
    run = tmp_path / "run"
    done = cli("train", "experiment=folder", f"data.root={classes}", *small, f"hydra.run.dir={run}")
    assert done.code == 0, done.err
    assert "trainer.max_epochs=1" in (run / ".hydra" / "overrides.yaml").read_text()
    # What comes after the training knows it all from the run.
    done = cli("compare", f"checkpoint={run}", "report=false", f"hydra.run.dir={tmp_path / 'again'}")
    assert done.code == 0, done.err
    assert (tmp_path / "again" / "comparison.csv").read_text() == (run / "comparison.csv").read_text()
