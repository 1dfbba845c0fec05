"""Attribution against brute force: which patches, how much of them, and the entropy of all."""

import functools
import itertools
import math

import pytest
import torch
from denoisers import ATTRIBUTABLE, LOCAL, TABLE, resnet
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import candidates, window
from torch.nn.functional import avg_pool2d, pad
from torch.testing import assert_close

from elslightning.diffusion.sampling import ddim
from elslightning.diffusion.schedule import CosineSchedule, add_noise
from elslightning.machines import (
    EquivariantLocalScoreMachine,
    IdealScoreMachine,
    LocalScoreMachine,
    WienerScoreMachine,
)
from elslightning.measurement import attribution as attributing
from elslightning.measurement.attribution import attribute, attribute_process
from elslightning.system.errors import InputError
from elslightning.testing import DEVICES, levels, random_images, random_noise

ALPHA_BAR = levels(1e-3, 0.5, 0.9, 0.999)
SHAPE = (2, 5, 6)
CASES = [("is", 3), ("es", 3), *((name, size) for name in LOCAL for size in (1, 3, 5))]
every_machine = pytest.mark.parametrize("name", ATTRIBUTABLE)


@pytest.fixture
def dtype(request, monkeypatch):
    """A precision, and the way it is computed: float32 on the CPU takes the compiled loops unless they are off."""
    precision, compiled = request.param
    monkeypatch.setattr("elslightning.measurement.attribution.COMPILED", compiled)
    return precision


PATHS = {"compiled": (torch.float32, True), "float32": (torch.float32, False), "float64": (torch.float64, True)}
every_path = pytest.mark.parametrize("dtype", PATHS.values(), ids=PATHS, indirect=True)


def sources(attribution):
    """(batch, height, width, top, 3): image, row and column of every patch."""
    return torch.stack([attribution.image, attribution.row, attribution.column], dim=-1)


def same(a, b):
    """Whether two attributions name the same patches and weights."""
    assert_close(a.weight, b.weight, rtol=1e-4, atol=1e-6)
    assert_close(a.entropy, b.entropy, rtol=1e-4, atol=1e-5)
    return torch.equal(sources(a), sources(b))


def nearness(offset, length, circular):
    """The signed distance along an axis, the shorter way around if it is circular."""
    return (offset + length // 2) % length - length // 2 if circular else offset


def posterior(name, x_t, alpha_bar, images, patch_size, row, column, known):
    """(distance², image, row, column) of all candidates of one pixel, by descending weight; ties in order.

    `known` keeps the patches of the images by their places.
    """
    _, height, width = x_t.shape
    circular, found = name in ("es", "els"), []
    radius, mode = patch_size // 2, "circular" if circular else "zeros"
    if name == "is":
        places = [(row, column)]
    else:
        places = candidates("els" if name == "es" else name, row, column, height, width, radius)
    for y, x in places:
        down, right = nearness(y - row, height, circular), nearness(x - column, width, circular)
        if name in ("is", "es"):
            place, own = (down, right), x_t
            known[place] = known[place] if place in known else images.roll((-down, -right), dims=(2, 3))
        else:
            place, own = (y, x), window(x_t, row, column, radius, mode)
            known[place] = known[place] if place in known else window(images, y, x, radius, mode)
        patches = known[place]
        squares = (own - alpha_bar**0.5 * patches).square().sum(dim=(1, 2, 3)).tolist()
        found += [(square, down**2 + right**2, down, right, n, y, x) for n, square in enumerate(squares)]
    return [(first[0], *first[4:]) for first in sorted(found)]


@functools.cache
def problem(name, patch_size):
    """Images, noisy images, and for all pixels of these: sources (pixel, candidate, 3), weights (pixel, candidate) and
    entropies (pixel,); -1 and 0 where a pixel has fewer candidates than others."""
    images = random_images(4, *SHAPE)
    clean = torch.cat([random_images(2, *SHAPE, seed=3), images[:2]])
    x_t = add_noise(clean, random_noise(*clean.shape), ALPHA_BAR).float().double()
    most, pixels = (4 if name in ("is", "ls") else 120), SHAPE[1] * SHAPE[2] * len(x_t)
    places = torch.full((pixels, most, 3), -1)
    weight, entropy = torch.zeros(pixels, most, dtype=torch.float64), torch.empty(pixels, dtype=torch.float64)
    known = {}
    grid = itertools.product(range(len(x_t)), range(SHAPE[1]), range(SHAPE[2]))
    for pixel, (n, row, column) in enumerate(grid):
        alpha_bar = ALPHA_BAR[n].item()
        found = posterior(name, x_t[n], alpha_bar, images, patch_size, row, column, known)
        logits = torch.tensor([-each[0] / (2 * (1 - alpha_bar)) for each in found], dtype=torch.float64)
        places[pixel, : len(found)] = torch.tensor([each[1:] for each in found])
        weight[pixel, : len(found)] = logits.softmax(dim=0)
        entropy[pixel] = -(logits.softmax(dim=0) * logits.log_softmax(dim=0)).sum()
    return images, x_t, (places, weight, entropy)


@every_path
@pytest.mark.parametrize("top", [1, 3, 125])
@pytest.mark.parametrize(("name", "patch_size"), CASES)
def test_equals_brute_force(name, patch_size, top, dtype):
    images, x_t, (places, weight, entropy) = problem(name, patch_size)
    count = min(top, places.shape[1])
    found = attribute(ATTRIBUTABLE[name](images.to(dtype), scales=patch_size), x_t.to(dtype), ALPHA_BAR, top=top)
    assert found.patch_size.tolist() == [0 if name in ("is", "es") else patch_size] * len(x_t)
    assert found.weight.dtype == found.entropy.dtype == torch.float32
    assert_close(found.entropy.double().flatten(), entropy, rtol=1e-4, atol=1e-5)
    weights, named = found.weight.double().flatten(0, 2), sources(found).flatten(0, 2)
    assert_close(weights[:, :count], weight[:, :count], rtol=1e-4, atol=1e-6)
    assert (weights[:, count:] == 0).all()
    assert (named[:, count:] == -1).all()
    if dtype == torch.float64:
        assert torch.equal(named[:, :count], places[:, :count])
        return
    # Two candidates may be closer to each other than float32 can tell: what is named must have the weight all the same.
    equal = (named[:, :count, None] == places[:, None]).all(dim=-1)  # (pixel, rank, rank in float64)
    assert equal.any(dim=-1).all()
    assert_close(weight.gather(1, equal.int().argmax(dim=-1)), weight[:, :count], rtol=1e-4, atol=1e-6)
    assert (named[:, :count] == places[:, :count]).all(dim=-1).double().mean() > 0.99


def source_pixels(images, attribution):
    """The training pixels that are named, (batch, channel, height, width, top)."""
    return images.permute(0, 2, 3, 1)[attribution.image, attribution.row, attribution.column].movedim(-1, 1)


@every_path
@every_machine
def test_all_patches_by_their_weights_are_the_posterior_mean(name, dtype):
    images, x_t, _ = problem(name, 3)
    machine = ATTRIBUTABLE[name](images.to(dtype), scales=3)
    count = {"is": 4, "ls": 4, "bbels": 4 * 12}.get(name, 4 * 30)
    found = attribute(machine, x_t.to(dtype), ALPHA_BAR, top=count)
    assert_close(found.weight.sum(dim=-1), torch.ones(4, 5, 6), rtol=0, atol=1e-5)
    named = (found.image >= 0).sum(dim=-1)
    assert named.max() == count
    mean = (source_pixels(images, found) * found.weight[:, None]).sum(dim=-1)
    assert_close(mean, machine(x_t.to(dtype), ALPHA_BAR).double(), rtol=0, atol=1e-4)


@every_path
@every_machine
def test_only_images_of_the_class_are_named_by_their_place_in_the_whole_bank(name, dtype):
    images, x_t, _ = problem(name, 3)
    classes, wanted = torch.tensor([1, 0, 1, 0]), torch.tensor([0, 1, 1, 0])
    machine = ATTRIBUTABLE[name](images.to(dtype), classes, scales=3)
    found = attribute(machine, x_t.to(dtype), ALPHA_BAR, wanted, top=2)
    assert bool((classes[found.image] == wanted[:, None, None, None]).all())
    for k, label in enumerate(wanted.tolist()):
        members = (classes == label).nonzero()[:, 0]
        alone = ATTRIBUTABLE[name](images[members].to(dtype), scales=3)
        one = attribute(alone, x_t[k : k + 1].to(dtype), ALPHA_BAR[k : k + 1], top=2)
        assert torch.equal(members[one.image], found.image[k : k + 1])
        assert torch.equal(one.weight, found.weight[k : k + 1])


@functools.cache
def large(count=140):
    """More images than fit side by side, some of them twice, and noisy images."""
    images = random_images(count, 1, 6, 8)
    images[count // 2 :: 7] = images[: len(images[count // 2 :: 7])]
    return images, add_noise(images[:4], random_noise(4, 1, 6, 8), levels(0.03, 0.5, 0.9, 0.5)).float().double()


@pytest.fixture
def two_threads():
    """Each needs memory of its own, so the budget of a test is for so many."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@every_path
@every_machine
def test_result_depends_neither_on_the_memory_nor_on_the_batch_nor_on_the_threads(name, dtype, two_threads):
    compiled = dtype == torch.float32 and attributing.COMPILED
    images, x_t = large() if compiled else large(60)  # torch lays no images side by side
    images, x_t, alpha_bar = images.to(dtype), x_t.to(dtype), levels(0.03, 0.5, 0.9, 0.5)
    whole, told = attribute(ATTRIBUTABLE[name](images, scales=TABLE), x_t, alpha_bar), []
    tight = ATTRIBUTABLE[name](images, scales=TABLE, memory_budget=200_000 if name in LOCAL else 130_000)
    found = attribute(tight, x_t, alpha_bar, progress=lambda what, done, total: told.append(done / total))
    assert same(found, whole)
    assert told == sorted(told)
    assert (len(told), told[-1]) >= (7, 1)
    torch.set_num_threads(1)
    try:
        for k in (1, 2):
            one = attribute(ATTRIBUTABLE[name](images, scales=TABLE), x_t[k : k + 1], alpha_bar[k : k + 1])
            assert torch.equal(sources(one), sources(whole)[k : k + 1])
            assert_close(one.entropy, whole.entropy[k : k + 1], rtol=1e-4, atol=1e-5)
    finally:
        torch.set_num_threads(2)


@every_machine
def test_compiled_loops_find_what_float64_finds_in_a_large_bank(name):
    images, x_t = large()
    exact, rounded = (
        attribute(ATTRIBUTABLE[name](images.to(dtype), scales=3), x_t.to(dtype), levels(0.03, 0.5, 0.9, 0.99))
        for dtype in (torch.float64, torch.float32)
    )
    assert_close(rounded.weight, exact.weight, rtol=1e-4, atol=1e-6)
    assert_close(rounded.entropy, exact.entropy, rtol=1e-4, atol=1e-5)
    assert (sources(rounded) != sources(exact)).any(dim=-1).double().mean() < 0.01  # float32 cannot tell them apart


@every_path
@every_machine
def test_equal_patches_come_from_the_nearest_place_and_then_from_the_first_image(name, dtype):
    flat = torch.full((70, 1, 5, 5), 0.3, dtype=dtype)
    flat[0] = -1
    x_t = random_noise(1, 1, 5, 5).to(dtype) * 0.1 + 0.3
    found = attribute(ATTRIBUTABLE[name](flat, scales=3, memory_budget=200_000), x_t, levels(0.99), top=4)
    own = torch.stack(torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij"), dim=-1)
    expected = torch.cat([torch.arange(1, 5)[:, None].expand(5, 5, 4, 1), own[:, :, None].expand(-1, -1, 4, 2)], dim=-1)
    assert torch.equal(sources(found)[0], expected)


@every_path
@pytest.mark.parametrize("budget", [None, 200_000])
@pytest.mark.parametrize("name", ["els", "es"])
def test_a_nearer_place_comes_first_however_late_its_image_is_read(name, budget, dtype):
    image = random_images(1, 1, 6, 6).to(dtype)
    shifted = image.roll(1, dims=3)
    images = torch.cat([shifted.repeat(80, 1, 1, 1), image, shifted.repeat(119, 1, 1, 1)])
    machine = ATTRIBUTABLE[name](images, scales=3, memory_budget=budget)
    found = attribute(machine, image, levels(0.9999), top=3)
    own = torch.stack(torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij"), dim=-1)
    right = torch.stack([own[..., 0], (own[..., 1] + 1) % 6], dim=-1)
    for k, (number, place) in enumerate([(80, own), (0, right), (1, right)]):
        assert (found.image[0, ..., k] == number).all()
        assert torch.equal(sources(found)[0, ..., k, 1:], place)
    assert torch.equal(found.weight[..., 0], found.weight[..., 2])


@every_path
@pytest.mark.parametrize("patch_size", [1, 5])
@pytest.mark.parametrize("name", ["els", "bbels"])
def test_patches_that_repeat_are_equal_to_the_last_digit(name, patch_size, dtype):
    texture = random_images(2, 2, 3, 3).repeat(1, 1, 5, 5).to(dtype)
    found = attribute(ATTRIBUTABLE[name](texture, scales=patch_size), random_noise(1, 2, 15, 15).to(dtype), levels(0.7))
    centre = (slice(None), slice(6, 9), slice(6, 9))  # the same patch at nine places, all of them interior
    assert torch.equal(found.weight[centre], found.weight[centre][..., :1].expand(-1, -1, -1, 5))
    own = torch.arange(6, 9)
    assert (found.row[centre] - own[:, None, None]).abs().amax(dim=-1).max() <= 5
    assert (found.row[centre][..., 0] - own[:, None]).abs().max() <= 2
    assert (found.column[centre][..., 0] - own).abs().max() <= 2


@every_path
@every_machine
def test_preferred_images_come_first_among_equals(name, dtype):
    images = random_images(3, 1, 5, 5)[[0, 1, 1, 2, 1]].to(dtype)
    machine = ATTRIBUTABLE[name](images, torch.tensor([0, 0, 0, 0, 1]), scales=3)
    labels, prefer = torch.zeros(4, dtype=torch.int64), torch.tensor([-1, 1, 2, 4])
    x_t = images[1:2].repeat(4, 1, 1, 1)
    found = attribute(machine, x_t, levels(*[0.999] * 4), labels, top=2, prefer=prefer)
    assert [one.unique(dim=0).tolist() for one in found.image.flatten(1, 2)] == [[[1, 2]], [[1, 2]], [[2, 1]], [[1, 2]]]
    assert torch.equal(found.weight[0], found.weight[2])


@every_path
def test_patch_size_may_be_another_than_the_machines(dtype):
    images, x_t, _ = problem("ls", 3)
    images, x_t = images.to(dtype), x_t.to(dtype)
    found = attribute(ATTRIBUTABLE["ls"](images, scales=TABLE), x_t, ALPHA_BAR, patch_size=5)
    assert found.patch_size.tolist() == [5] * 4
    assert same(found, attribute(ATTRIBUTABLE["ls"](images, scales=5), x_t, ALPHA_BAR))


@every_path
@pytest.mark.parametrize("name", ["els", "es"])
def test_places_are_as_near_as_the_shorter_way_around_says(name, dtype):
    images = torch.full((1, 1, 4, 5), 0.5, dtype=dtype)
    found = attribute(ATTRIBUTABLE[name](images, scales=3), images, levels(0.5), top=6)
    # Itself, then up, left, right, down, and up and left.
    assert sources(found)[0, 0, 0, :, 1:].tolist() == [[0, 0], [3, 0], [0, 4], [0, 1], [1, 0], [3, 4]]
    assert_close(found.weight, torch.full_like(found.weight, 1 / 20))
    assert_close(found.entropy, torch.full_like(found.entropy, math.log(20)))
    assert_close(found.effective, torch.full_like(found.entropy, 20))


@pytest.mark.parametrize("device", DEVICES)
@every_machine
def test_every_device_finds_the_same_and_answers_on_the_cpu(name, device):
    images, x_t, _ = problem(name, 3)
    expected = attribute(ATTRIBUTABLE[name](images, scales=3), x_t, ALPHA_BAR)
    found = attribute(ATTRIBUTABLE[name](images, scales=3).to(device), x_t.to(device).requires_grad_(), ALPHA_BAR)
    assert found.image.device.type == found.weight.device.type == "cpu"
    assert same(found, expected)


def test_ideal_machine_names_one_image_at_every_pixel():
    images, x_t, _ = problem("is", 3)
    found = attribute(IdealScoreMachine(images), x_t, ALPHA_BAR)
    for k in range(len(x_t)):
        assert len(found.image[k, ..., :4].flatten(0, 1).unique(dim=0)) == 1
        assert len(found.entropy[k].unique()) == 1
    assert torch.equal(found.row[..., 0], torch.arange(5)[:, None].expand(4, 5, 6))


@every_path
@pytest.mark.parametrize("name", ["els", "ls"])
def test_black_and_white_pixels_name_the_majority_colour_of_their_patch(name, dtype):
    black_white = torch.tensor([-1.0, 1.0], dtype=dtype).reshape(2, 1, 1, 1).repeat(1, 1, 8, 8)
    colours = random_noise(3, 1, 8, 8).to(dtype).sign()
    found = attribute(ATTRIBUTABLE[name](black_white, scales=3), 0.95**0.5 * colours, levels(0.95, 0.95, 0.95), top=1)
    around = pad(colours, (1, 1, 1, 1), mode="circular") if name == "els" else pad(colours, (1, 1, 1, 1))
    surplus = 9 * avg_pool2d(around, 3, 1)[:, 0].round(decimals=3)
    majority = (surplus > 0.5).long()  # at the border of LS four or six colours may balance: then the first image
    assert torch.equal(found.image[..., 0], majority)


@every_machine
def test_bytes_name_the_same_patches_as_the_numbers_they_stand_for(name):
    stored = torch.randint(0, 256, (5, 1, 5, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    x_t = random_noise(2, 1, 5, 6).float()
    numbers, stored = (
        attribute(ATTRIBUTABLE[name](images, scales=3), x_t, levels(0.4, 0.8))
        for images in (stored / 127.5 - 1, stored)
    )
    assert same(numbers, stored)


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from([*ATTRIBUTABLE]),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 2), st.integers(3, 6), st.integers(3, 6)),
    alpha_bar=st.floats(1e-4, 0.9999),
    top=st.integers(1, 6),
    seed=st.integers(0, 100),
    precision=st.sampled_from([torch.float32, torch.float64]),
)
def test_weights_descend_and_entropies_lie_in_their_range(name, shape, alpha_bar, top, seed, precision):
    images = random_images(*shape, seed=seed).to(precision)
    x_t = random_noise(2, *shape[1:], seed=seed).to(precision)
    found = attribute(ATTRIBUTABLE[name](images, scales=3), x_t, levels(alpha_bar, alpha_bar), top=top)
    assert (found.weight >= 0).all()
    assert (found.weight.diff(dim=-1) <= 0).all()
    assert (found.weight.sum(dim=-1) <= 1 + 1e-5).all()
    assert torch.equal(found.weight == 0, found.weight * (found.image >= 0) == 0)
    places = shape[2] * shape[3] if name in ("es", "els", "bbels") else 1
    assert found.entropy.min() >= 0
    assert found.entropy.max() <= math.log(shape[0] * places) + 1e-5
    # A distribution is no less even than its largest weight says.
    assert (found.entropy >= -found.weight[..., 0].log() - 1e-4).all()
    own = torch.arange(shape[2])[:, None, None]
    if name in ("is", "ls"):
        assert torch.equal(found.row, torch.where(found.image < 0, -1, own))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"top": 0}, "at least 1 patch per pixel, not 0"),
        ({"x_t": torch.zeros(1, 2, 5, 6)}, "takes images of 1 x 5 x 6"),
        ({"x_t": torch.full((1, 1, 5, 6), math.nan)}, "takes noisy images of numbers"),
        ({"alpha_bar": levels(1.0)}, r"must lie in \(0, 1\), not 1.0"),
        ({"alpha_bar": levels(0.5, 0.5)}, "one alpha_bar per image"),
        ({"labels": torch.tensor([0])}, "takes no labels"),
        ({"patch_size": 4}, "must be odd and positive, not 4"),
        ({"patch_size": 3, "machine": IdealScoreMachine(torch.zeros(1, 1, 5, 6))}, "it takes no patch size"),
        ({"machine": resnet(torch.zeros(1, 1, 5, 6), None)}, "a machine with a bank of training images, not Net"),
        ({"machine": WienerScoreMachine(torch.zeros(1, 1, 5, 6))}, "copies single patches, which Wiener"),
        ({"machine": LocalScoreMachine(torch.zeros(1, 1, 5, 6), scales=3, memory_budget=9)}, "budget is too small"),
    ],
)
def test_bad_input_is_refused(change, complaint):
    given = {"machine": LocalScoreMachine(torch.zeros(1, 1, 5, 6), scales=3), "x_t": torch.zeros(1, 1, 5, 6)}
    with pytest.raises(InputError, match=complaint) as error:
        attribute(**(given | {"alpha_bar": levels(0.5)} | change))
    assert "\n" not in str(error.value)


def test_label_without_images_and_a_shard_are_refused():
    images = random_images(2, 1, 5, 5)
    with pytest.raises(InputError, match="no training image with label 7"):
        attribute(IdealScoreMachine(images, torch.tensor([0, 1])), images[:1], levels(0.5), torch.tensor([7]))
    machine = IdealScoreMachine(images)
    machine.process_group = object()
    with pytest.raises(InputError, match="the whole bank on one process"):
        attribute(machine, images[:1], levels(0.5))


@pytest.fixture
def digits():
    return random_images(6, 1, 6, 6).float()


def test_attributions_of_a_process_are_those_of_its_states_and_settle(digits):
    machine, schedule, told = EquivariantLocalScoreMachine(digits, scales=3), CosineSchedule(), []
    noise = random_noise(2, 1, 6, 6).float()
    process = attribute_process(
        machine, noise, schedule, 8, top=2, progress=lambda what, done, total: told.append((done, total))
    )
    trajectory = ddim(machine, noise, schedule, 8)
    assert told == sorted(told)
    assert {(k, 8) for k in range(1, 9)} <= {*told}
    assert torch.equal(process.samples, trajectory.samples)
    assert torch.equal(process.alpha_bar, trajectory.alpha_bar[:-1])
    for k, step in enumerate(process.steps):
        assert same(step, attribute(machine, trajectory.x_t[k], trajectory.alpha_bar[k].expand(2), top=2))
    settled = process.settled()
    first, last = sources(process.steps[0])[..., 0, :], sources(process.steps[-1])[..., 0, :]
    assert_close(settled[0], (first == last).all(dim=-1).double().flatten(1).mean(dim=1))
    assert settled[-1].tolist() == [1, 1]
    assert (settled[0] < settled[-2]).all()
    rows = list(process.rows())
    assert [(row["step"], row["sample"]) for row in rows[:3]] == [(8, 0), (8, 1), (7, 0)]
    assert (len(rows), rows[-1]["step"], rows[-1]["settled"]) == (16, 1, 1)
    assert rows[0]["effective_median"] > rows[-1]["effective_median"]


def test_the_process_may_be_that_of_a_network_and_labels_go_to_whom_they_concern(digits):
    network = resnet(digits, torch.arange(6) % 3).eval()
    machine, schedule = LocalScoreMachine(digits, scales=3), CosineSchedule()
    noise, labels = random_noise(2, 1, 6, 6).float(), torch.tensor([0, 2])
    process = attribute_process(machine, noise, schedule, 3, labels, denoiser=network)
    states = ddim(network, noise, schedule, 3, labels)
    assert torch.equal(process.samples, states.samples)
    assert same(process.steps[-1], attribute(machine, states.x_t[-2], states.alpha_bar[-2].expand(2)))


def test_a_network_alone_is_refused(digits):
    with pytest.raises(InputError, match="not NetworkDenoiser"):
        attribute_process(resnet(digits, None), digits, CosineSchedule(), 2)
