"""Crops of photographs: where they come from, what training and validation share (nothing), and their order."""

import pytest
import torch
from sklearn.datasets import load_sample_images

from elslightning.data import photos as module
from elslightning.data.module import ImageDataModule
from elslightning.data.photos import crops, halve, photos
from elslightning.data.request import Request
from elslightning.system.errors import InputError

NUMBERS = torch.arange(3 * 7 * 9).remainder(256).to(torch.uint8).reshape(3, 7, 9)


def test_photos_are_small_colour_images_without_labels():
    data = ImageDataModule("photos", channels=3)
    data.setup()
    # Not exact: decoders of JPEG differ in the last bit, and a crop may just have contrast enough.
    assert len(data.train_images) == pytest.approx(1824, abs=20)
    assert len(data.val_images) == pytest.approx(308, abs=5)
    assert data.train_images.shape[1:] == data.val_images.shape[1:] == (3, 32, 32)
    assert data.train_labels is None
    assert data.train_images.min() < -0.9
    assert data.train_images.max() > 0.9


def test_every_crop_is_found_in_a_photograph():
    train, _ = photos(Request("photos", image_size=16))
    halves = [halve(torch.tensor(photo).permute(2, 0, 1)[:, :298]) for photo in load_sample_images().images]
    there = torch.cat([crops(half, 16, 1) for half in halves]).flatten(1)
    for image in train.images[:4].flatten(1):
        assert (there == image).all(dim=1).any()


@pytest.mark.parametrize("size", [16, 32, 64])
def test_training_and_validation_share_no_pixel(monkeypatch, size):
    # The photographs are replaced by one that has the number of its row (mod 256) as colour, with noise for contrast.
    rows = torch.arange(427)[:, None, None].expand(427, 640, 3) // 2
    monkeypatch.setattr(module, "load_sample_images", lambda: type("Photos", (), {"images": [rows.byte().numpy()]}))
    monkeypatch.setattr(module, "_CONTRAST", -1)
    train, val = photos(Request("photos", image_size=size))
    assert int(train.images.max()) <= 297 // 2
    assert int(val.images.min()) >= 299 // 2


def test_photos_are_the_same_every_time():
    (train, val), (again, val_again) = (photos(Request("photos")) for _ in range(2))
    assert torch.equal(train.images, again.images)
    assert torch.equal(val.images, val_again.images)


def test_first_crops_are_of_both_photographs():
    china, flower = (torch.tensor(photo)[:298].float().mean(dim=(0, 1)) for photo in load_sample_images().images)
    means = photos(Request("photos"))[0].images[:100].float().mean(dim=(2, 3))
    nearer = (means - china).norm(dim=1) < (means - flower).norm(dim=1)
    assert 25 < int(nearer.sum()) < 75


def test_no_crop_is_of_nearly_one_colour():
    for split in photos(Request("photos")):
        assert split.images.float().std(dim=(2, 3)).mean(dim=1).min() > 9.9


@pytest.mark.parametrize("size", [2, 33, 64])
def test_image_size_is_the_side_of_a_crop(size):
    for split in photos(Request("photos", image_size=size)):
        assert split.images.shape[1:] == (3, size, size)
        assert len(split.images) > 50


@pytest.mark.parametrize("size", [1, 65])
def test_crops_larger_than_the_validation_rows_are_refused(size):
    with pytest.raises(InputError, match=rf"data\.image_size={size}, but crops of photos have 2 … 64 pixels"):
        photos(Request("photos", image_size=size))


def test_halving_averages_squares_and_leaves_the_odd_rest():
    halved = halve(NUMBERS)
    assert halved.shape == (3, 3, 4)
    assert halved[1, 2, 3] == round(float(NUMBERS[1, 4:6, 6:8].float().mean()))


def test_crops_are_all_squares_at_multiples_of_the_stride():
    made = crops(NUMBERS, 3, 2)
    expected = [NUMBERS[:, y : y + 3, x : x + 3] for y in (0, 2, 4) for x in (0, 2, 4, 6)]
    assert torch.equal(made, torch.stack(expected))
