"""The machines against a float64 brute force, and the identities of the theory."""

import functools
import math
import re

import pytest
import reference
import torch
from denoisers import EXTRAPOLATING, LOCAL, MACHINES, SOFT, TABLE, THEORIES, WHOLE_IMAGE
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from elslightning.diffusion.prediction import eps_from_x0
from elslightning.diffusion.schedule import add_noise
from elslightning.machines import (
    BoundaryBrokenScoreMachine,
    EquivariantLocalScoreMachine,
    EquivariantScoreMachine,
    IdealScoreMachine,
    LocalScoreMachine,
    PatchMachine,
)
from elslightning.machines.scales import ScaleTable
from elslightning.system.errors import InputError
from elslightning.testing import levels, random_images, random_noise, relative_error

# From pure noise to 1 - alpha_bar = 1e-6, all in one batch.
ALPHA_BAR = levels(1e-4, 0.1, 0.5, 0.9, 0.995, 0.9999, 1 - 1e-6)
SHAPES = [(1, 5, 6), (3, 7, 5)]
PATCHES = LOCAL | SOFT
CASES = [*((name, 1) for name in WHOLE_IMAGE | THEORIES), *((name, size) for name in PATCHES for size in (1, 3, 5, 11))]
CIRCULAR = {"els", "soft_els"}  # a circular patch wraps at most once
CASES = [case for case in CASES if case[0] not in CIRCULAR or case[1] < 11]
EQUIVARIANT = {"es", *CIRCULAR}

every_machine = pytest.mark.parametrize("name", MACHINES)
local_machines = pytest.mark.parametrize("name", LOCAL)
patch_machines = pytest.mark.parametrize("name", PATCHES)


@pytest.fixture
def path(request, monkeypatch):
    """Sends float32 on the CPU through the compiled loops, or through torch as every other device."""
    monkeypatch.setattr(PatchMachine, "compiled", request.param == "compiled")


local_paths = pytest.mark.parametrize(
    ("name", "path"), [(name, path) for name in LOCAL for path in ("compiled", "torch")], indirect=["path"]
)
patch_paths = pytest.mark.parametrize(
    ("name", "path"), [(name, path) for name in PATCHES for path in ("compiled", "torch")], indirect=["path"]
)
PATHS = [*((name, "torch") for name in MACHINES), *((name, "compiled") for name in PATCHES)]
every_path = pytest.mark.parametrize(("name", "path"), PATHS, indirect=["path"])
bounded_path = pytest.mark.parametrize(
    ("name", "path"), [case for case in PATHS if case[0] not in EXTRAPOLATING], indirect=["path"]
)


def noised(images, alpha_bar):
    """A noisy image per noise level: the even ones of training images, the odd ones of others."""
    others = random_images(len(alpha_bar), *images.shape[1:], seed=3)
    known = images.repeat(len(alpha_bar), 1, 1, 1)[: len(alpha_bar)]
    odd = (torch.arange(len(alpha_bar)) % 2 == 1)[:, None, None, None]
    clean = torch.where(odd, others, known)
    x_t = add_noise(clean, random_noise(*clean.shape), alpha_bar)
    return x_t.float().double()  # both precisions see the same numbers


TRUTHS = {}


def brute_force(name, x_t, alpha_bar, images, patch_size):
    """Worked out once for the same numbers, which many tests have."""
    key = (name, patch_size, images.shape, *(part.numpy().tobytes() for part in (x_t, alpha_bar, images)))
    if key not in TRUTHS:
        TRUTHS[key] = reference.posterior_means(name, x_t, alpha_bar, images, patch_size)
    return TRUTHS[key]


@functools.cache
def problem(name, patch_size, shape):
    """Training images, noisy images at all levels, and the float64 truth."""
    images = random_images(6, *shape)
    x_t = noised(images, ALPHA_BAR)
    return images, x_t, brute_force(name, x_t, ALPHA_BAR, images, patch_size)


def eps_error(x0, truth, x_t, alpha_bar):
    return relative_error(eps_from_x0(x_t, x0.double(), alpha_bar), eps_from_x0(x_t, truth, alpha_bar))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "patch_size"), CASES)
def test_float64_equals_brute_force(name, patch_size, shape):
    images, x_t, truth = problem(name, patch_size, shape)
    x0 = MACHINES[name](images, scales=patch_size)(x_t, ALPHA_BAR)
    assert (eps_error(x0, truth, x_t, ALPHA_BAR) <= 1e-9).all()


@pytest.mark.parametrize("path", ["compiled", "torch"], indirect=True)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "patch_size"), CASES)
@pytest.mark.usefixtures("path")
def test_float32_is_near_brute_force(name, patch_size, shape):
    images, x_t, truth = problem(name, patch_size, shape)
    x0 = MACHINES[name](images.float(), scales=patch_size)(x_t.float(), ALPHA_BAR)
    assert x0.isfinite().all()
    error = eps_error(x0, truth, x_t, ALPHA_BAR)
    assert (error[ALPHA_BAR <= 1 - 5e-3] <= 1e-4).all()
    assert (error[ALPHA_BAR <= 1 - 1e-4] <= 1e-2).all()


@every_path
@pytest.mark.usefixtures("path")
def test_labels_select_the_training_images(name):
    images, x_t, _ = problem(name, 3, SHAPES[0])
    classes, labels = torch.tensor([1, 0, 1, 4, 1, 0]), torch.tensor([0, 1, 4, 1, 0, 1, 4])
    machine = MACHINES[name](images.float(), classes, scales=3)
    x0 = machine(x_t.float(), ALPHA_BAR, labels)
    for i in range(5):  # as far as float32 promises 1e-4
        one = slice(i, i + 1)
        truth = brute_force(name, x_t[one], ALPHA_BAR[one], images[classes == labels[i]], 3)
        assert eps_error(x0[one], truth, x_t[one], ALPHA_BAR[one]) <= 1e-4


@patch_paths
@pytest.mark.usefixtures("path")
def test_more_images_than_one_vector_block(name):
    images = random_images(70, 1, 4, 3)
    alpha_bar = levels(0.2, 0.7)
    x_t = noised(images, alpha_bar)
    x0 = PATCHES[name](images.float(), scales=3)(x_t.float(), alpha_bar)
    assert (eps_error(x0, brute_force(name, x_t, alpha_bar, images, 3), x_t, alpha_bar) <= 1e-5).all()


@given(data=st.data())
@settings(max_examples=15, deadline=None, derandomize=True)
def test_any_shape_patch_and_level_equals_brute_force(data):
    name = data.draw(st.sampled_from(list(MACHINES)), label="machine")
    height, width = data.draw(st.tuples(st.integers(1, 7), st.integers(1, 7)), label="size")
    radius = data.draw(st.integers(0, (min(height, width) - 1) // 2 if name in CIRCULAR else 6), label="radius")
    count, channels = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 3)), label="images and channels")
    noise_power = data.draw(st.floats(-5, -0.01).map(lambda power: 10**power), label="1 - alpha_bar")
    images = random_images(count, channels, height, width, seed=data.draw(st.integers(0, 99), label="seed"))
    alpha_bar = levels(1 - noise_power, 0.5)
    x_t = noised(images, alpha_bar)
    x0 = MACHINES[name](images, scales=2 * radius + 1)(x_t, alpha_bar)
    truth = brute_force(name, x_t, alpha_bar, images, 2 * radius + 1)
    assert (eps_error(x0, truth, x_t, alpha_bar) <= 1e-9).all()


# Identities -----------------------------------------------------------------------------------------------


def assert_same(machine, other, x_t, alpha_bar):
    assert_close(machine(x_t, alpha_bar), other(x_t, alpha_bar), rtol=1e-10, atol=1e-10)


@pytest.fixture
def images():
    return random_images(6, 2, 5, 6)


@pytest.fixture
def x_t(images):
    return noised(images, ALPHA_BAR)


@pytest.mark.parametrize("patch_size", [11, 13])
def test_local_with_a_patch_over_the_whole_image_is_ideal(images, x_t, patch_size):
    assert_same(LocalScoreMachine(images, scales=patch_size), IdealScoreMachine(images), x_t, ALPHA_BAR)


def test_local_with_a_smaller_patch_is_not_ideal(images, x_t):
    local, ideal = LocalScoreMachine(images, scales=5), IdealScoreMachine(images)
    assert not torch.allclose(local(x_t, ALPHA_BAR), ideal(x_t, ALPHA_BAR), atol=1e-3)


@pytest.mark.parametrize("patch_size", [7, 9])
def test_boundary_broken_without_an_interior_is_local(images, x_t, patch_size):
    broken = BoundaryBrokenScoreMachine(images, scales=patch_size)
    assert_same(broken, LocalScoreMachine(images, scales=patch_size), x_t, ALPHA_BAR)


def test_boundary_broken_with_an_interior_is_not_local(images, x_t):
    broken, local = BoundaryBrokenScoreMachine(images, scales=3), LocalScoreMachine(images, scales=3)
    assert not torch.allclose(broken(x_t, ALPHA_BAR), local(x_t, ALPHA_BAR), atol=1e-3)


def test_boundary_broken_with_single_pixels_is_equivariant(images, x_t):
    broken = BoundaryBrokenScoreMachine(images, scales=1)
    assert_same(broken, EquivariantLocalScoreMachine(images, scales=1), x_t, ALPHA_BAR)


def test_equivariant_local_with_a_patch_of_the_whole_image_is_equivariant():
    images = random_images(4, 1, 5, 5)
    local = EquivariantLocalScoreMachine(images, scales=5)
    assert_same(local, EquivariantScoreMachine(images), noised(images, ALPHA_BAR), ALPHA_BAR)


def test_equivariant_is_ideal_for_all_translates(images, x_t):
    ideal = IdealScoreMachine(reference.translates(images))
    assert_same(EquivariantScoreMachine(images), ideal, x_t, ALPHA_BAR)


@every_machine
def test_only_equivariant_machines_commute_with_circular_shifts(name, images, x_t):
    machine = MACHINES[name](images, scales=3)
    shifted = machine(x_t.roll((2, 3), dims=(2, 3)), ALPHA_BAR)
    change = (shifted - machine(x_t, ALPHA_BAR).roll((2, 3), dims=(2, 3))).abs().max()
    assert (change <= 1e-10) == (name in EQUIVARIANT)
    assert (change <= 1e-3) == (name in EQUIVARIANT)


def candidate_patches(name, images, row, column):
    """The patches that pixel (row, column) may copy from, for P = 3: (candidate, channel, 3, 3)."""
    mode = "circular" if name == "els" else "zeros"
    places = reference.candidates(name, row, column, *images.shape[2:], radius=1)
    return torch.cat([reference.window(images, y, x, 1, mode) for y, x in places])


def pixels(images):
    return [(row, column) for row in range(images.shape[2]) for column in range(images.shape[3])]


def test_ideal_tends_to_the_mean_with_noise_and_to_the_nearest_image_without(images, x_t):
    ideal = IdealScoreMachine(images)
    noise, clean = torch.full_like(ALPHA_BAR, 1e-13), torch.full_like(ALPHA_BAR, 1 - 1e-9)
    assert_close(ideal(x_t, noise), images.mean(dim=0).expand_as(x_t), rtol=0, atol=1e-4)
    nearest = images[torch.cdist(x_t.flatten(1), images.flatten(1)).argmin(dim=1)]
    assert_close(ideal(x_t, clean), nearest, rtol=0, atol=1e-12)


@local_machines
def test_pure_noise_gives_the_mean_of_the_candidates(name, images, x_t):
    x0 = LOCAL[name](images, scales=3)(x_t, torch.full_like(ALPHA_BAR, 1e-13))
    for row, column in pixels(images):
        mean = candidate_patches(name, images, row, column)[:, :, 1, 1].mean(dim=0)
        assert_close(x0[:, :, row, column], mean.expand(len(x0), -1), rtol=0, atol=1e-4)


@local_machines
def test_no_noise_gives_the_centre_of_the_nearest_candidate(name, images, x_t):
    x0 = LOCAL[name](images, scales=3)(x_t, torch.full_like(ALPHA_BAR, 1 - 1e-9))
    mode = "circular" if name == "els" else "zeros"
    for row, column in pixels(images):
        patches = candidate_patches(name, images, row, column)
        query = reference.window(x_t, row, column, 1, mode)
        nearest = torch.cdist(query.flatten(1), patches.flatten(1)).argmin(dim=1)
        assert_close(x0[:, :, row, column], patches[nearest, :, 1, 1], rtol=0, atol=1e-12)


@local_machines
def test_every_pixel_lies_in_the_hull_of_its_candidates(name, images, x_t):
    x0 = LOCAL[name](images, scales=3)(x_t, ALPHA_BAR)
    for row, column in pixels(images):
        centres = candidate_patches(name, images, row, column)[:, :, 1, 1]
        assert (x0[:, :, row, column] >= centres.amin(dim=0) - 1e-12).all()
        assert (x0[:, :, row, column] <= centres.amax(dim=0) + 1e-12).all()


@bounded_path
@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("alpha_bar", [1e-13, 1e-9, 1 - 1e-9, 1 - 1e-13])
def test_float32_stays_in_the_hull_at_any_noise_level(name, alpha_bar, images, x_t):
    x0 = MACHINES[name](images.float(), scales=3)(x_t.float(), torch.full_like(ALPHA_BAR, alpha_bar))
    assert (x0 >= images.min() - 1e-5).all()
    assert (x0 <= images.max() + 1e-5).all()


@local_paths
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.usefixtures("path")
def test_pixels_outside_the_window_have_no_influence(name, dtype, images, x_t):
    machine = LOCAL[name](images.to(dtype), scales=3)
    x_t = x_t.to(dtype)
    before = machine(x_t, ALPHA_BAR)
    for row, column in [(0, 0), (2, 3), (4, 1)]:
        far = torch.tensor([[abs(y - row) > 1 or abs(x - column) > 1 for x in range(6)] for y in range(5)])
        if name == "els":  # windows wrap around
            around = [((y - row + 1) % 5 > 2) or ((x - column + 1) % 6 > 2) for y in range(5) for x in range(6)]
            far = torch.tensor(around).reshape(5, 6)
        outside = machine(torch.where(far, x_t + 1, x_t), ALPHA_BAR)
        inside = machine(torch.where(far, x_t, x_t + 1), ALPHA_BAR)
        assert torch.equal(outside[:, :, row, column], before[:, :, row, column])
        assert not torch.equal(inside[:, :, row, column], before[:, :, row, column])


@every_machine
def test_duplicates_count_as_often_as_they_occur(name, images, x_t):
    skewed = torch.cat([images, images[:2], images[:1]])
    x0 = MACHINES[name](skewed, scales=3)(x_t, ALPHA_BAR)
    assert (eps_error(x0, brute_force(name, x_t, ALPHA_BAR, skewed, 3), x_t, ALPHA_BAR) <= 1e-9).all()
    assert not torch.allclose(x0, MACHINES[name](images, scales=3)(x_t, ALPHA_BAR), atol=1e-3)


@every_machine
def test_doubling_the_whole_training_set_changes_nothing(name, images, x_t):
    doubled = MACHINES[name](images.repeat(2, 1, 1, 1), scales=3)
    assert_same(doubled, MACHINES[name](images, scales=3), x_t, ALPHA_BAR)


def test_two_images_in_a_known_ratio():
    ones = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    machine = IdealScoreMachine(torch.cat([-ones, -ones, ones]))
    # The log-weights of white and black differ by 2 sqrt(alpha_bar) sum(x_t) / (1 - alpha_bar).
    odds = math.exp(2 * math.sqrt(0.3) * 0.9 / 0.7) / 2
    x0 = machine(0.1 * ones, levels(0.3))
    assert_close(x0, ones * (odds - 1) / (odds + 1), rtol=1e-12, atol=0)


# Invariances ----------------------------------------------------------------------------------------------


class Begun(Exception):
    """A machine had memory enough for its first step."""


def begun(fraction):
    raise Begun


def smallest(works, too_small, enough):
    """The smallest whole number that works, above one that does not."""
    while enough - too_small > 1:
        middle = (too_small + enough) // 2
        too_small, enough = (too_small, middle) if works(middle) else (middle, enough)
    return enough


def tightest_budget(name, images, x_t):
    """The smallest memory budget with which a machine still works."""

    def missing(budget, on_progress=lambda fraction: None):
        """Bytes that a step of the machine takes beyond what it is given; 0 where it has enough."""
        machine = MACHINES[name](images, scales=3, memory_budget=budget)
        machine.on_progress = on_progress
        try:
            machine(x_t, ALPHA_BAR)
        except Begun:
            return 0
        except InputError as error:
            takes, given = re.search(r"takes ([\d,]+) bytes, and (-?[\d,]+) of the budget", str(error)).groups()
            return int(takes.replace(",", "")) - int(given.replace(",", ""))
        return 0

    def enough(budget, *on_progress):
        """The smallest budget that is enough, which one of less than `budget` may be, too."""
        too_small = budget - 1
        while more := missing(budget, *on_progress):
            budget, too_small = budget + 2 * more, budget  # half of a budget is for one thing, half for another
        nearly = smallest(lambda one: not missing(one, *on_progress), max(too_small, budget - 2), budget)
        if missing(nearly - 1, *on_progress):
            return nearly
        return smallest(lambda one: not missing(one, *on_progress), too_small, nearly - 1)

    # With little memory a machine takes long to end, and most that can begin can end.
    return enough(enough(2, begun))


@pytest.mark.parametrize(
    ("name", "path", "dtype"),
    [
        *((*case, torch.float32) for case in PATHS),
        *((name, "torch", torch.float64) for name in MACHINES),  # which the compiled loops do not take
    ],
    indirect=["path"],
)
@pytest.mark.usefixtures("path")
def test_result_does_not_depend_on_how_much_fits_into_memory(name, dtype, images, x_t):
    images, x_t = images.to(dtype), x_t.to(dtype)
    budget = tightest_budget(name, images, x_t)
    evaluations, ticks = [], []
    for memory_budget in (None, budget, budget * 5 // 4):
        machine, fractions = MACHINES[name](images, scales=3, memory_budget=memory_budget), []
        machine.on_progress = fractions.append
        evaluations.append(machine(x_t, ALPHA_BAR))
        ticks.append(fractions)
    assert len(ticks[0]) < len(ticks[1])  # the training set in one piece, and in several
    for fractions in ticks:
        assert fractions == sorted(set(fractions))
        assert fractions[-1] == pytest.approx(1)
    least_noise, tolerance = (0, 1e-10) if dtype == torch.float64 else (5e-3, 1e-5)
    usable = least_noise <= 1 - ALPHA_BAR
    for evaluation in evaluations[1:]:
        assert_close(evaluation[usable], evaluations[0][usable], rtol=tolerance, atol=tolerance)


@every_machine
def test_memory_too_small_for_one_image_is_refused(name, images, x_t):
    with pytest.raises(InputError, match="memory budget is too small: one"):
        MACHINES[name](images, scales=3, memory_budget=100)(x_t, ALPHA_BAR)
    with pytest.raises(InputError, match="at least 1 byte, not 0"):
        MACHINES[name](images, scales=3, memory_budget=0)


@every_machine
def test_result_does_not_depend_on_the_order_of_the_training_set(name, images, x_t):
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    classes = torch.tensor([0, 1, 1, 0, 0, 1])
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 0])
    machine = MACHINES[name](images, classes, scales=3)
    permuted = MACHINES[name](images[order], classes[order], scales=3)
    assert_close(machine(x_t, ALPHA_BAR, labels), permuted(x_t, ALPHA_BAR, labels), rtol=1e-10, atol=1e-10)


@every_path
@pytest.mark.usefixtures("path")
def test_result_does_not_depend_on_the_rest_of_the_batch(name, images, x_t):
    machine = MACHINES[name](images.float(), scales=3)
    usable = ALPHA_BAR <= 1 - 5e-3
    whole = machine(x_t.float(), ALPHA_BAR)
    alone = torch.cat([machine(x_t[i : i + 1].float(), ALPHA_BAR[i : i + 1]) for i in range(len(x_t))])
    assert_close(alone[usable], whole[usable], rtol=1e-5, atol=1e-5)


@pytest.fixture
def threads():
    """Restores the number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@patch_machines
def test_compiled_result_does_not_depend_on_the_number_of_threads(name):
    images = random_images(140, 1, 4, 3).float()
    alpha_bar = levels(0.5)
    x_t = noised(images.double(), alpha_bar).float()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(PATCHES[name](images, scales=3)(x_t, alpha_bar))
    assert_close(results[1], results[0], rtol=1e-5, atol=1e-5)
    assert_close(results[2], results[0], rtol=1e-5, atol=1e-5)


@every_path
@pytest.mark.usefixtures("path")
def test_bytes_equal_the_floats_they_stand_for(name):
    stored = torch.randint(0, 256, (6, 1, 5, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = stored.double() / 127.5 - 1
    x_t = noised(images, ALPHA_BAR)
    assert_same(MACHINES[name](stored, scales=3), MACHINES[name](images, scales=3), x_t, ALPHA_BAR)
    x0 = MACHINES[name](stored, scales=3)(x_t.float(), ALPHA_BAR)
    error = eps_error(x0, brute_force(name, x_t, ALPHA_BAR, images, 3), x_t, ALPHA_BAR)
    assert (error[ALPHA_BAR <= 1 - 5e-3] <= 1e-4).all()


@pytest.fixture
def coarse():
    """The global settings under which torch may round products to bfloat16 or TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    with torch.autocast("cpu"):
        yield
    torch.set_float32_matmul_precision(before)


@every_path
@pytest.mark.usefixtures("path")
def test_global_precision_changes_nothing(name, images, x_t, request):
    machine = MACHINES[name](images.float(), scales=3)
    before = machine(x_t.float(), ALPHA_BAR), machine.eps(x_t.float(), ALPHA_BAR)
    request.getfixturevalue("coarse")
    after = machine(x_t.float(), ALPHA_BAR), machine.eps(x_t.float(), ALPHA_BAR)
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])
    assert torch.get_float32_matmul_precision() == "medium"
    assert torch.is_autocast_enabled("cpu")


@pytest.mark.usefixtures("coarse")
@every_machine
def test_machine_works_in_full_precision_whatever_this_processor_would_round(name, images, x_t, monkeypatch):
    machine, seen = MACHINES[name](images.float(), scales=3), []
    inner = machine._partials

    def spy(*arguments):
        seen.append((torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")))
        return inner(*arguments)

    monkeypatch.setattr(machine, "_partials", spy)
    machine(x_t.float(), ALPHA_BAR)
    assert set(seen) == {("highest", False)}


@every_machine
@pytest.mark.parametrize("bank", [torch.float32, torch.float64])
@pytest.mark.parametrize("query", [torch.float32, torch.float64])
def test_bank_and_query_may_differ_in_precision(name, bank, query, images, x_t):
    x0 = MACHINES[name](images.to(bank), scales=3)(x_t.to(query), ALPHA_BAR)
    assert x0.dtype == query
    error = eps_error(x0, brute_force(name, x_t, ALPHA_BAR, images, 3), x_t, ALPHA_BAR)
    assert (error[ALPHA_BAR <= 1 - 5e-3] <= (1e-9 if query == torch.float64 else 1e-4)).all()


# Patch sizes ----------------------------------------------------------------------------------------------


@patch_machines
def test_sweep_equals_forward_for_each_patch_size(name, images, x_t):
    classes, labels = torch.arange(6) % 2, torch.arange(7) % 2
    sweep = PATCHES[name](images, classes, scales=3).sweep(x_t, ALPHA_BAR, [1, 3, 5], labels)
    forward = [PATCHES[name](images, classes, scales=size)(x_t, ALPHA_BAR, labels) for size in (1, 3, 5)]
    assert torch.equal(sweep, torch.stack(forward))


@patch_paths
@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("sizes", [[5, 1, 3, 3], [3, 5, 11, 13], [13]], ids=str)
def test_sizes_in_any_order_share_a_pass(name, sizes, images, x_t):
    if name in CIRCULAR:
        sizes = [min(size, 5) for size in sizes]  # more cannot wrap around five rows
    machine, fractions = PATCHES[name](images.float(), scales=3), []
    machine.on_progress = fractions.append
    sweep = machine.sweep(x_t.float(), ALPHA_BAR, sizes)
    for size, x0 in zip(sizes, sweep, strict=True):
        error = eps_error(x0, brute_force(name, x_t, ALPHA_BAR, images, size), x_t, ALPHA_BAR)
        assert (error[ALPHA_BAR <= 1 - 5e-3] <= 1e-4).all()
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1)


@patch_machines
def test_table_gives_every_image_its_own_patch_size(name, images):
    alpha_bar = levels(0.96, 0.05, 0.5, 0.97, 0.45)
    x_t = noised(images, alpha_bar)
    x0 = PATCHES[name](images, scales=TABLE)(x_t, alpha_bar)
    for i, size in enumerate([1, 5, 3, 1, 3]):
        alone = PATCHES[name](images, scales=size)(x_t[i : i + 1], alpha_bar[i : i + 1])
        assert_close(x0[i : i + 1], alone, rtol=1e-10, atol=1e-10)


@local_machines
def test_noise_level_beyond_the_table_is_refused(name, images, x_t):
    machine = LOCAL[name](images, scales=ScaleTable([0.5, 0.45], [3, 5]))
    with pytest.raises(InputError, match=r"covers alpha_bar .* not 0\.0001"):
        machine(x_t, ALPHA_BAR)


# Bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch_size", [0, 2, -3])
@local_machines
def test_even_or_non_positive_patch_is_refused(name, patch_size, images, x_t):
    complaint = f"odd and positive, not {patch_size}"
    with pytest.raises(InputError, match=complaint):
        LOCAL[name](images, scales=patch_size)
    with pytest.raises(InputError, match=complaint):
        LOCAL[name](images, scales=3).sweep(x_t, ALPHA_BAR, [3, patch_size])


def test_patch_that_wraps_more_than_once_is_refused(images, x_t):
    with pytest.raises(InputError, match=r"patch size 7 is too large: .* 5 x 6 .* at most 5"):
        EquivariantLocalScoreMachine(images, scales=7)
    with pytest.raises(InputError, match="patch size 7 is too large"):
        EquivariantLocalScoreMachine(images, scales=ScaleTable([0.5, 0.1], [3, 7]))
    with pytest.raises(InputError, match="patch size 7 is too large"):
        EquivariantLocalScoreMachine(images, scales=3).sweep(x_t, ALPHA_BAR, [3, 7])


@every_machine
@pytest.mark.parametrize("shape", [(0, 1, 4, 4), (3, 0, 4, 4), (3, 1, 4, 0)])
def test_empty_bank_is_refused(name, shape):
    with pytest.raises(InputError, match=r"none of them 0, not \({}, {}, {}, {}\)".format(*shape)):
        MACHINES[name](torch.zeros(shape), scales=3)


@pytest.mark.usefixtures("unchecked")
@every_machine
def test_bank_of_another_rank_is_refused(name):
    with pytest.raises(InputError, match=r"shape \(N, channel, height, width\).* not \(3, 4, 4\)"):
        MACHINES[name](torch.zeros(3, 4, 4), scales=3)


@every_machine
def test_labels_of_another_length_are_refused(name, images):
    with pytest.raises(InputError, match="6 images and 4 labels"):
        MACHINES[name](images, torch.tensor([0, 1, 0, 1]), scales=3)


@every_machine
def test_label_without_training_images_is_named(name, images, x_t):
    machine = MACHINES[name](images, torch.tensor([0, 1, 2, 0, 1, 2]), scales=3)
    with pytest.raises(InputError, match="no training image with label 7"):
        machine(x_t, ALPHA_BAR, torch.tensor([0, 1, 2, 7, 0, 1, 2]))


@every_machine
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_pixels_that_are_not_finite_are_refused(name, value, images):
    images[3, 1, 2, 2] = value
    with pytest.raises(InputError, match="not finite"):
        MACHINES[name](images, scales=3)
