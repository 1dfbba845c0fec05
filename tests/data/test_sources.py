"""The table of data sets, and that every file of conf/data/ describes its data set rightly."""

import pytest
import torch
from files import write_cifar10, write_idx, write_images
from tiny import compose_config

from elslightning.cli.composing import conf_dir
from elslightning.data.module import ImageDataModule
from elslightning.data.request import Request
from elslightning.data.sources import SOURCES
from elslightning.runs.targets import build

WRITERS = {
    "mnist": write_idx,
    "fashion_mnist": write_idx,
    "cifar10": write_cifar10,
    "celeba": lambda folder: write_images(folder, [f"{n:06}.jpg" for n in range(1, 13)], size=(18, 22)),
    "folder": lambda folder: write_images(folder, [f"{kind}/{n}.png" for kind in "ab" for n in range(3)]),
}
NAMES = sorted(path.stem for path in (conf_dir() / "data").glob("*.yaml"))


def test_every_data_set_has_a_configuration_of_its_name():
    assert sorted(SOURCES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_configuration_fits_its_data_set(tmp_path, name):
    if name in WRITERS:
        WRITERS[name](tmp_path / "data")
    root = [f"data.root={tmp_path / 'data'}", "data.val_size=null"] if name in WRITERS else []
    cfg = compose_config("train", tmp_path, [f"data={name}", *root])
    assert cfg.data.dataset == name
    data = build(cfg.data)
    assert isinstance(data, ImageDataModule)
    data.setup()
    for images, labels in ((data.train_images, data.train_labels), (data.val_images, data.val_labels)):
        side = cfg.data.image_size or images.shape[2]
        assert images.shape[1:] == (cfg.data.channels, side, side)
        assert images.dtype == torch.float32
        assert -1 <= images.min() <= images.max() <= 1
        # Classes of one's own folder are known only to its owner.
        assert (labels is None) == (cfg.data.num_classes is None) or name == "folder"


@pytest.mark.parametrize("name", NAMES)
def test_configurations_have_the_same_keys_in_the_same_order(name, tmp_path):
    keys = [key for key in compose_config("train", tmp_path, [f"data={name}"]).data if key != "download"]
    assert keys == list(compose_config("train", tmp_path).data)


@pytest.mark.parametrize("size", [None, 5])
def test_black_and_white_are_the_only_images(size):
    side = size or 16
    train, val = SOURCES["black_white"](Request("black_white", image_size=size))
    expected = torch.stack([-torch.ones(1, side, side), torch.ones(1, side, side)])
    assert torch.equal(train.images, expected)
    assert torch.equal(val.images, expected)
    assert train.labels is None
