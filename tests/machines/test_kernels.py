"""The streaming softmax: partial averages merge like sums, in any order, and log-weights keep their digits."""

import contextlib
import functools
import math
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from elslightning.machines.kernels import (
    LogWeight,
    attend,
    block_partial,
    empty_partial,
    full_precision,
    merge,
    posterior_mean,
    working_dtype,
)
from elslightning.testing import levels, random_images, random_noise

GROUPS, QUERIES, CANDIDATES, VALUES = 2, 3, 9, 4
CPU = torch.device("cpu")


@pytest.fixture(params=[1.0, 1e5], ids=["mild", "extreme"])
def log_weight(request):
    return request.param * random_noise(GROUPS, QUERIES, CANDIDATES)


@pytest.fixture
def value():
    return random_images(GROUPS, CANDIDATES, VALUES)


@pytest.fixture
def parts(log_weight, value):
    """The candidates in three blocks of unequal size."""
    cuts = [slice(0, 2), slice(2, 3), slice(3, 9)]
    return [block_partial(log_weight[:, :, cut], value[:, cut]) for cut in cuts]


def test_average_is_the_softmax_average(log_weight, value):
    expected = torch.softmax(log_weight, dim=2) @ value
    assert_close(posterior_mean(block_partial(log_weight, value)), expected, rtol=1e-12, atol=1e-12)


def test_merged_blocks_equal_the_whole(parts, log_weight, value):
    merged, whole = functools.reduce(merge, parts), block_partial(log_weight, value)
    for got, expected in zip(merged, whole, strict=True):
        assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_merge_is_commutative(parts):
    a, b, _ = parts
    for left, right in zip(merge(a, b), merge(b, a), strict=True):
        assert torch.equal(left, right)


def test_merge_is_associative(parts):
    a, b, c = parts
    for left, right in zip(merge(merge(a, b), c), merge(a, merge(b, c)), strict=True):
        assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_empty_partial_is_neutral_on_both_sides(parts):
    empty = empty_partial((GROUPS, QUERIES), VALUES, CPU)
    for merged in (merge(parts[0], empty), merge(empty, parts[0])):
        assert all(torch.equal(got, expected) for got, expected in zip(merged, parts[0], strict=True))


def test_two_empty_partials_make_an_empty_one():
    empty = empty_partial((GROUPS, QUERIES), VALUES, CPU)
    merged = merge(empty, empty)
    assert (merged.maximum == -math.inf).all()
    assert (merged.weight == 0).all()
    assert (merged.weighted == 0).all()


def test_queries_without_a_candidate_do_not_disturb_the_others(parts):
    """Per query, one side may be empty where the other is not."""
    a, b, _ = parts
    half = empty_partial((GROUPS, QUERIES), VALUES, CPU)
    for part, tensor in zip(half, a, strict=True):
        part[:, 1:] = tensor[:, 1:]
    merged, full = merge(half, b), merge(a, b)
    for got, alone, both in zip(merged, b, full, strict=True):
        assert torch.equal(got[:, :1], alone[:, :1])
        assert torch.equal(got[:, 1:], both[:, 1:])


def test_log_weights_of_any_size_stay_finite(value):
    log_weight = torch.full((GROUPS, QUERIES, CANDIDATES), -3e38)
    log_weight[:, :, 4] = 0.0
    mean = posterior_mean(block_partial(log_weight, value.float()))
    assert torch.equal(mean, value[:, 4][:, None].expand_as(mean))


@pytest.fixture
def patches():
    """Queries of two images, two each, with their candidates."""
    return random_noise(1, 4, 18), random_images(1, 10, 18), random_images(1, 10, 1, seed=5), levels(0.3, 0.98)


def test_log_weight_is_the_scaled_squared_distance_up_to_a_constant(patches):
    query, key, _, alpha_bar = patches
    signal, power = LogWeight.of(alpha_bar, 2, query)
    per_query = alpha_bar.repeat_interleave(2)[:, None]
    scaled = per_query.sqrt()[:, :, None] * key
    distance = (query[0, :, None] - scaled).square().sum(dim=2)  # (query, candidate)
    expected = -distance / (2 * (1 - per_query))
    got = signal[:, None] * (query[0] @ key[0].T) - power[:, None] * key[0].square().sum(dim=1)
    assert_close(got - got[:, :1], expected - expected[:, :1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("block", [1, 15, 10**6])
def test_attend_is_the_average_by_squared_distance_in_blocks_of_any_size(patches, block):
    query, key, value, alpha_bar = patches
    partial = empty_partial((1, 4), 1, CPU)
    for cut in (slice(0, 3), slice(3, 10)):
        partial = attend(partial, query, key[:, cut], value[:, cut], LogWeight.of(alpha_bar, 2, query), block)
    per_query = alpha_bar.repeat_interleave(2)[:, None, None]
    distance = (query[0, :, None] - per_query.sqrt() * key).square().sum(dim=2)
    expected = torch.softmax(-distance / (2 * (1 - per_query[:, :, 0])), dim=1) @ value[0]
    assert_close(posterior_mean(partial)[0], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("alpha_bar", [1e-4, 0.5, 1 - 1e-6])
def test_float64_images_are_worked_in_float64(alpha_bar):
    assert working_dtype(torch.zeros(1, dtype=torch.float64), alpha_bar, 9) == torch.float64


def test_float32_images_are_worked_in_float64_from_some_noise_level_down():
    alpha_bars = [1e-3, 0.01, 0.1, *(1 - 10 ** -(k / 4) for k in range(1, 25))]
    for dim in (9, 75, 3072):
        chosen = [working_dtype(torch.zeros(1), alpha_bar, dim) for alpha_bar in alpha_bars]
        wide = chosen.index(torch.float64)
        assert wide > 0
        assert chosen == [torch.float32] * wide + [torch.float64] * (len(chosen) - wide)


def test_more_dimensions_need_float64_earlier():
    dtypes = [working_dtype(torch.zeros(1), 0.9, dim) for dim in (1, 9, 3072, 100_000)]
    assert dtypes == [torch.float32, torch.float32, torch.float64, torch.float64]


@pytest.mark.usefixtures("unchecked")
def test_device_without_float64_keeps_float32():
    on_mps = SimpleNamespace(dtype=torch.float32, device=torch.device("mps"))
    assert working_dtype(on_mps, 1 - 1e-6, 3072) == torch.float32
    assert working_dtype(torch.zeros(1), 1 - 1e-6, 3072) == torch.float64


@pytest.mark.parametrize("dim", [9, 75, 363])
def test_float32_is_chosen_only_where_averages_keep_four_digits(dim):
    key = random_images(1, 200, dim)[0]
    tried = 0
    for alpha_bar in (1 - 10 ** -(k / 8) for k in range(1, 48)):
        query = math.sqrt(alpha_bar) * key[:20] + math.sqrt(1 - alpha_bar) * random_noise(20, dim)
        if working_dtype(query.float(), alpha_bar, dim) == torch.float64:
            break
        averages = []
        for dtype in (torch.float32, torch.float64):
            q, k = query.float().to(dtype), key.to(dtype)
            signal, power = LogWeight.of(levels(alpha_bar).expand(20), 1, q)
            log_weight = signal[:, None] * (q @ k.T) - power[:, None] * k.square().sum(dim=1)
            averages.append(torch.softmax(log_weight.double(), dim=1) @ key)
        assert_close(averages[0], averages[1], rtol=0, atol=1e-4)
        tried += 1
    assert 0 < tried < 47


@pytest.fixture
def _restored():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("_restored")
@pytest.mark.parametrize("setting", ["highest", "high", "medium"])
def test_full_precision_lasts_for_its_block_even_if_that_fails(setting):
    torch.set_float32_matmul_precision(setting)
    inside = []
    with torch.autocast("cpu"):
        with contextlib.suppress(RuntimeError), full_precision(CPU):
            inside += [torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")]
            raise RuntimeError
        assert torch.is_autocast_enabled("cpu")
    assert inside == ["highest", False]
    assert torch.get_float32_matmul_precision() == setting
