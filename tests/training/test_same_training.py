"""What is gone on with is the same training, on the same images; or it is refused, or said."""

import json
import shutil

import pytest
import torch
from files import write_fashion_mnist
from tiny import TRAIN, cli
from trainings import checkpoint

pytestmark = [pytest.mark.reliability, pytest.mark.usefixtures("no_drawing", "no_rendering")]

ALONE = [*TRAIN, "compare=false", "logger=[csv]"]
IMAGES = "train-images-idx3-ubyte"


def refused(*words: str) -> str:
    done = cli(*words)
    assert done.code == 2, done.out
    assert len(done.err.splitlines()) == 1, done.err
    return done.err


# Where in an epoch a checkpoint is from.


@pytest.mark.parametrize(("steps", "batch"), [(3, 1), (2, 2)], ids=["first batch", "last batch"])
def test_a_checkpoint_from_the_midst_of_an_epoch_is_not_gone_on_with(tmp_path, steps, batch):
    words = [f"+callbacks.checkpoint.every_n_train_steps={steps}", "callbacks.checkpoint.save_on_train_epoch_end=false"]
    done = cli("train", *ALONE, *words, "trainer.max_epochs=2", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.code == 0, done.err
    before = (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes()
    message = refused("train", f"resume={tmp_path / 'run'}", "trainer.max_epochs=3")
    assert f"is from the midst of an epoch, after batch {batch}" in message
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes() == before


def test_a_training_that_early_stopping_ended_stays_ended(tmp_path):
    stopping = "{_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/loss, patience: 1, min_delta: 1000}"
    words = [f"+callbacks.early={stopping}", "trainer.max_epochs=5", f"hydra.run.dir={tmp_path / 'run'}"]
    done = cli("train", *ALONE, *words)
    assert done.code == 0, done.err
    assert checkpoint(tmp_path / "run")["epoch"] == 1
    for more in ([], ["trainer.max_epochs=7"]):
        message = refused("train", f"resume={tmp_path / 'run'}", *more)
        assert "EarlyStopping ended the training after 2 epochs" in message


# Other images of the same name.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on images on disk, and their folder."""
    folder = tmp_path_factory.mktemp("same")
    root = write_fashion_mnist(folder / "images")
    words = ["data=fashion_mnist", f"data.root={root}", "data.image_size=8", f"hydra.run.dir={folder / 'run'}"]
    done = cli("train", *ALONE, *words, "machines=[is]")
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def changed(trained, tmp_path):
    """A copy of that run, whose images have been overwritten with others of the same name."""
    shutil.copytree(trained / "run", tmp_path / "run")
    path = trained / "images" / IMAGES
    whole = path.read_bytes()
    path.write_bytes(whole[:16] + whole[16:][::-1])
    yield tmp_path / "run"
    path.write_bytes(whole)


def test_a_checkpoint_says_which_images_it_was_trained_on(trained):
    record = json.loads((trained / "run" / "run.json").read_text())
    assert checkpoint(trained / "run")["elslightning"]["data_sha256"] == record["data_sha256"]


@pytest.mark.parametrize("earlier", [False, True], ids=["checkpoint", "run.json of an earlier version"])
def test_a_training_does_not_go_on_with_other_images(changed, earlier):
    if earlier:
        content = checkpoint(changed)
        del content["elslightning"]["data_sha256"]
        torch.save(content, changed / "checkpoints" / "last.ckpt")
    before = (changed / "checkpoints" / "last.ckpt").read_bytes()
    message = refused("train", f"resume={changed}", "trainer.max_epochs=2")
    assert "the images are not those that the training began with" in message
    assert "data_changed=true" in message
    assert (changed / "checkpoints" / "last.ckpt").read_bytes() == before


def test_a_training_goes_on_with_other_images_if_that_is_known(changed):
    done = cli("train", f"resume={changed}", "trainer.max_epochs=2", "data_changed=true")
    assert done.code == 0, done.err
    assert checkpoint(changed)["epoch"] == 1


def test_a_comparison_with_other_images_says_so(changed, tmp_path):
    words = [f"checkpoint={changed}", "report=true", f"hydra.run.dir={tmp_path / 'compared'}"]
    done = cli("compare", *words)
    assert done.code == 0, done.err
    assert "warning: Other data: the network was trained on images with the checksum" in done.err
    assert "Other data: " in (tmp_path / "compared" / "report.md").read_text()
    known = cli("compare", *words, "data_changed=true")
    assert "Other data" not in known.err
    assert "Other data: " in (tmp_path / "compared" / "report.md").read_text()


def test_a_comparison_with_the_same_images_elsewhere_says_nothing(trained, tmp_path):
    shutil.copytree(trained / "images", tmp_path / "moved")
    words = [
        f"checkpoint={trained / 'run'}",
        f"data.root={tmp_path / 'moved'}",
        "report=false",
        f"hydra.run.dir={tmp_path / 'compared'}",
    ]
    done = cli("compare", *words)
    assert done.code == 0, done.err
    assert "Other data" not in done.err
