"""Machines that draw their candidates: the error that they state holds, and nothing but the seed changes the draws."""

import copy
import math

import numpy as np
import pytest
import torch
from noised import LEVELS, noisy
from torch.testing import assert_close

from elslightning.machines import MACHINES, approximate, foreseeing, looking
from elslightning.machines.choosing_loops import choose_candidates, choose_cells
from elslightning.machines.compiling import compiled
from elslightning.machines.foreseeing import Expectation
from elslightning.machines.index import BYTES, Candidates, build
from elslightning.machines.index_loops import take_patches
from elslightning.machines.lanes import PART
from elslightning.machines.looking import Draws, thrown
from elslightning.machines.region_loops import take_regions
from elslightning.machines.scanning_loops import FALL, SCANNED, draw, nearness, scan, threshold
from elslightning.machines.tiles import tilings
from elslightning.system.errors import InputError
from elslightning.testing import levels, random_images

POOLED = ("bbels", "els")
pooled = pytest.mark.parametrize("name", POOLED)


@pytest.fixture(scope="module")
def bank(digits):
    return digits[:400]


@pytest.mark.parametrize("patch_size", [3, 5])
@pooled
def test_the_stated_error_covers_the_exact_mean_at_every_noise_level(name, patch_size, digits, bank, few):
    """Over many seeds: tiles of several images share draws. Where all weigh alike errors are what is asked, no less."""
    exact = MACHINES[name](bank, scales=patch_size)
    drawn = MACHINES[name](bank, scales=patch_size, accuracy=0.02)
    for level in LEVELS:
        alpha_bar = level.expand(2)
        x_t = noisy(digits[400:402], alpha_bar)
        truth, covered, missed, certain = exact(x_t, alpha_bar), [], [], []
        for drawn.seed in range(40 if level == LEVELS[-1] else 15):
            found = drawn.estimate(x_t, alpha_bar)
            away, sure = (found.x0 - truth).abs(), ~found.doubtful[:, None]
            covered.append(away <= 1.96 * found.error + 1e-5)
            missed.append(away[sure])
            certain.append(sure)
            for image, error in zip(sure, found.error, strict=True):
                assert float(error[image].square().sum()) <= 0.02**2 * error.numel()
        assert torch.stack(covered).float().mean() >= 0.9
        assert float(torch.cat(missed).square().mean()) <= 0.02**2
        if level < 0.5:  # at less noise few of so few candidates count at all
            assert torch.stack(certain).float().mean() > 0.5


def test_draws_are_fewer_than_the_candidates(digits, bank, few):
    """At high noise a few shared draws do for all pixels: the error is not that of looking at everything."""
    alpha_bar = LEVELS[-1:].expand(2)
    found = MACHINES["els"](bank, scales=3, accuracy=0.1).estimate(noisy(digits[400:402], alpha_bar), alpha_bar)
    assert not bool(found.doubtful.any())
    assert 0.005 < float(found.error.mean()) <= 0.1


@pooled
def test_where_all_candidates_are_looked_at_it_is_exact(name, digits):
    images = digits[:40]
    exact, drawn = (MACHINES[name](images, scales=3, accuracy=accuracy) for accuracy in ("exact", 1e-6))
    alpha_bar = LEVELS
    x_t = noisy(digits[400:404], alpha_bar)
    found = drawn.estimate(x_t, alpha_bar)
    assert_close(found.x0, exact(x_t, alpha_bar), rtol=1e-5, atol=1e-5)
    assert float(found.error.max()) == 0.0
    assert not bool(found.doubtful.any())


@pytest.mark.parametrize("patch_size", [3, 5, 7, 9])
@pooled
def test_tiles_of_any_size_look_at_the_candidates_of_their_pixels(name, patch_size):
    """Windows reach beyond the border, colours count together, and the last tile of a row is cut off."""
    images = random_images(5, 3, 12, 15).float()
    exact, drawn = (MACHINES[name](images, scales=patch_size, accuracy=accuracy) for accuracy in ("exact", 1e-6))
    pixels = np.concatenate([tiles.pixels[tiles.pixels >= 0] for tiles in tilings(drawn, patch_size)])
    assert len(np.unique(pixels)) == len(pixels)
    alpha_bar = LEVELS[2:]
    x_t = noisy(random_images(2, 3, 12, 15).float().flip(3), alpha_bar)
    found = drawn.estimate(x_t, alpha_bar)
    assert_close(found.x0, exact(x_t, alpha_bar), rtol=1e-5, atol=1e-5)
    assert float(found.error.max()) == 0.0


@pooled
def test_draws_that_do_not_do_are_followed_by_all(name, digits, bank, monkeypatch):
    monkeypatch.setattr(approximate, "ALL", 0)
    exact, drawn = (MACHINES[name](bank, scales=3, accuracy=accuracy) for accuracy in ("exact", 1e-9))
    alpha_bar = LEVELS[1:2]
    x_t = noisy(digits[400:401], alpha_bar)
    found = drawn.estimate(x_t, alpha_bar)
    assert_close(found.x0, exact(x_t, alpha_bar), rtol=1e-5, atol=1e-5)
    assert not bool(found.doubtful.any())


def test_what_cannot_be_reached_is_doubtful(digits, bank, few):
    machine = MACHINES["els"](bank, scales=3, accuracy=1e-9)
    alpha_bar = LEVELS[2:3]
    assert bool(machine.estimate(noisy(digits[400:401], alpha_bar), alpha_bar).doubtful.all())
    assert machine.doubtful == 1.0


def test_far_from_all_images_the_error_holds_and_is_no_larger_than_pixels_can_differ(bank, few):
    """There, what cells are described as promises weights beyond any number."""
    exact, drawn = (MACHINES["els"](bank, scales=5, accuracy=accuracy) for accuracy in ("exact", 0.02))
    for x_t in (torch.full((1, 1, 8, 8), 3.0), 2 * torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))):
        for alpha_bar in levels(0.5, 0.99):
            found = drawn.estimate(x_t, alpha_bar[None])
            assert bool(((found.error >= 0) & (found.error <= 2)).all())
            away = (found.x0 - exact(x_t, alpha_bar[None])).abs()
            assert bool(((away <= 2 * found.error + 1e-4) | found.doubtful[:, None]).float().mean() >= 0.9)


@pooled
def test_the_seed_alone_tells_draws_apart(name, digits, bank, few):
    alpha_bar = LEVELS[2:3].expand(3)
    x_t = noisy(digits[400:403], alpha_bar)
    machine = MACHINES[name](bank, scales=3, accuracy=0.05)
    first = machine(x_t, alpha_bar)
    assert bool((MACHINES[name](bank, scales=3, accuracy=0.05)(x_t, alpha_bar) == first).all())
    assert bool(
        (machine.replica(x_t, alpha_bar) == MACHINES[name](bank, scales=3, accuracy=0.05, seed=1)(x_t, alpha_bar)).all()
    )
    assert float((machine.replica(x_t, alpha_bar) - first).abs().max()) > 1e-4
    # Alone, beside others, in another order.
    assert_close(machine(x_t[1:2], alpha_bar[:1]), first[1:2], rtol=1e-5, atol=1e-5)
    assert_close(machine(x_t.flip(0), alpha_bar), first.flip(0), rtol=1e-5, atol=1e-5)


def test_portions_and_threads_change_nothing(digits, bank, few, monkeypatch):
    alpha_bar = LEVELS[2:3].expand(3)
    x_t = noisy(digits[400:403], alpha_bar)
    first = MACHINES["els"](bank, scales=3, accuracy=0.05)(x_t, alpha_bar)
    monkeypatch.setattr(approximate, "TILES", 17)
    for name in ("EXPECTED", "ROOM"):
        monkeypatch.setattr(looking, name, 17)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert_close(MACHINES["els"](bank, scales=3, accuracy=0.05)(x_t, alpha_bar), first, rtol=1e-5, atol=1e-5)
    finally:
        torch.set_num_threads(threads)


@pooled
def test_a_class_is_a_bank_of_its_own_and_bytes_are_pixels(name, digits, few):
    images, labels = digits[:300], torch.arange(300) % 2
    bytes_ = ((images + 1) * 127.5).round().to(torch.uint8)
    images = bytes_.float() / 127.5 - 1
    alpha_bar = LEVELS[1:3]
    x_t = noisy(digits[400:402], alpha_bar)
    both = MACHINES[name](images, labels, scales=3, accuracy=0.05)(x_t, alpha_bar, torch.tensor([1, 0]))
    for k, label in enumerate((1, 0)):
        alone = MACHINES[name](bytes_[labels == label], scales=3, accuracy=0.05)
        assert_close(alone(x_t[k : k + 1], alpha_bar[k : k + 1]), both[k : k + 1], rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="no training image with label 7"):
        MACHINES[name](images, labels, scales=3, accuracy=0.05)(x_t, alpha_bar, torch.tensor([1, 7]))


def test_sweeps_draw_too(digits, bank, few):
    machine = MACHINES["bbels"](bank, scales=3, accuracy=0.05)
    alpha_bar = LEVELS[2:3]
    x_t = noisy(digits[400:401], alpha_bar)
    for size, found in zip((3, 5), machine.sweep(x_t, alpha_bar, [3, 5]), strict=True):
        assert_close(found, MACHINES["bbels"](bank, scales=size, accuracy=0.05)(x_t, alpha_bar), rtol=0, atol=0)


def test_exact_is_the_default_and_what_auto_takes_for_a_small_bank(digits, bank):
    alpha_bar = LEVELS[2:3]
    x_t = noisy(digits[400:401], alpha_bar)
    plain, auto = MACHINES["els"](bank, scales=3), MACHINES["els"](bank, scales=3, accuracy="auto")
    assert plain.accuracy == "exact"
    assert plain.replica is None
    assert auto.replica is None
    assert bool((auto(x_t, alpha_bar) == plain(x_t, alpha_bar)).all())
    assert float(plain.estimate(x_t, alpha_bar).error.max()) == 0.0


def test_auto_draws_from_a_large_bank_and_on_a_gpu_from_a_larger_one(bank, monkeypatch):
    monkeypatch.setattr("elslightning.machines.drawing.AUTO_FROM", 1)
    machine = MACHINES["bbels"](bank, scales=3, accuracy="auto")
    assert machine.replica.seed == machine.seed + 1
    elsewhere = copy.copy(machine)
    elsewhere.images = machine.images.to("meta")  # as a GPU, which goes through all of them in less time
    assert not elsewhere.draws
    monkeypatch.setattr("elslightning.machines.drawing.AUTO_FROM_GPU", 1)
    assert elsewhere.draws


@pytest.mark.parametrize("accuracy", [0.0, -0.1, 1.5, float("nan"), "rough", True])
def test_an_accuracy_is_exact_auto_or_a_standard_error(accuracy, bank):
    with pytest.raises(InputError, match="accuracy must be exact, auto, or a standard error"):
        MACHINES["bbels"](bank, scales=3, accuracy=accuracy)


def test_candidates_are_drawn_as_often_as_their_probability_says(bank):
    """Those of cells that are gone through by their codes, the others by their cell; over many seeds."""
    alpha_bar, budget = LEVELS[1], 300.0
    machine = MACHINES["els"](bank, scales=3, accuracy=0.02)
    (tiles,) = tilings(machine, 3)
    clean = Candidates(bank.flatten(2).numpy(), np.arange(len(bank)), tiles.table)
    cells = build(clean, seed=1, threads=1, each=200)
    region = noisy(bank[:1], alpha_bar[None]).flatten(2).numpy()[:, :, tiles.asked[9]].reshape(1, -1)
    drawn, counts, wholes = np.zeros(len(clean)), [], []
    for seed in range(300):
        pool = Draws(clean, cells, float(alpha_bar), seed)
        features, along = pool.expected.features(region)
        near, far, each, chosen = (np.empty(len(clean), np.int64) for _ in range(4))
        apart, likely = (np.empty(len(clean), np.float32) for _ in range(2))
        scores = np.empty(len(clean) + SCANNED, np.uint8)
        expected = (features @ pool.expected.keys)[0]
        cells_ = (
            expected,
            expected.view(np.int32),
            cells.sizes,
            pool.logs,
            3000,
            np.float32(budget),
            pool.chances,
            np.uint32(pool.seed),
        )
        close, away, left, outside, _ = _cells(*cells_, near, far, each, apart)
        codes = (cells.centres, cells.steps, pool.rate, pool.signal, cells.places, cells.codes)
        where = (near[:close], far[:away], each, apart, along[0], *codes, cells.order, cells.starts, pool.offsets)
        count, missed = _chosen(*where, left, np.uint32(pool.seed), pool.dice, scores, chosen, likely)
        assert 0 < outside < 1
        assert 0 <= missed < 1
        assert len(np.unique(chosen[:count])) == count
        assert bool(((likely[:count] > 0) & (likely[:count] <= 1)).all())
        drawn[chosen[:count]] += 1 / likely[:count]
        counts.append(count)
        wholes.append((1 / likely[:count]).sum())
    assert abs(np.mean(counts) / budget - 1) < 0.1
    # Horvitz and Thompson: every candidate counts once, in the mean.
    assert abs(np.mean(wholes) - len(clean)) < 4 * np.std(wholes) / math.sqrt(300)
    assert np.std(wholes) < len(clean)
    often = drawn[drawn > 0] / 300
    assert abs(np.median(often) - 1) < 0.5


def test_codes_promise_about_the_log_weight_that_a_candidate_has(bank):
    images = bank.flatten(2).numpy()
    candidates = Candidates(images, np.arange(len(images)), np.arange(64)[None])
    cells = build(candidates, seed=0, threads=1, each=50)
    found = np.empty((len(candidates), 16))
    for cell, (first, last) in enumerate(zip(cells.starts[:-1], cells.starts[1:], strict=True)):
        groups = -(-(last - first) // SCANNED)
        mine = cells.codes[cells.places[cell] :][: groups * 8 * SCANNED].reshape(groups, 8, SCANNED)
        mine = mine.transpose(1, 0, 2).reshape(8, -1)[:, : last - first]
        steps = np.stack([mine & 15, mine >> 4], axis=1).reshape(16, -1).T - 7.5
        found[cells.order[first:last]] = cells.centres[cell] + steps * cells.steps
    along = (images[:, 0].astype(np.float64) - cells.centre) @ cells.basis
    left = (found - along).std(axis=0) / along.std(axis=0)
    assert bool((np.abs(found - along).mean(axis=0) < cells.steps).all())
    assert float(left.mean()) < 0.3


def test_scores_are_what_codes_promise_in_steps(bank):
    """For each direction the squared distance of a code, less what all codes of the cell have in common."""
    images = bank.flatten(2).numpy()
    candidates = Candidates(images, np.arange(len(images)), np.arange(25)[None])
    cells = build(candidates, seed=0, threads=1, each=100)
    region = noisy(bank[:1], levels(0.8)).flatten(2).numpy()[:, 0, :25]
    pool = Expectation(candidates, cells, 0.8)
    (along,), rate, signal, unit = pool.features(region)[1], np.float32(3), np.float32(pool.signal), np.float32(0.5)
    for cell, size in enumerate(cells.sizes):
        groups, steps, centre = -(-size // SCANNED), cells.steps.astype(float), cells.centres[cell].astype(float)
        codes = cells.codes[cells.places[cell] :][: groups * 8 * SCANNED].reshape(groups, 8, SCANNED)
        codes = np.stack([codes & 15, codes >> 4], axis=2).transpose(0, 3, 1, 2).reshape(-1, 16)[:size]
        least = rate * np.maximum(np.abs(along - signal * centre) - 7.5 * signal * steps, 0) ** 2
        parts = rate * (along - signal * (centre + (codes - 7.5) * steps)) ** 2
        brute = np.floor(np.minimum((parts - least) / unit + 0.5, 255)).sum(axis=1) + 7
        scores, tables = np.empty(size + SCANNED, np.uint8), np.zeros((16, 16), np.uint8)
        options = (along, cells.centres[cell], cells.steps, rate, signal, 7, unit, cells.codes)
        _scanned(*options, cells.places[cell], size, tables, scores)
        # Rounding may go either way at a half.
        assert np.abs(scores[:size] - np.minimum(brute, 255)).max() <= 1
        assert (scores[:size] == np.minimum(brute, 255)).mean() > 0.95
        assert abs(_least(*options[:5]) - least.sum()) < 1e-4 * (1 + least.sum())


@pytest.mark.parametrize("far", np.float32([10, 1e3, 1e4]))
def test_far_away_codes_that_are_nearer_have_no_greater_scores(far):
    """What all codes have in common is millions there, and rounding leaves less than nothing of the nearest."""
    random = np.random.default_rng(0)
    codes, scores = np.zeros(8 * SCANNED, np.uint8), np.empty(SCANNED, np.uint8)
    for _ in range(50):
        along, centre, steps = (random.normal(size=16).astype(np.float32) for _ in range(3))
        tables, steps = np.zeros((16, 16), np.uint8), 0.1 * np.abs(steps)
        options = (np.float32(3), np.float32(0.9), 0, np.float32(0.25), codes, 0, 1, tables, scores)
        _scanned(far + np.abs(along), centre, steps, *options)
        assert (np.diff(tables.astype(int), axis=1) <= 0).all()


def test_a_die_is_above_a_score_as_often_as_its_probability_says():
    """P(D > t) = 2^(-FALL t) for every whole t: dice are geometric."""
    dice = thrown((np.arange(2**16) + 0.5) / 2**16)
    for t in range(64):
        assert abs((dice > t).mean() - 2 ** (-FALL * t)) < 2**-15
    scores = np.repeat(np.arange(0, 240, 8, dtype=np.uint8), 1000)
    numbers, chosen = np.arange(len(scores), dtype=np.int32), np.empty(len(scores), np.int32)
    likely = np.empty(len(scores), np.float32)
    low, most, missed = _threshold(np.concatenate([scores, scores[:SCANNED]]), len(scores), 2000.0)
    shuffled = np.random.default_rng(0).permutation(dice)
    found = _draw(
        np.concatenate([scores, scores[:SCANNED]]), len(scores), shuffled, (low, most), numbers, chosen, likely
    )
    probable = 2.0 ** (-FALL * np.minimum(most, np.maximum(0, scores.astype(int) - low)))
    assert 0.8 < probable.sum() / 2000 < 1.2
    assert abs(found - probable.sum()) < 4 * math.sqrt((probable * (1 - probable)).sum())
    assert_close(torch.tensor(likely[:found]), torch.tensor(probable[chosen[:found]]).float())
    assert set(np.flatnonzero(probable == 1)) <= set(chosen[:found])
    weights = 2.0 ** (-0.25 * scores.astype(float))
    assert abs(missed - (weights * (1 - probable)).sum() / weights.sum()) < 1e-3


@pytest.mark.parametrize("patch_size", [3, 11, 17])
def test_regions_of_bytes_are_those_that_are_taken_one_by_one(patch_size):
    bank = (random_images(6, 3, 20, 21) * 127.5 + 127.5).round().to(torch.uint8)
    machine = MACHINES["bbels"](bank, scales=patch_size, accuracy=0.02)
    padded = np.zeros((8, 3, 420), np.uint8)
    padded[1:-1] = bank.flatten(2).numpy()
    for tiles in tilings(machine, patch_size):
        numbers = np.random.default_rng(0).integers(0, 6 * len(tiles.table), PART)
        height, width = tiles.geometry[:2]
        brute = np.empty((PART, 3 * height * width), np.float32)
        out = np.zeros((3 * height * width + PART, PART), np.float32)
        signal = np.float32(0.7)
        take_patches(padded[1:-1], np.arange(6), tiles.table, numbers, BYTES, signal, brute)
        places = (numbers // len(tiles.table) + 1) * 1260 + tiles.origins[numbers % len(tiles.table)]
        factor = signal / np.float32(127.5)
        shape = (3, height, width)
        _take(padded.reshape(-1), places, 21, 420, shape, tiles.beyond, factor, -signal, out)
        inside = np.tile(tiles.table[numbers % len(tiles.table)] >= 0, (1, 3))
        beyond = np.tile(np.isin(np.arange(height * width), tiles.beyond), 3)
        assert bool((inside | beyond).any(axis=0).all())
        assert_close(torch.tensor(out[:-PART].T[inside]), torch.tensor(brute[inside]), rtol=0, atol=1e-6)
        assert float(np.abs(out[:-PART][beyond]).sum()) == 0.0


@compiled
def _cells(*arguments):
    return choose_cells(*arguments)


@compiled
def _chosen(*arguments):
    return choose_candidates(*arguments)


@compiled
def _scanned(along, centre, steps, rate, signal, base, unit, codes, first, count, tables, scores):
    scan(along, centre, steps, rate, signal, base, unit, codes, first, count, tables, scores, 0)


@compiled
def _least(along, centre, steps, rate, signal):
    return nearness(along, centre, steps, rate, signal)


@compiled
def _threshold(scores, count, draws):
    return threshold(scores, count, np.float32(0.25), draws, 0.1, 2**20)


@compiled
def _draw(scores, count, dice, limits, numbers, chosen, likely):
    return draw(scores, 0, count, dice, 77, limits, numbers, 0, chosen, likely, 0)


@compiled
def _take(memory, places, across, plane, shape, beyond, scale, shift, out):
    take_regions(memory, places, across, plane, shape, beyond, scale, shift, out)


def test_more_draws_go_where_they_bring_most():
    """A tile of four times the variance for as many draws gets twice as many of them (Neyman)."""
    draws, variances = np.array([100.0, 100.0, 100.0]), np.array([4.0, 1.0, 0.0])
    wanted = approximate.more_draws(draws, variances, 1.0)
    assert abs((variances * draws / wanted).sum() - 1.0) < 1e-6
    assert abs(wanted[0] / wanted[1] - 2) < 1e-6
    assert wanted[2] == 100
    assert (approximate.more_draws(draws, variances, 1e-9)[:2] == approximate.GROWTH * 100).all()
    assert (approximate.more_draws(draws, variances, 100.0) == draws).all()


def test_what_a_gaussian_cell_is_expected_to_add_is_what_it_adds(monkeypatch):
    """N sqrt(E w²), in closed form against many samples of the Gaussian."""
    monkeypatch.setattr(foreseeing, "TAILS", 1.0)
    random = np.random.default_rng(0)
    variances = np.array([0.02, 0.01, 0.005, 0.001])
    images = (0.1 + random.normal(size=(200_000, 1, 4)) * np.sqrt(variances)).astype(np.float32)
    candidates = Candidates(images, np.arange(len(images)), np.arange(4)[None])
    cells = build(candidates, seed=0, threads=1, each=len(images))
    alpha_bar, region = 0.6, np.array([[0.3, -0.1, 0.2, 0.1]], np.float32)
    expected = Expectation(candidates, cells, alpha_bar)
    away = region - np.sqrt(alpha_bar) * images[:, 0]
    logs = -(away.astype(np.float64) ** 2).sum(axis=1) / (2 * (1 - alpha_bar))
    brute = np.log2(len(images) * np.sqrt(np.exp(2 * logs).mean()))
    assert expected.keys.shape[1] == 1
    assert abs(float((expected.features(region)[0] @ expected.keys)[0, 0]) - brute) < 1e-3


def test_cells_hold_every_candidate_once_and_are_described_as_they_are(bank):
    images = bank.flatten(2).numpy()
    table = np.arange(64).reshape(8, 8)[:3, :3].reshape(1, 9) + np.arange(6)[:, None]
    candidates = Candidates(images, np.arange(len(images)), table)
    cells = build(candidates, seed=3, threads=2, each=100)
    assert (np.sort(cells.order) == np.arange(len(candidates))).all()
    assert len(cells.sizes) > 10
    patches = candidates.of(np.arange(len(candidates)))
    brute = np.stack([image[0][table[k]] for image in images for k in range(6)])
    assert (patches == brute).all()
    along = (patches.astype(np.float64) - cells.centre) @ cells.basis
    for cell in np.flatnonzero(cells.sizes):
        mine = along[cells.order[cells.starts[cell] : cells.starts[cell + 1]]]
        assert_close(torch.tensor(cells.means[cell]), torch.tensor(mine.mean(axis=0)).float(), rtol=1e-4, atol=1e-4)
        assert_close(torch.tensor(cells.variances[cell]), torch.tensor(mine.var(axis=0)).float(), rtol=1e-3, atol=1e-4)
