"""Held-out calibration picks the size that denoises best, as brute force does, and draws its images with care."""

import contextlib

import pytest
import reference
import torch
from denoisers import LOCAL

from elslightning.data.request import Split
from elslightning.diffusion.schedule import CosineSchedule, add_noise
from elslightning.measurement.candidates import STATISTICS
from elslightning.measurement.heldout import draw, heldout
from elslightning.system.errors import InputError
from elslightning.testing import random_images, random_noise

SCHEDULE = CosineSchedule()
SIZES = [1, 3, 5]
local_machines = pytest.mark.parametrize("name", LOCAL)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def errors(name, images, clean, noise, level, size):
    """(samples,) mean squared errors of x0, by brute force."""
    x_t = level.sqrt() * clean + (1 - level).sqrt() * noise
    means = [reference.posterior_mean(name, one, float(level), images, size) for one in x_t]
    return (torch.stack(means) - clean).square().mean(dim=(1, 2, 3))


@local_machines
@pytest.mark.parametrize("steps", [1, 3])
def test_the_size_is_the_brute_force_minimiser_and_every_error_is_kept(name, steps):
    images, clean, noise = random_images(4, 2, 5, 5), random_images(3, 2, 5, 5, seed=5), random_noise(3, 2, 5, 5)
    machine = LOCAL[name](images, scales=1)
    found = heldout(machine, SCHEDULE, steps=steps, patch_sizes=SIZES, images=clean, noise=noise)
    assert torch.equal(found.alpha_bar, SCHEDULE.noise_levels(steps))
    table = dict(zip(found.scales.alpha_bar.tolist(), found.scales.patch_size.tolist(), strict=True))
    for index, level in enumerate(found.alpha_bar):
        brute = torch.stack([errors(name, images, clean, noise, level, size) for size in SIZES])
        torch.testing.assert_close(found.agreement[index], -brute, rtol=1e-9, atol=1e-12)
        assert table[float(level)] == SIZES[int(brute.mean(dim=1).argmin())]


@local_machines
def test_where_all_pixels_of_an_image_are_alike_the_widest_window_is_best(name):
    """Every pixel more is another look at the one number to be known."""
    bank = torch.tensor([-1.0, 1.0]).double()[:, None, None, None].expand(2, 1, 5, 5)
    clean, noise = bank.repeat(32, 1, 1, 1), random_noise(64, 1, 5, 5)
    found = heldout(LOCAL[name](bank, scales=1), SCHEDULE, steps=5, patch_sizes=SIZES, images=clean, noise=noise)
    # At t = 1 there is next to nothing to be known, and below t = 3/5 little doubt.
    assert found.scales.patch_size.tolist()[2:4] == [5, 5]


def test_where_pixels_have_nothing_in_common_the_narrowest_window_is_best():
    """Other pixels tell nothing about this one, and a wide window finds no training patch like it."""
    bank, clean = (random_images(4, 1, 6, 6, seed=seed).sign() for seed in (0, 1))
    options = {"steps": 4, "patch_sizes": SIZES, "images": clean, "noise": random_noise(4, 1, 6, 6)}
    found = heldout(LOCAL["els"](bank, scales=1), SCHEDULE, **options)
    assert found.scales.patch_size.tolist() == [1] * 4


@pytest.mark.parametrize("statistic", STATISTICS)
def test_the_statistic_is_that_of_the_kept_agreement(statistic):
    images, clean, noise = random_images(6, 1, 6, 6), random_images(9, 1, 6, 6, seed=5), random_noise(9, 1, 6, 6)
    options = {"steps": 4, "patch_sizes": SIZES, "images": clean, "noise": noise}
    found = heldout(LOCAL["ls"](images, scales=1), SCHEDULE, statistic=statistic, **options)
    assert found.agreement.shape == (4, 3, 9)
    chosen = [STATISTICS[statistic](values, torch.tensor(SIZES)).item() for values in found.agreement]
    assert found.scales.patch_size.flip(0).tolist() == chosen


def test_a_cap_leaves_out_what_is_above_it():
    images, noise = random_images(3, 1, 5, 5), random_noise(3, 1, 5, 5)
    machine = LOCAL["ls"](images, scales=1)
    found = heldout(machine, SCHEDULE, steps=2, patch_sizes=SIZES, images=images, noise=noise, cap=4)
    assert found.patch_sizes == (1, 3)
    # What a machine holds it recalls best with the widest window.
    assert found.scales.patch_size.max() == 3


@local_machines
def test_a_conditional_machine_denoises_with_the_images_class(name):
    images, classes = random_images(6, 1, 5, 5), torch.arange(6) % 2
    clean, noise, labels = random_images(2, 1, 5, 5, seed=5), random_noise(2, 1, 5, 5), torch.tensor([1, 0])
    options = {"steps": 2, "patch_sizes": SIZES}
    found = heldout(
        LOCAL[name](images, classes, scales=1), SCHEDULE, images=clean, noise=noise, labels=labels, **options
    )
    for sample, label in enumerate(labels):
        one, alone = slice(sample, sample + 1), LOCAL[name](images[classes == label], scales=1)
        single = heldout(alone, SCHEDULE, images=clean[one], noise=noise[one], labels=labels[one], **options)
        torch.testing.assert_close(found.agreement[:, :, one], single.agreement)


class Recorded:
    """A machine that remembers what it saw."""

    def __init__(self):
        self.seen = []

    def sweep(self, x_t, alpha_bar, patch_sizes, labels=None):
        self.seen.append((x_t, alpha_bar, labels))
        return torch.zeros(len(patch_sizes), *x_t.shape, dtype=x_t.dtype)

    def select_labels(self, labels):
        return labels

    def reporting(self, on_progress):
        return contextlib.nullcontext()


def test_every_level_has_the_same_images_and_the_same_noise():
    clean, noise, labels, machine = random_images(3, 1, 4, 4), random_noise(3, 1, 4, 4), torch.arange(3), Recorded()
    found = heldout(machine, SCHEDULE, steps=4, patch_sizes=SIZES, images=clean, noise=noise, labels=labels)
    assert len(machine.seen) == 4
    for (x_t, alpha_bar, classes), level in zip(machine.seen, SCHEDULE.noise_levels(4), strict=True):
        assert torch.equal(alpha_bar, level.expand(3))
        assert torch.equal(x_t, add_noise(clean, noise, alpha_bar))
        assert torch.equal(classes, labels)
    torch.testing.assert_close(found.agreement, -clean.square().mean(dim=(1, 2, 3)).expand(4, 3, 3))
    assert found.scales.patch_size.tolist() == [1] * 4
    assert found.objective == "heldout"


def test_progress_counts_levels():
    told, images = [], random_images(2, 1, 4, 4)
    options = {"steps": 2, "patch_sizes": [1, 3], "what": "ls", "progress": lambda *call: told.append(call)}
    heldout(LOCAL["ls"](images, scales=1), SCHEDULE, images=images, noise=images, **options)
    assert {(what, total) for what, _, total in told} == {("ls", 2)}
    assert [done for _, done, _ in told][-1] == 2


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"noise": random_noise(3, 1, 5, 5)}, r"one shape: \(2, 1, 5, 5\) and \(3, 1, 5, 5\)"),
        ({"images": random_images(0, 1, 5, 5), "noise": random_noise(0, 1, 5, 5)}, "one shape"),
        ({"statistic": "max"}, "statistic must be one of median, mode, mean, not 'max'"),
        ({"patch_sizes": [5, 3]}, "increasing"),
        ({"patch_sizes": [2]}, "odd and positive, not 2"),
        ({"cap": 0}, "max_patch_size=0 leaves none"),
        ({"steps": 0}, "at least 1 step, not 0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_refused(options, complaint):
    usual = {"steps": 2, "patch_sizes": [1, 3], "images": random_images(2, 1, 5, 5), "noise": random_noise(2, 1, 5, 5)}
    with pytest.raises(InputError, match=complaint):
        heldout(LOCAL["ls"](random_images(3, 1, 5, 5), scales=1), SCHEDULE, **(usual | options))


# Which images.


BANK, BANK_LABELS = random_images(6, 1, 4, 4), torch.arange(6) % 3
SPLIT = Split(random_images(9, 1, 4, 4, seed=7), torch.arange(9) % 3)


def test_drawn_images_are_different_ones_of_the_split_with_their_classes():
    clean, classes = draw(SPLIT, 9, generator(), BANK, BANK_LABELS)
    found = [(SPLIT.images == image).flatten(1).all(dim=1).nonzero().item() for image in clean]
    assert sorted(found) == list(range(9))
    assert found != list(range(9))
    assert torch.equal(classes, SPLIT.labels[found])


def test_the_same_seed_draws_the_same_images_whatever_the_bank_and_however_many():
    first, _ = draw(SPLIT, 5, generator(), BANK, None)
    again, _ = draw(SPLIT, 3, generator(), BANK[:2], BANK_LABELS)
    assert torch.equal(first[:3], again)
    assert not torch.equal(first, draw(SPLIT, 5, generator(1), BANK, None)[0])


def test_a_bank_without_labels_takes_no_classes():
    assert draw(SPLIT, 2, generator(), BANK, None)[1] is None


def test_an_image_that_is_in_both_does_no_harm_alone():
    clean, _ = draw(Split(torch.cat([BANK[:1], SPLIT.images[:1]]), None), 2, generator(), BANK, None)
    assert len(clean) == 2


DRAWS = {
    "too few": ((SPLIT, 10), (BANK, None), "calibration.num_samples=10, but there are only 9 held-out images"),
    "trained on": ((Split(BANK, None), 4), (BANK, None), "those of this data set are trained on"),
    "no labels": ((Split(SPLIT.images, None), 4), (BANK, BANK_LABELS), "the held-out images have no labels"),
    "unknown class": ((SPLIT, 9), (BANK[:2], BANK_LABELS[:2]), "has the label 2, which no training image has"),
}


@pytest.mark.parametrize("name", DRAWS)
def test_images_that_cannot_serve_are_refused(name):
    (split, count), bank, complaint = DRAWS[name]
    with pytest.raises(InputError, match=complaint) as caught:
        draw(split, count, generator(), *bank)
    assert "\n" not in str(caught.value)
