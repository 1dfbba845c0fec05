"""ImageDataModule: the numbers of the data, what may be asked of it, and loaders that miss nothing."""

import socket

import numpy as np
import pytest
import sklearn.datasets
import torch
from files import IDX_IMAGES as IMAGES
from files import IDX_LABELS as LABELS
from files import write_fashion_mnist, write_idx
from torch.testing import assert_close
from torchvision.transforms import functional as TF

from elslightning.data.module import ImageDataModule, TensorBank, check_images, resize
from elslightning.data.request import Split
from elslightning.data.sources import SOURCES
from elslightning.system.errors import InputError


def loaded(dataset="digits", **options):
    module = ImageDataModule(dataset, **options)
    module.setup()
    return module


@pytest.fixture
def source(monkeypatch):
    """Makes a data set "made" of given splits."""

    def make(train, val=None):
        monkeypatch.setitem(SOURCES, "made", lambda request: (train, val or train))

    return make


def split(count=4, value=0.0, labels=None):
    return Split(torch.full((count, 1, 4, 4), value), labels)


def test_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_fashion_mnist(tmp_path / "data")
    assert len(loaded("fashion_mnist", root="~/data", val_size=None).train_images) == 60


def test_digits_are_scikit_learns_scaled_to_minus_one_to_one():
    digits, data = loaded(), sklearn.datasets.load_digits()
    images = torch.cat([digits.train_images, digits.val_images])
    assert images.dtype == torch.float32
    np.testing.assert_array_equal((images[:, 0].numpy() + 1) * 8, data.images)
    assert (images.min(), images.max()) == (-1, 1)
    labels = torch.cat([digits.train_labels, digits.val_labels])
    assert labels.dtype == torch.int64
    np.testing.assert_array_equal(labels.numpy(), data.target)


def test_digits_keep_the_last_297_for_validation():
    digits = loaded()
    assert digits.train_images.shape == (1500, 1, 8, 8)
    assert digits.val_images.shape == (297, 1, 8, 8)


def test_bytes_become_minus_one_to_one(tmp_path):
    write_idx(tmp_path)
    module = loaded("fashion_mnist", root=tmp_path)
    assert_close(module.train_images, IMAGES[:, None].float() / 255 * 2 - 1, rtol=0, atol=1e-6)
    assert module.train_labels.tolist() == LABELS.tolist()
    assert len(module.val_images) == 3


def test_bytes_are_held_as_bytes_and_their_batches_are_the_floats_of_the_whole(tmp_path):
    write_idx(tmp_path)
    module = loaded("mnist", root=tmp_path, batch_size=2)
    assert module.train_dataloader().dataset.split.images.dtype == torch.uint8
    assert module.train_images.dtype == module.val_images.dtype == torch.float32
    for batch in module.train_dataloader():
        assert batch.images.dtype == torch.float32
        assert torch.equal(batch.images, module.train_images[batch.indices])


def test_part_of_the_bytes_does_not_keep_the_whole_in_memory(tmp_path):
    write_idx(tmp_path)
    images = loaded("mnist", root=tmp_path, train_size=2).train_dataloader().dataset.split.images
    assert images.untyped_storage().nbytes() == 2 * 28 * 28


def test_sizes_take_the_first_images():
    digits, whole = loaded(train_size=7, val_size=5), loaded()
    assert torch.equal(digits.train_images, whole.train_images[:7])
    assert torch.equal(digits.train_labels, whole.train_labels[:7])
    assert torch.equal(digits.val_images, whole.val_images[:5])
    assert torch.equal(digits.val_labels, whole.val_labels[:5])


@pytest.mark.parametrize("size", [5, 16])
def test_images_are_resized_with_antialiasing(size):
    resized, whole = loaded(image_size=size, train_size=6, val_size=2), loaded(train_size=6)
    assert_close(resized.train_images, TF.resize(whole.train_images, [size, size], antialias=True))
    assert resized.val_images.shape == (2, 1, size, size)
    assert resized.train_images.abs().max() <= 1.001


@pytest.mark.parametrize("size", [14, 32])
def test_resized_bytes_are_rounded_to_bytes(tmp_path, size):
    write_idx(tmp_path)
    module = loaded("mnist", root=tmp_path, image_size=size)
    assert module.train_dataloader().dataset.split.images.dtype == torch.uint8
    exact = TF.resize(IMAGES[:, None].float() / 127.5 - 1, [size, size], antialias=True)
    assert_close(module.train_images, exact, rtol=0, atol=1.02 / 127.5)


def test_resizing_in_parts_is_resizing_the_whole():
    images = torch.rand(2050, 1, 4, 4)
    assert_close(resize(images, 3), TF.resize(images, [3, 3], antialias=True))


def test_resizing_to_the_own_size_changes_nothing():
    assert torch.equal(loaded(image_size=8).train_images, loaded().train_images)


def test_resizing_a_flat_image_keeps_its_value(source):
    source(split(value=0.25))
    assert_close(loaded("made", image_size=7).train_images, torch.full((4, 1, 7, 7), 0.25))


def test_data_without_labels_has_none(source):
    source(split())
    module = loaded("made")
    assert module.train_labels is None
    assert module.val_labels is None
    assert next(iter(module.train_dataloader())).labels is None


@pytest.mark.parametrize("batch_size", [1, 64, 97, 2000])
@pytest.mark.parametrize("part", ["train", "val"])
def test_batches_cover_all_data_once_with_its_positions(part, batch_size):
    digits = loaded(batch_size=batch_size, train_size=130, val_size=130)
    batches = list(getattr(digits, f"{part}_dataloader")())
    assert max(len(batch.images) for batch in batches) == min(batch_size, 130)
    indices = torch.cat([batch.indices for batch in batches])
    assert sorted(indices.tolist()) == list(range(130))
    images, labels = getattr(digits, f"{part}_images"), getattr(digits, f"{part}_labels")
    assert torch.equal(torch.cat([batch.images for batch in batches]), images[indices])
    assert torch.equal(torch.cat([batch.labels for batch in batches]), labels[indices])


def test_small_data_lie_where_they_are_used(monkeypatch):
    split = Split(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.arange(4))
    batch = TensorBank(split, torch.device("meta"))[2]
    assert batch.images.device.type == "meta"
    assert batch.labels.device.type == "meta"
    assert batch.indices.tolist() == [2]
    monkeypatch.setattr("elslightning.data.module.RESIDENT", 15)
    assert TensorBank(split, torch.device("meta"))[2].images.device.type == "cpu"


def test_training_is_shuffled_anew_and_validation_is_not():
    digits = loaded(train_size=130, val_size=130)
    orders = [[batch.indices.tolist() for batch in digits.train_dataloader()] for _ in range(2)]
    assert orders[0] != orders[1]
    assert [i for batch in digits.val_dataloader() for i in batch.indices.tolist()] == list(range(130))


def test_second_setup_loads_nothing(source):
    source(split(value=0.5))
    module = loaded("made")
    source(split(value=-0.5))
    module.setup("fit")
    assert (module.train_images == 0.5).all()


def test_images_are_not_there_before_setup():
    module = ImageDataModule("digits")
    for name in ("train_images", "train_labels", "val_images", "val_labels"):
        with pytest.raises(InputError, match=r"call setup\(\) first"):
            getattr(module, name)


@pytest.mark.parametrize("key", ["train_size", "val_size", "image_size", "batch_size"])
@pytest.mark.parametrize("value", [0, -5])
def test_sizes_must_be_positive(key, value):
    with pytest.raises(InputError, match=rf"data\.{key} must be .*at least 1, not {value}"):
        ImageDataModule("digits", **{key: value})


@pytest.mark.parametrize(("key", "count"), [("train_size", 1500), ("val_size", 297)])
def test_more_images_than_there_are_are_refused(key, count):
    loaded(**{key: count})
    with pytest.raises(InputError, match=rf"data\.{key}={count + 1}, but digits has only {count} images"):
        loaded(**{key: count + 1})


def test_unknown_data_set_is_named():
    with pytest.raises(InputError, match=r"one of digits, .*, not 'imagenet'"):
        ImageDataModule("imagenet")


@pytest.mark.parametrize(("dataset", "value"), [("digits", True), ("folder", True), ("mnist", "yes"), ("mnist", 1)])
def test_download_is_for_data_sets_that_torchvision_fetches(dataset, value, unchecked):
    complaint = rf"data\.download can be true for mnist, fashion_mnist, cifar10, not {value!r} for {dataset}"
    with pytest.raises(InputError, match=complaint):
        ImageDataModule(dataset, download=value)


def test_wrong_channel_count_is_named():
    with pytest.raises(InputError, match=r"data\.channels=3, but digits has images of 1 channels"):
        loaded(channels=3)


def test_labels_must_lie_below_the_number_of_classes():
    assert loaded(num_classes=10).train_labels.max() == 9
    with pytest.raises(InputError, match=r"data\.num_classes=9, but digits has a label 9"):
        loaded(num_classes=9)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_pixels_that_are_not_finite_are_refused_with_their_image(source, value):
    train = split()
    train.images[2, 0, 1, 3] = value
    source(train, split())
    with pytest.raises(InputError, match=r"the train images of made .* not finite, first in image 2"):
        loaded("made")
    source(split(), train)
    with pytest.raises(InputError, match=r"the val images of made .* not finite"):
        loaded("made")


@pytest.mark.parametrize("value", [1.5, -2.0, 255.0])
def test_images_of_another_range_are_refused(source, value):
    source(split(value=value))
    with pytest.raises(InputError, match=rf"must be scaled to \[-1, 1\], and lie in \[{value:.4g}, {value:.4g}\]"):
        loaded("made")


def test_whole_range_is_allowed():
    check_images(torch.tensor([-1.0, 1.0]).reshape(1, 1, 1, 2), "these")
    with pytest.raises(InputError, match="these must be scaled"):
        check_images(torch.tensor([-1.0, 1.01]).reshape(1, 1, 1, 2), "these")


def test_tests_cannot_reach_the_network():
    with pytest.raises(OSError, match="offline"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(OSError, match="offline"):
        socket.getaddrinfo("example.org", 443)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, pytest.raises(OSError, match="offline"):
        sender.sendto(b"", ("192.0.2.1", 80))


def test_tests_can_reach_this_machine():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert client.getpeername() == server.getsockname()
