"""Beyond the trivial: what is left of a theory's agreement when all that simple machines know is taken away."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from elslightning.measurement.agreement import agreement
from elslightning.measurement.trivial import KNOWN, beyond_trivial
from elslightning.testing import random_images, random_noise

SHAPE = (5, 2, 4, 6)
ONES, NONE = torch.ones(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)


@pytest.fixture
def truth():
    return random_images(*SHAPE)


@pytest.fixture
def trivial():
    return [random_noise(*SHAPE, seed=seed) for seed in (1, 2, 3)]


@pytest.fixture
def prediction(truth, trivial):
    return 0.4 * truth + 0.8 * trivial[0] - 0.2 * trivial[2] + 0.5 * random_noise(*SHAPE, seed=4)


def test_it_is_the_correlation_of_what_least_squares_leave(prediction, truth, trivial):
    found = beyond_trivial(prediction, truth, trivial)
    for i in range(len(truth)):
        columns = np.stack([np.ones(48), *(one[i].flatten().numpy() for one in trivial)], axis=1)
        both = (prediction[i].flatten().numpy(), truth[i].flatten().numpy())
        left = [image - columns @ np.linalg.lstsq(columns, image, rcond=None)[0] for image in both]
        assert found[i].item() == pytest.approx(np.corrcoef(*left)[0, 1], abs=1e-12)
    assert found.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_theory_that_knows_only_what_the_trivial_know_gets_nothing(truth, trivial, dtype):
    """Even one that predicts the truth well: where the truth itself is nearly trivial."""
    nearly = trivial[0] + 0.5 * trivial[1] + 0.3 * truth
    theory = (0.9 * trivial[0] + 0.4 * trivial[1] - 0.1 * trivial[2] + 2).to(dtype)
    known = [one.to(dtype) for one in trivial]
    assert agreement(theory, nearly)["pearson_r"].min() > 0.7
    assert_close(beyond_trivial(theory, nearly.to(dtype), known), NONE, rtol=0, atol=0)
    assert_close(beyond_trivial(truth.to(dtype), theory, known), NONE, rtol=0, atol=0)


def test_identical_images_are_predicted_entirely(truth, trivial):
    assert_close(beyond_trivial(truth, truth, trivial), ONES)
    assert_close(beyond_trivial(-truth, truth, trivial), -ONES)


def test_what_is_added_of_the_trivial_changes_nothing(prediction, truth, trivial):
    found = beyond_trivial(prediction, truth, trivial)
    assert_close(beyond_trivial(3 * prediction + trivial[1] - 1, truth - 2 * trivial[0] + 0.5, trivial), found)
    mixed = [trivial[0] + trivial[1], trivial[1], trivial[2] - trivial[0] + 1]
    assert_close(beyond_trivial(prediction, truth, mixed), found)


def test_trivial_samples_may_depend_on_each_other(prediction, truth, trivial):
    again = [*trivial, trivial[0].clone(), 2 * trivial[1] - trivial[2], torch.full_like(truth, 0.3)]
    assert_close(beyond_trivial(prediction, truth, again), beyond_trivial(prediction, truth, trivial))


def test_with_nothing_taken_away_it_is_pearson_r(prediction, truth):
    assert_close(beyond_trivial(prediction, truth, []), agreement(prediction, truth)["pearson_r"])


def test_an_image_without_variance_predicts_nothing(truth, trivial):
    flat = torch.full_like(truth, 0.1)
    assert torch.equal(beyond_trivial(flat, truth, trivial), NONE)
    assert torch.equal(beyond_trivial(truth, flat, trivial), NONE)


def test_the_trivial_are_the_mean_a_linear_denoiser_and_recall():
    assert set(KNOWN) == {"mean", "wiener", "is"}
