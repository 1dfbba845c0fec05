"""Whether samples are training images again, and whether they are images at all."""

import pytest
import torch
from torch.testing import assert_close

from elslightning.data.module import ImageDataModule
from elslightning.diffusion.pixels import to_floats
from elslightning.measurement.mosaic import pasted
from elslightning.measurement.novelty import BEYOND, MEMORISED, OF_TRAINING, Reference, nearest_ratio, outside
from elslightning.system.errors import InputError
from elslightning.testing import random_images, random_noise


def by_hand(samples, images):
    ratios = []
    for sample in samples.double():
        first, second = sorted((sample - image).square().sum().sqrt().item() for image in images.double())[:2]
        ratios.append(first / second)
    return torch.tensor(ratios, dtype=torch.float64)


@pytest.mark.parametrize("budget", [1, 2000, 2**28], ids=["two images at once", "a few", "all"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_ratio_of_the_two_least_distances_whatever_the_memory(budget, dtype):
    images, samples = random_images(23, 2, 3, 4).to(dtype), random_noise(6, 2, 3, 4).to(dtype)
    assert_close(nearest_ratio(samples, images, budget=budget), by_hand(samples, images), rtol=1e-6, atol=0)


def test_bytes_stand_for_the_images_they_are():
    images = torch.randint(0, 256, (9, 1, 3, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    samples = random_noise(4, 1, 3, 3)
    assert_close(nearest_ratio(samples, images), by_hand(samples, to_floats(images)), rtol=1e-6, atol=1e-9)


def test_a_copy_is_memorised_even_of_an_image_that_is_there_twice():
    images = random_images(7, 1, 4, 4).float()
    images[3] = images[5]
    assert nearest_ratio(images, images).tolist() == [0.0] * 7


def test_a_little_noise_leaves_a_copy_memorised_and_much_makes_it_new():
    images = random_images(30, 1, 6, 6)
    noise = random_noise(30, 1, 6, 6)
    assert (nearest_ratio(images + 0.01 * noise, images) < MEMORISED).all()
    assert (nearest_ratio(images.roll(1, 0) * 0.5 + 3 * noise, images) > MEMORISED).all()


def test_one_training_image_has_no_second():
    image = random_images(1, 1, 3, 3)
    assert nearest_ratio(torch.cat([image, image + 1]), image).tolist() == [0.0, 1.0]


def test_outside_is_the_share_of_values_no_image_has():
    samples = torch.zeros(3, 1, 2, 2)
    samples[1, 0, 0] = torch.tensor([BEYOND + 0.01, -BEYOND - 0.01])
    samples[2] = torch.tensor([[1.0, -1.04], [float("nan"), float("inf")]])
    assert outside(samples).tolist() == [0.0, 0.5, 0.5]


@pytest.fixture(scope="module")
def digits():
    data = ImageDataModule("digits", num_classes=10, train_size=300, val_size=40)
    data.setup()
    return data


@pytest.fixture(scope="module")
def reference(digits):
    return Reference(digits.train_images, digits.train_labels, most=250)


@pytest.fixture(scope="module")
def controls(reference, digits):
    found = {name: reference.measure(images) for name, images in reference.controls(digits.val_images, 24).items()}
    return {name: {key: value["mean"] for key, value in each.summary().items()} for name, each in found.items()}


def test_training_images_have_no_novelty_and_all_fidelity(controls):
    found = controls["training images"]
    nothing = ("novelty", "outside")
    everything = ("memorised", "nearest_r", "tiles", "images", "consistency", "precision")
    assert {name: found[name] for name in nothing} == dict.fromkeys(nothing, 0)
    assert {name: found[name] for name in everything} == pytest.approx(dict.fromkeys(everything, 1))
    assert found["patch_precision"] > 0.98
    assert found["fidelity"] > 0.9


def test_all_training_images_together_cover_themselves(digits):
    own = Reference(digits.train_images[:60], most=250)
    found = own.measure(digits.train_images[:60]).summary()
    for name in ("precision", "recall", "coverage", "diversity"):
        assert found[name]["mean"] == pytest.approx(1, abs=1e-6), name


def test_one_class_is_measured_against_its_images_alone_and_told_from_the_others(digits, reference):
    images, labels = digits.train_images, digits.train_labels
    samples = digits.val_images[:24]
    found = Reference(images, labels, label=7, most=250)
    alone = Reference(images[labels == 7], most=250)
    measured, expected = found.measure(samples), alone.measure(samples)
    assert measured.values.keys() == expected.values.keys() | {"fidelity"}
    for name, values in expected.values.items():
        assert torch.equal(measured.values[name], values), name
    assert torch.equal(measured.nearest, expected.nearest)
    of_class = digits.val_labels[:24] == 7
    sure = measured.values["fidelity"]
    assert found.measure(images[labels == 7][:4]).values["fidelity"].mean() > 0.9
    assert sure[~of_class].mean() < 0.1
    given = reference.measure(samples, torch.full((24,), 7)).values["fidelity"]
    assert (sure - given).abs().mean() < 0.1  # other mosaics that show nothing, else the same


def test_held_out_images_are_new_and_yet_alike(controls):
    found = controls["held-out images"]
    assert found["memorised"] == 0
    assert 0.7 < found["novelty"] < 0.95
    assert found["patch_precision"] > 0.8
    assert found["fidelity"] > 0.75


@pytest.mark.parametrize("name", ["shuffled patches", "noise"])
def test_what_is_no_image_is_new_but_not_alike(name, controls):
    found, mark = controls[name], controls["held-out images"]
    assert found["novelty"] > mark["novelty"]
    assert found["fidelity"] < 0.25
    assert found["precision"] == found["density"] == found["coverage"] == found["memorised"] == 0
    assert found["patch_precision"] < mark["patch_precision"] - 0.2


def test_a_mosaic_built_by_hand_is_read_as_it_was_built():
    images = random_images(5, 2, 12, 12).float()
    built = images[:1].clone()
    built[..., 9:] = images[3, :, :, 9:]
    found = Reference(images, patch_size=1).measure(built)
    assert found.values["novelty"].tolist() == [0.25]
    assert found.values["tiles"].tolist() == found.values["images"].tolist() == [2]
    assert found.values["consistency"].tolist() == found.values["patch_precision"].tolist() == [1]
    assert found.nearest.tolist() == [0]
    assert torch.equal(pasted(found.mosaic, images), built)


@pytest.mark.parametrize("circular", [False, True])
def test_on_a_canvas_of_another_size_patches_say_what_there_is_to_say(circular):
    images = random_images(4, 1, 8, 8).float()
    own = Reference(images, patch_size=3, circular=circular)
    wide = torch.cat([images[1], images[1]], dim=2)[None]
    found = own.measure(wide)
    assert not {"memorised", "nearest_r", "coverage", "fidelity"} & found.values.keys()
    assert torch.equal(pasted(found.mosaic, images)[..., 1:7], images[1:2, ..., 1:7])
    if circular:  # twice around the torus is the same torus
        assert found.values["novelty"].tolist() == [0]
        assert found.values["consistency"].tolist() == [1]
    assert len(list(found.rows())) == 1


def test_intervals_hold_the_mean_and_rows_what_is_measured_of_every_sample(reference, digits):
    found = reference.measure(digits.val_images[:7], digits.val_labels[:7])
    for entry in found.summary().values():
        assert entry["low"] <= entry["mean"] <= entry["high"]
    rows = list(found.rows())
    assert [row["sample"] for row in rows] == list(range(7))
    assert rows[0].keys() == {"sample", "nearest_image", *found.values} - {*OF_TRAINING}


def test_labels_are_what_a_sample_is_held_to(reference, digits):
    right = reference.measure(digits.train_images[:20], digits.train_labels[:20]).values["fidelity"]
    wrong = reference.measure(digits.train_images[:20], (digits.train_labels[:20] + 1) % 10).values["fidelity"]
    assert right.mean() > 0.9
    assert wrong.mean() < 0.1


REFUSED = {
    "one image": (lambda: Reference(random_images(1, 1, 4, 4)), "at least 2 training images, not 1"),
    "one of a class": (
        lambda: Reference(random_images(3, 1, 4, 4), torch.tensor([0, 1, 0]), label=1),
        "at least 2 training images, not 1",
    ),
    "even patches": (lambda: Reference(random_images(3, 1, 4, 4), patch_size=2), "odd and positive, not 2"),
    "large patches": (lambda: Reference(random_images(3, 1, 4, 4), patch_size=5), "do not fit into images of 4"),
    "other channels": (
        lambda: Reference(random_images(3, 1, 4, 4)).measure(random_images(2, 3, 4, 4)),
        "cannot be held against training images",
    ),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_measured_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
