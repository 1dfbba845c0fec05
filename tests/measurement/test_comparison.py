"""Measures of agreement against independent implementations, and what a comparison makes of them."""

import numpy as np
import pytest
import sklearn.metrics
import torch
import torchmetrics.functional as tmf
from denoisers import MACHINES
from torch.testing import assert_close

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.sampling import sample
from elslightning.diffusion.schedule import CosineSchedule
from elslightning.measurement import agreement as agreement_module
from elslightning.measurement.agreement import MEASURES, agreement, median_interval
from elslightning.measurement.comparing import compare
from elslightning.measurement.comparison import FURTHER, Comparison
from elslightning.measurement.consistency import consistency
from elslightning.measurement.novelty import nearest_ratio
from elslightning.measurement.trivial import beyond_trivial
from elslightning.system.errors import InputError
from elslightning.testing import random_images, random_noise

SCHEDULE = CosineSchedule()


@pytest.fixture
def truth():
    return random_images(5, 3, 4, 6)


@pytest.fixture
def prediction(truth):
    """From nearly the truth to nothing like it, and once its negative."""
    weight = torch.tensor([0.99, 0.7, 0.3, 0.0, -1.0], dtype=torch.float64)[:, None, None, None]
    return weight * truth + 0.2 * random_noise(5, 3, 4, 6) + 0.1


def test_agreement_is_that_of_numpy_and_sklearn(prediction, truth):
    measured = agreement(prediction, truth)
    assert tuple(measured) == MEASURES
    for i in range(len(truth)):
        a, b = prediction[i].flatten().numpy(), truth[i].flatten().numpy()
        r = np.corrcoef(a, b)[0, 1]
        expected = {
            "pearson_r": r,
            "pearson_r2": r**2,
            "r2_score": sklearn.metrics.r2_score(b, a),
            "cosine": a @ b / np.linalg.norm(a) / np.linalg.norm(b),
            "mse": sklearn.metrics.mean_squared_error(b, a),
        }
        assert {name: values[i].item() for name, values in measured.items()} == pytest.approx(expected, rel=1e-10)


def test_agreement_is_that_of_torchmetrics(prediction, truth):
    measured = agreement(prediction, truth)
    columns = prediction.flatten(1).T, truth.flatten(1).T  # (pixel, pair): a pair is an output
    assert_close(measured["pearson_r"], tmf.pearson_corrcoef(*columns), rtol=1e-8, atol=0)
    assert_close(measured["r2_score"], tmf.r2_score(*columns, multioutput="raw_values"), rtol=1e-8, atol=0)
    assert_close(measured["mse"], tmf.mean_squared_error(*columns, num_outputs=5), rtol=1e-8, atol=0)
    rows = prediction.flatten(1), truth.flatten(1)
    assert_close(measured["cosine"].float(), tmf.cosine_similarity(*rows, reduction="none"), rtol=1e-6, atol=0)


def test_perfect_agreement(truth):
    perfect = {"pearson_r": 1, "pearson_r2": 1, "r2_score": 1, "cosine": 1, "mse": 0}
    for name, values in agreement(truth, truth).items():
        assert_close(values, torch.full((5,), float(perfect[name]), dtype=torch.float64), rtol=0, atol=1e-12)


def test_pearson_alone_is_blind_to_brightness_and_contrast(truth):
    measured = agreement(0.5 * truth + 0.3, truth)
    assert_close(measured["pearson_r"], torch.ones(5, dtype=torch.float64))
    assert (measured["r2_score"] < 0.9).all()
    assert (measured["cosine"] < 0.99).all()
    assert (measured["mse"] > 0.01).all()


def test_float32_images_are_measured_in_float64(prediction, truth):
    for name, values in agreement(prediction.float(), truth.float()).items():
        assert values.dtype == torch.float64
        assert_close(values, agreement(prediction, truth)[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("value", [-1.0, 0.0, 0.5, 0.1])
def test_image_without_variance_has_no_correlation(truth, value):
    """The mean of equal pixels may be off by rounding: that is no variance."""
    flat = torch.full_like(truth, value)
    assert_close(agreement(flat, truth)["pearson_r"], torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-12)
    measured = agreement(truth, flat)
    assert_close(measured["pearson_r"], torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (measured["r2_score"] == 0).all()
    assert all(values.isfinite().all() for values in measured.values())


# The median and its interval ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 9, 30])
def test_interval_contains_the_median(count):
    values = random_noise(count)
    median, low, high = median_interval(values)
    assert median == pytest.approx(np.median(values.numpy()))
    assert low <= median <= high
    assert values.min() <= low
    assert high <= values.max()


def test_interval_shrinks_with_the_square_root_of_the_number_of_pairs():
    widths = [high - low for _, low, high in (median_interval(random_noise(n)) for n in (40, 640))]
    assert widths[1] / widths[0] == pytest.approx(1 / 4, rel=0.5)


def test_interval_is_deterministic_and_leaves_the_global_generator_alone():
    state, first = torch.get_rng_state(), median_interval(random_noise(20))
    agreement_module._resampled.cache_clear()
    assert median_interval(random_noise(20)) == first
    assert torch.equal(torch.get_rng_state(), state)


def test_lower_level_gives_a_narrower_interval():
    _, low, high = median_interval(random_noise(30))
    _, narrow_low, narrow_high = median_interval(random_noise(30), level=0.5)
    assert low < narrow_low < narrow_high < high


def test_interval_covers_the_true_median_as_often_as_it_says():
    hits = []
    for seed in range(200):
        _, low, high = median_interval(random_noise(25, seed=seed), resamples=400)
        hits.append(low <= 0 <= high)
    assert np.mean(hits) == pytest.approx(0.95, abs=0.04)


# Comparisons ----------------------------------------------------------------------------------------------


@pytest.fixture
def images():
    return random_images(6, 1, 5, 5)


@pytest.fixture
def noise():
    return random_noise(4, 1, 5, 5)


@pytest.fixture
def machines(images):
    return {name: MACHINES[name](images, scales=3) for name in ("bbels", "ls", "is")}


@pytest.fixture
def comparison(machines, noise):
    """The local machine plays the network."""
    return compare(machines["ls"], machines, SCHEDULE, steps=3, network_steps=[3, 5], noise=noise)


def test_machine_agrees_with_itself(comparison):
    assert_close(comparison.values("ls", 3), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-12)
    assert comparison.values("ls", 3, "mse").max() <= 1e-20
    assert comparison.values("ls", 5).max() < 1 - 1e-6
    assert comparison.values("is", 3).max() < 0.99


def test_a_row_per_machine_network_steps_and_pair(comparison):
    expected = [(name, count, pair) for name in ("bbels", "ls", "is") for count in (3, 5) for pair in range(4)]
    assert [(row["machine"], row["network_steps"], row["pair"]) for row in comparison.rows] == expected
    columns = ["pair", "label", "machine", "steps", "network_steps", *MEASURES, *FURTHER]
    assert all(list(row) == columns for row in comparison.rows)
    assert {row["steps"] for row in comparison.rows} == {3}
    assert {row["label"] for row in comparison.rows} == {None}


def test_rows_measure_the_samples(comparison, machines, noise):
    network, machine = (sample(machines[name], noise, SCHEDULE, steps) for name, steps in (("ls", 5), ("bbels", 3)))
    assert_close(comparison.network[5], network, rtol=1e-10, atol=1e-10)
    assert_close(comparison.machines["bbels"], machine, rtol=1e-10, atol=1e-10)
    for measure, values in agreement(machine, network).items():
        assert_close(comparison.values("bbels", 5, measure), values, rtol=1e-8, atol=1e-8)


def test_labels_go_to_conditional_machines_and_into_the_rows(images, noise):
    classes, labels = torch.arange(6) % 2, torch.tensor([1, 0, 0, 1])
    conditional, plain = MACHINES["ls"](images, classes, scales=3), MACHINES["ls"](images, scales=3)
    comparison = compare(
        conditional, {"ls": conditional, "plain": plain}, SCHEDULE, steps=2, network_steps=2, noise=noise, labels=labels
    )
    assert comparison.values("ls", 2).min() > 1 - 1e-12
    assert comparison.values("plain", 2).max() < 1 - 1e-6
    assert [row["label"] for row in comparison.rows] == [1, 0, 0, 1] * 2
    assert torch.equal(comparison.labels, labels)


def test_result_does_not_depend_on_the_batch_size(comparison, machines, noise):
    other = compare(machines["ls"], machines, SCHEDULE, steps=3, network_steps=[3, 5], noise=noise, batch_size=3)
    for row, expected in zip(other.rows, comparison.rows, strict=True):
        for measure in MEASURES:
            assert row[measure] == pytest.approx(expected[measure], rel=1e-8, abs=1e-8)


def test_summary_has_medians_intervals_and_shares(comparison):
    summary = comparison.summary()
    assert (summary["pairs"], summary["steps"]) == (4, 3)
    assert list(summary["machines"]) == ["bbels", "ls", "is"]
    for name, by_steps in summary["machines"].items():
        assert list(by_steps) == ["3", "5"]
        for steps, entry in by_steps.items():
            further = ["beyond_trivial", "beyond_share_of_ceiling", "difference", "memorised"]
            shares = ["beats_is", "share_of_ceiling", "consistency", "network_consistency"]
            assert list(entry) == [*MEASURES, *shares, *further]
            for measure in MEASURES:
                median, low, high = median_interval(comparison.values(name, int(steps), measure))
                assert entry[measure] == {"median": median, "low": low, "high": high}
            assert entry["beats_is"] == comparison.share_beating_baseline(name, int(steps))
            assert entry["share_of_ceiling"] is None
            assert entry["consistency"] == comparison.median_consistency(name)
            assert entry["network_consistency"] == comparison.median_consistency(name, int(steps))
    assert summary["machines"]["is"]["3"]["beats_is"] is None


def scripted(peers=(), **values):
    """A comparison with given Pearson r of machines and `peers`."""
    rows = [
        {"pair": pair, "machine": name, "network_steps": 20, "pearson_r": r}
        for name, column in values.items()
        for pair, r in enumerate(column)
    ]
    images = torch.zeros(4, 1, 1, 1)
    machines = {name: images for name in values if name not in peers}
    return Comparison(rows, {20: images}, machines, None, {name: {20: images} for name in peers})


def test_share_counts_pairs_on_which_a_machine_beats_is():
    comparison = scripted(ls=[0.9, 0.1, 0.5, 0.7], **{"is": [0.8, 0.2, 0.5, 0.6]})
    assert comparison.share_beating_baseline("ls", 20) == 0.5
    assert comparison.share_beating_baseline("is", 20) is None
    assert scripted(ls=[0.9, 0.1, 0.5, 0.7]).share_beating_baseline("ls", 20) is None


def test_table_has_a_line_per_machine_and_network_steps(comparison):
    heading, *lines = comparison.table().splitlines()
    assert "median r" in heading
    assert [line.split()[:2] for line in lines] == [[name, n] for name in ("bbels", "ls", "is") for n in ("3", "5")]
    for line in lines:
        name, steps, median = line.split()[:3]
        assert float(median) == pytest.approx(comparison.values(name, int(steps)).quantile(0.5).item(), abs=6e-4)


@pytest.fixture
def complete(images, machines, noise):
    """A comparison with the trivial machines, whose samples may be training images."""
    chosen = machines | {name: MACHINES[name](images) for name in ("wiener", "mean")}
    return compare(machines["ls"], chosen, SCHEDULE, steps=3, network_steps=3, noise=noise, bank=images)


def test_beyond_the_trivial_needs_all_trivial_machines(comparison, complete):
    assert all(row["beyond_trivial"] is None for row in comparison.rows)
    known = [complete.machines[name] for name in ("mean", "wiener", "is")]
    for name, by_steps in complete.summary()["machines"].items():
        expected = beyond_trivial(complete.machines[name], complete.network[3], known)
        assert_close(complete.values(name, 3, "beyond_trivial"), expected)
        assert by_steps["3"]["beyond_trivial"]["median"] == pytest.approx(expected.quantile(0.5).item())
    assert complete.values("ls", 3, "beyond_trivial").min() > 1 - 1e-9
    for name in ("is", "wiener", "mean"):
        assert complete.values(name, 3, "beyond_trivial").tolist() == [0.0] * 4


def test_differences_are_taken_to_the_theory_pair_by_pair(complete):
    assert complete.reference == "bbels"
    entries = {name: by_steps["3"]["difference"] for name, by_steps in complete.summary()["machines"].items()}
    assert entries.pop("bbels") is None
    for name, entry in entries.items():
        median, low, high = median_interval(complete.values(name, 3) - complete.values("bbels", 3))
        assert entry == {"median": median, "low": low, "high": high}


def test_memorised_is_the_share_of_samples_that_are_training_images_again(comparison, complete, images):
    assert {entry["3"]["memorised"] for entry in comparison.summary()["machines"].values()} == {None}
    summary = complete.summary()
    for name, by_steps in summary["machines"].items():
        ratios = nearest_ratio(complete.machines[name], images)
        assert by_steps["3"]["memorised"] == (ratios < 1 / 3).double().mean().item()
    assert summary["network"]["3"]["memorised"] == summary["machines"]["ls"]["3"]["memorised"]
    assert summary["network"]["3"]["outside"] == 0


def test_trivial_machines_have_no_patches_to_be_consistent_with(complete):
    assert {row["machine"] for row in complete.consistency} == {"bbels", "ls", "is"}


def test_the_table_shows_what_r_alone_does_not(complete):
    heading, *lines = complete.table().splitlines()
    for title in ("R²", "beyond trivial", "r - r of bbels", "memorised"):
        assert title in heading
    summary = complete.summary()["machines"]
    for line in lines:
        entry = summary[line.split()[0]]["3"]
        assert f" {entry['r2_score']['median']:.3f}  " in line
        assert f"  {entry['beyond_trivial']['median']:.3f}  " in line
        assert entry["difference"] is None or f"  {entry['difference']['median']:+.3f} (" in line
    assert len({len(line) for line in (heading, *lines)}) == 1


def test_the_share_of_what_is_beyond_the_trivial_is_that_of_the_best_network():
    rows = [
        {"pair": pair, "machine": name, "network_steps": 20, "beyond_trivial": value}
        for name, values in {"a": [0.2, 0.3, 0.6, 0.6], "b": [0.3, 0.6, 0.9, 0.9]}.items()
        for pair, value in enumerate(values)
    ]
    image = torch.zeros(4, 1, 1, 1)
    found = Comparison(rows, {20: image}, {"a": image}, None, {"b": {20: image}})
    assert found.share_of_ceiling("a", 20, "beyond_trivial") == pytest.approx(0.45 / 0.75)
    assert found.share_of_ceiling("b", 20, "beyond_trivial") is None


def test_equal_numbers_of_network_steps_count_once(machines, noise):
    once = compare(machines["ls"], machines, SCHEDULE, steps=2, network_steps=[2, 2], noise=noise)
    assert list(once.network) == [2]
    assert len(once.rows) == 12


def test_progress_names_what_is_sampled(machines, noise):
    told = []
    options = {"steps": 2, "network_steps": 1, "noise": noise, "progress": lambda *call: told.append(call)}
    compare(machines["ls"], {"is": machines["is"]}, SCHEDULE, **options)
    assert list(dict.fromkeys((what, total) for what, _, total in told)) == [
        ("network, 1 steps", 4),
        ("is, 2 steps", 8),
        ("is, consistency", 2),
    ]
    for name, ends in {"network, 1 steps": [4], "is, 2 steps": [4, 8]}.items():
        done = [done for what, done, _ in told if what == name]
        assert done == sorted(done)
        assert set(ends) <= set(done)
        assert done[-1] == ends[-1]


@pytest.mark.parametrize(("names", "pairs"), [([], 4), (["ls"], 0)])
def test_comparison_without_machines_or_pairs_is_refused(machines, noise, names, pairs):
    chosen = {name: machines[name] for name in names}
    with pytest.raises(InputError, match="at least one machine and one pair"):
        compare(machines["ls"], chosen, SCHEDULE, steps=2, network_steps=2, noise=noise[:pairs])


@pytest.mark.parametrize("steps", [{"steps": 0, "network_steps": 2}, {"steps": 2, "network_steps": [2, 0]}])
def test_process_without_steps_is_refused(machines, noise, steps):
    with pytest.raises(InputError, match="at least 1 step, not 0"):
        compare(machines["ls"], machines, SCHEDULE, noise=noise, **steps)


# Consistency ----------------------------------------------------------------------------------------------


def test_consistency_is_that_of_the_samples_of_machine_and_network(comparison, machines):
    for name, machine in machines.items():
        own = consistency(comparison.machines[name], machine)
        assert comparison.median_consistency(name) == pytest.approx(own.quantile(0.5).item())
        for steps, samples in comparison.network.items():
            under = consistency(samples, machine)
            assert comparison.median_consistency(name, steps) == pytest.approx(under.quantile(0.5).item())


def test_a_row_of_consistency_per_machine_source_and_pair(comparison):
    sources = [("own", 3), ("network", 3), ("network", 5)]
    expected = [
        (name, name if source == "own" else source, steps, pair)
        for name in ("bbels", "ls", "is")
        for source, steps in sources
        for pair in range(4)
    ]
    columns = ["pair", "label", "machine", "source", "steps", "consistency"]
    assert all(list(row) == columns for row in comparison.consistency)
    found = [(row["machine"], row["source"], row["steps"], row["pair"]) for row in comparison.consistency]
    assert found == expected


# Other networks among the machines ------------------------------------------------------------------------


class Shrinking(Denoiser):
    """A network of one parameter, which keeps the noise levels it was asked at and the first state."""

    def __init__(self, factor=0.5):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor, dtype=torch.float64))
        self.levels, self.states = [], []

    def forward(self, x_t, alpha_bar, labels=None):
        self.levels.append(alpha_bar[0].item())
        self.states.append(x_t)
        return self.factor * x_t.clamp(-1, 1)


@pytest.fixture
def peered(machines, noise):
    """A network, compared with itself, with another one and with the ideal score machine."""
    predictors = {"checkpoint": Shrinking(), "is": machines["is"], "other": Shrinking(0.9)}
    return compare(Shrinking(), predictors, SCHEDULE, steps=2, network_steps=[3, 5], noise=noise)


def test_a_network_takes_as_many_steps_as_the_one_it_is_held_against(peered, noise):
    taken = {(row["machine"], row["network_steps"], row["steps"]) for row in peered.rows}
    assert taken == {("is", 3, 2), ("is", 5, 2)} | {(n, k, k) for n in ("checkpoint", "other") for k in (3, 5)}
    assert peered.names == ["is", "checkpoint", "other"]
    for steps in (3, 5):
        assert_close(peered.samples("other", steps), sample(Shrinking(0.9), noise, SCHEDULE, steps))
        assert peered.values("checkpoint", steps).min() > 1 - 1e-12
    assert torch.equal(peered.samples("is", 3), peered.samples("is", 5))


def test_a_network_has_no_candidates_to_be_consistent_with(peered):
    assert {row["machine"] for row in peered.consistency} == {"is"}
    entry = peered.summary()["machines"]["checkpoint"]["3"]
    assert (entry["consistency"], entry["network_consistency"]) == (None, None)


def test_the_steps_of_the_summary_are_those_of_the_machines(peered, noise):
    assert peered.summary()["steps"] == 2
    alone = compare(Shrinking(), {"other": Shrinking(0.9)}, SCHEDULE, steps=2, network_steps=3, noise=noise)
    assert alone.summary()["steps"] is None
    assert alone.summary()["pairs"] == 4


def test_share_of_ceiling_is_the_ratio_of_medians():
    comparison = scripted(["b", "c"], a=[0.2, 0.3, 0.6, 0.6], b=[0.1, 0.2, 0.3, 0.9], c=[0.3, 0.6, 0.9, 0.9])
    assert comparison.share_of_ceiling("a", 20) == pytest.approx(0.45 / 0.75)
    assert comparison.share_of_ceiling("b", 20) is None
    assert comparison.share_of_ceiling("c", 20) is None


@pytest.mark.parametrize(
    ("peers", "values"), [([], {"a": [0.5] * 4}), (["b"], {"a": [0.5] * 4, "b": [-0.1] * 4})], ids=["none", "negative"]
)
def test_without_a_ceiling_there_is_no_share_of_it(peers, values):
    assert scripted(peers, **values).share_of_ceiling("a", 20) is None


def test_the_table_shows_the_share_of_the_ceiling_where_there_is_one(peered, comparison):
    assert "of ceiling" not in comparison.table()
    heading, *lines = peered.table().splitlines()
    assert heading.endswith("of ceiling")
    shares = {tuple(line.split()[:2]): line.split()[-1] for line in lines}
    for steps in (3, 5):
        assert shares["is", str(steps)] == f"{peered.share_of_ceiling('is', steps):.1%}"
        assert shares["checkpoint", str(steps)] == "–"
    assert len({len(line) for line in (heading, *lines)}) == 1


def test_machines_that_skip_leave_networks_alone(machines, noise):
    network, peer, machine = Shrinking(), Shrinking(), machines["ls"]
    late = compare(network, {"ls": machine, "peer": peer}, SCHEDULE, steps=4, network_steps=3, noise=noise, skip=1)
    assert network.levels == peer.levels == SCHEDULE.noise_levels(3).tolist()
    assert_close(late.machines["ls"], sample(machine, noise, SCHEDULE, 4, skip=1))
    assert {row["steps"] for row in late.rows if row["machine"] == "ls"} == {4}


@pytest.mark.reliability
@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_the_interval_of_many_values_is_found_in_parts_that_change_no_number(monkeypatch, count):
    """What it was before, in one part; and in parts, the generator is never asked for more than they hold."""
    values, generator = random_noise(count), torch.Generator().manual_seed(0)
    medians = values[torch.randint(count, (4000, count), generator=generator)].quantile(0.5, dim=1)
    whole = tuple(float(value) for value in (values.quantile(0.5), medians.quantile(0.025), medians.quantile(0.975)))
    asked, drawing = [], torch.randint

    def randint(high, size, **options):
        asked.append(size[0] * size[1])
        return drawing(high, size, **options)

    monkeypatch.setattr(torch, "randint", randint)
    for most in (agreement_module._DRAWN, 1000):
        monkeypatch.setattr(agreement_module, "_DRAWN", most)
        asked.clear()
        agreement_module._resampled.cache_clear()
        assert median_interval(values, level=0.95) == pytest.approx(whole, rel=0, abs=0)
        assert max(asked) <= most
        assert sum(asked) == 4000 * count
