"""Measurement: settings, checks before long work, noise, and what results log and write."""

import csv
import json
from functools import partial

import numpy as np
import pytest
import torch
from tiny import digits, network, undrawn

from elslightning.data.request import Split
from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.schedule import CosineSchedule
from elslightning.diffusion.schedules.linear import LinearSchedule
from elslightning.machines import BoundaryBrokenScoreMachine, IdealScoreMachine, LocalScoreMachine, ScoreMachine
from elslightning.machines.scales import ScaleTable, load_scales
from elslightning.measurement import measurement as measurement_module
from elslightning.measurement.bringing import RememberedNetwork
from elslightning.measurement.candidates import STATISTICS
from elslightning.measurement.comparing import compare
from elslightning.measurement.doubts import doubts
from elslightning.measurement.gradients import gradient_field
from elslightning.measurement.measurement import Measurement
from elslightning.measurement.result import Result
from elslightning.measurement.settings import CalibrationSettings, ComparisonSettings
from elslightning.networks.adapter import EpsDenoiser
from elslightning.networks.resnet import ResNet
from elslightning.report import figures
from elslightning.runs.writing import write
from elslightning.system.errors import InputError
from elslightning.system.keeping import Kept
from elslightning.testing import levels, random_noise

pytestmark = pytest.mark.usefixtures("no_layout")

SCHEDULE = CosineSchedule()
MACHINES = {"bbels": BoundaryBrokenScoreMachine, "ls": LocalScoreMachine, "is": IdealScoreMachine}
TABLE = ScaleTable([0.5], [3])


def files_of(result, directory):
    """The files and figures of a result, written."""
    return [*write(result, directory), *figures.save_all(figures.of_result(result, SCHEDULE), directory)]


def measurement(**options) -> Measurement:
    settings = {
        "machines": MACHINES,
        "calibration": CalibrationSettings(steps=2, patch_sizes=(3, 5), num_samples=3),
        "comparison": ComparisonSettings(steps=2, network_steps=2, num_pairs=5),
    }
    return Measurement(**(settings | options))


class Recording(Denoiser):
    """A network of no parameters that remembers the first state and the labels of every reverse process."""

    def __init__(self, conditional: bool = False) -> None:
        super().__init__()
        self.conditional = conditional
        self.noises: list[torch.Tensor] = []
        self.labels: list[torch.Tensor | None] = []

    def forward(self, x_t, alpha_bar, labels=None):
        if torch.allclose(alpha_bar, SCHEDULE.alpha_bar(torch.ones(1))):
            self.noises.append(x_t.clone())
            self.labels.append(labels)
        return 0.5 * x_t


@pytest.fixture
def no_pictures(monkeypatch):
    """Where the names of figures are the matter, and not what is drawn."""
    undrawn(monkeypatch)


@pytest.fixture(scope="module")
def bank():
    data = digits(train_size=30)
    return data.train_images, data.train_labels


@pytest.fixture(scope="module")
def result(bank):
    torch.manual_seed(0)
    settings = ComparisonSettings(steps=2, network_steps=[2, 3], num_pairs=5)
    return measurement(comparison=settings).run(network(), *bank, SCHEDULE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "calibration.steps must be a whole number, at least 1, not 0"),
        ({"num_samples": 0}, "calibration.num_samples must be a whole number, at least 1, not 0"),
        ({"patch_sizes": []}, r"calibration.patch_sizes must be odd, positive and increasing, not \[\]"),
        ({"patch_sizes": [3, 4]}, r"not \[3, 4\]"),
        ({"patch_sizes": [5, 3]}, r"not \[5, 3\]"),
        ({"patch_sizes": [3, 3]}, r"not \[3, 3\]"),
        ({"patch_sizes": [-1, 3]}, r"not \[-1, 3\]"),
        ({"objective": "dot"}, "calibration.objective must be one of cosine, mse, heldout, not 'dot'"),
        ({"statistic": "max"}, "calibration.statistic must be one of median, mode, mean, not 'max'"),
        ({"max_patch_size": 0}, "calibration.max_patch_size must be a whole number, at least 1, not 0"),
        ({"max_patch_size": "all"}, "calibration.max_patch_size must be a number, null or network, not 'all'"),
        ({"max_patch_size": 2}, r"calibration.max_patch_size=2 leaves none of calibration.patch_sizes=\[3, 5, "),
        ({"gradient_samples": -1}, "calibration.gradient_samples must be a whole number, at least 0, not -1"),
    ],
    ids=str,
)
def test_calibration_settings_that_cannot_work_are_refused(options, message):
    with pytest.raises(InputError, match=message) as caught:
        CalibrationSettings(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("objective", "statistic"), [("cosine", "median"), ("mse", "median"), ("heldout", "mean")])
def test_the_statistic_is_the_papers_or_the_one_that_finds_the_best_denoiser_unless_it_is_named(objective, statistic):
    assert CalibrationSettings(objective=objective).statistic == statistic
    assert CalibrationSettings(objective=objective, statistic="mode").statistic == "mode"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "comparison.steps must be a whole number, at least 1, not 0"),
        ({"network_steps": 0}, "comparison.network_steps must be a whole number, at least 1, not 0"),
        ({"network_steps": []}, "comparison.network_steps must name at least one number"),
        ({"network_steps": [20, -5]}, "comparison.network_steps must be a whole number, at least 1, not -5"),
        ({"num_pairs": 0}, "comparison.num_pairs must be a whole number, at least 1, not 0"),
        ({"handover": [2, 1]}, r"comparison.handover must be increasing numbers of steps, at least 0, not \[2, 1\]"),
        ({"handover": [-1]}, r"comparison.handover must be increasing numbers of steps, at least 0, not \[-1\]"),
        ({"batch_size": 0}, "comparison.batch_size must be a whole number, at least 1, not 0"),
        ({"every_n_epochs": 0}, "comparison.every_n_epochs must be a whole number, at least 1, not 0"),
        ({"compatibility": "paper"}, "comparison.compatibility must be null or official, not 'paper'"),
        ({"compatibility": "official", "steps": 1}, "comparison.steps must be a whole number, at least 2, not 1"),
    ],
    ids=str,
)
def test_comparison_settings_that_cannot_work_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        ComparisonSettings(**options)


def test_a_measurement_needs_a_machine():
    with pytest.raises(InputError, match="at least one machine"):
        Measurement({})


def test_the_machines_that_take_scales_are_calibrated():
    machines = {"is": IdealScoreMachine, "bbels": partial(BoundaryBrokenScoreMachine), "ls": LocalScoreMachine}
    assert Measurement(machines).calibrated == ["bbels", "ls"]


def test_check_accepts_what_run_accepts(bank):
    assert measurement().check(network(), *bank, SCHEDULE) is None
    assert measurement(scales={"bbels": TABLE, "ls": TABLE}).check(network(), *bank, SCHEDULE) is None


def test_labels_do_not_matter_to_an_unconditional_network(bank):
    images, labels = bank
    recording = Recording()
    found = measurement().run(recording, images, labels, SCHEDULE)
    assert recording.labels == [None] * 3
    assert found.comparison.labels is None


class Wrapping(LocalScoreMachine):
    """A machine whose patches must fit into the image."""

    padding_mode = "circular"


HELD_OUT = CalibrationSettings(steps=2, patch_sizes=(3, 5), num_samples=3, objective="heldout")


def split(count: int = 6, seed: int = 0) -> Split:
    """Images that are in no data set, of one digit alone."""
    images = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return Split(images, torch.full((count,), 3))


CHECKS = {
    "no held-out images": (
        {"calibration": HELD_OUT},
        False,
        lambda images, labels: (images, labels),
        "calibration.objective=heldout needs held-out images",
    ),
    "too few held-out images": (
        {"calibration": HELD_OUT, "heldout": split(2)},
        False,
        lambda images, labels: (images, labels),
        "calibration.num_samples=3, but there are only 2 held-out images",
    ),
    "held-out class unknown": (
        {"calibration": HELD_OUT, "heldout": split()},
        True,
        lambda images, labels: (images[labels != 3], labels[labels != 3]),
        "a held-out image has the label 3, which no training image has",
    ),
    "receptive field unknown": (
        {"calibration": CalibrationSettings(max_patch_size="network")},
        False,
        lambda images, labels: (images, labels),
        "calibration.max_patch_size=network needs a network that states its receptive field",
    ),
    "no labels": ({}, True, lambda images, labels: (images, None), "the data has no labels"),
    "labels too few": ({}, True, lambda images, labels: (images, labels[:-1]), "30 images and 29 labels"),
    "not finite": ({}, False, lambda images, labels: (images * float("nan"), labels), "not finite"),
    "no images": ({}, False, lambda images, labels: (images[:0], labels[:0]), "none of them 0"),
    "patch too large": (
        {"machines": {"w": Wrapping}, "calibration": CalibrationSettings(patch_sizes=[3, 9])},
        False,
        lambda images, labels: (images, labels),
        "patch size 9 is too large",
    ),
    "scales missing": (
        {"scales": {"bbels": TABLE}},
        False,
        lambda images, labels: (images, labels),
        "no scales for the machine ls; there are for bbels",
    ),
    "scales too narrow": (
        {"scales": {"bbels": TABLE, "ls": ScaleTable([0.99, 0.98], [3, 5])}},
        False,
        lambda images, labels: (images, labels),
        "the scale table covers alpha_bar from",
    ),
}


@pytest.mark.parametrize("name", CHECKS)
def test_check_finds_what_would_fail_before_the_network_is_asked(bank, name):
    options, conditional, change, message = CHECKS[name]
    for method in ("check", "run"):
        recording = Recording(conditional)
        with pytest.raises(InputError, match=message) as caught:
            getattr(measurement(**options), method)(recording, *change(*bank), SCHEDULE)
        assert "\n" not in str(caught.value)
        assert recording.noises == []


@pytest.mark.usefixtures("no_pictures")
def test_given_scales_are_used_and_nothing_is_calibrated(bank, tmp_path):
    images, labels = bank
    recording = Recording()
    found = measurement(scales={"bbels": TABLE, "ls": ScaleTable([0.5], [5])}).run(recording, images, labels, SCHEDULE)
    assert found.calibrations == {}
    assert len(recording.noises) == 1
    machine = LocalScoreMachine(images, scales=5)
    direct = compare(
        Recording(), {"ls": machine}, SCHEDULE, steps=2, network_steps=2, noise=recording.noises[0], labels=None
    )
    torch.testing.assert_close(found.comparison.machines["ls"], direct.machines["ls"])
    assert {path.name for path in files_of(found, tmp_path)}.isdisjoint({"calibration.csv", "scales.png"})


@pytest.mark.usefixtures("no_pictures")
def test_calibrate_alone_compares_nothing(bank, tmp_path):
    found = measurement().calibrate(network(), *bank, SCHEDULE)
    assert found.comparison is None
    assert found.scalars() == {}
    names = {str(path.relative_to(tmp_path)) for path in files_of(found, tmp_path)}
    assert names == {
        *("scales.json", "calibration.csv", "receptive_field.csv", "receptive_field.npz"),
        *("figures/scales.png", "figures/receptive_field.png"),
    }


def test_calibration_takes_statistic_and_cap_from_the_settings(bank):
    images, labels = bank
    settings = {"steps": 2, "patch_sizes": (3, 5, 7), "num_samples": 3}
    torch.manual_seed(0)
    denoiser, found = network(), {}
    for statistic in ("median", "mode", "mean"):
        chosen = CalibrationSettings(statistic=statistic, max_patch_size=6, **settings)
        found[statistic] = measurement(calibration=chosen).calibrate(denoiser, images, labels, SCHEDULE)
        for calibration in found[statistic].calibrations.values():
            assert calibration.patch_sizes == (3, 5)
            sizes = [STATISTICS[statistic](values, torch.tensor([3, 5])).item() for values in calibration.agreement]
            assert calibration.scales.patch_size.flip(0).tolist() == sizes


@pytest.mark.parametrize(("side", "tried"), [(4, (3,)), (5, (3, 5)), (None, (3, 5))])
@pytest.mark.parametrize("objective", ["cosine", "heldout"])
def test_the_networks_receptive_field_caps_the_sizes(bank, objective, side, tried):
    denoiser = Recording()
    denoiser.receptive_field = side
    settings = CalibrationSettings(
        steps=1, patch_sizes=(3, 5), num_samples=2, objective=objective, max_patch_size="network"
    )
    found = measurement(calibration=settings, heldout=split()).run(denoiser, *bank, SCHEDULE)
    assert found.calibrations["ls"].patch_sizes == tried


def test_a_receptive_field_below_every_size_is_refused_before_the_network_is_asked(bank):
    denoiser = Recording()
    denoiser.receptive_field = 1
    settings = CalibrationSettings(patch_sizes=(3, 5), max_patch_size="network")
    with pytest.raises(InputError, match="max_patch_size=1 leaves none"):
        measurement(calibration=settings).run(denoiser, *bank, SCHEDULE)
    assert denoiser.noises == []


def test_held_out_calibration_asks_no_network_and_needs_none(bank):
    images, _ = bank
    measured, recording = measurement(calibration=HELD_OUT, heldout=split()), Recording()
    found = measured.calibrate(recording, images, None, SCHEDULE)
    assert recording.noises == []
    alone = measured.calibrate(None, images, None, SCHEDULE)
    assert alone.gradients is None
    for name, calibration in found.calibrations.items():
        assert calibration.objective == "heldout"
        assert torch.equal(calibration.agreement, alone.calibrations[name].agreement)
        assert calibration.scales.to_dict() == alone.scales[name].to_dict()


def test_without_a_network_held_out_machines_are_conditional_exactly_when_there_are_labels(bank):
    images, labels = bank
    measured = measurement(calibration=HELD_OUT, heldout=split())
    found = measured.calibrate(None, images, labels, SCHEDULE).calibrations["ls"]
    threes = measured.calibrate(None, images[labels == 3], None, SCHEDULE).calibrations["ls"]
    torch.testing.assert_close(found.agreement, threes.agreement)


def test_held_out_images_and_noise_follow_the_seed(bank):
    def agreement(seed):
        measured = measurement(calibration=HELD_OUT, heldout=split(), seed=seed)
        return measured.calibrate(None, bank[0], None, SCHEDULE).calibrations["ls"].agreement

    assert torch.equal(agreement(0), agreement(0))
    assert not torch.equal(agreement(0), agreement(1))


def test_any_other_calibration_needs_a_network(bank):
    with pytest.raises(InputError, match=r"calibration\.objective=cosine needs a network"):
        measurement().calibrate(None, *bank, SCHEDULE)


def test_gradients_are_those_along_the_processes_of_the_calibration(bank):
    denoiser, recording = network(), Recording()
    settings = CalibrationSettings(steps=2, patch_sizes=(3, 5), num_samples=3, gradient_samples=2)
    measurement(calibration=settings).calibrate(recording, *bank, SCHEDULE)
    found = measurement(calibration=settings).calibrate(denoiser, *bank, SCHEDULE).gradients
    expected = gradient_field(denoiser, SCHEDULE, steps=2, noise=recording.noises[0][:2])
    torch.testing.assert_close(found.gradient, expected.gradient)
    assert found.formal == denoiser.backbone.receptive_field


def test_there_are_no_gradients_of_a_network_without_parameters_or_where_none_are_asked_for(bank):
    assert measurement().calibrate(Recording(), *bank, SCHEDULE).gradients is None
    none = CalibrationSettings(steps=2, patch_sizes=(3, 5), num_samples=3, gradient_samples=0)
    assert measurement(calibration=none).calibrate(network(), *bank, SCHEDULE).gradients is None
    assert measurement(scales={"bbels": TABLE, "ls": TABLE}).run(network(), *bank, SCHEDULE).gradients is None


def test_run_calibrates_as_calibrate_does(bank):
    torch.manual_seed(0)
    denoiser = network()
    alone, both = (getattr(measurement(), name)(denoiser, *bank, SCHEDULE) for name in ("calibrate", "run"))
    for name, found in alone.calibrations.items():
        torch.testing.assert_close(both.calibrations[name].agreement, found.agreement)
        assert both.scales[name].to_dict() == found.scales.to_dict()


def noises(bank, **options) -> list[torch.Tensor]:
    """The noise of every reverse process of a run: one calibration per local machine, then the comparison."""
    recording = Recording()
    measurement(**options).run(recording, *bank, SCHEDULE)
    return recording.noises


class Unsteady(EpsDenoiser):
    """A network that never says the same twice, as on a device whose sums run in any order."""

    def forward(self, x_t, alpha_bar, labels=None):
        found = super().forward(x_t, alpha_bar, labels)
        return found + 1e-5 * torch.randn_like(found)


def test_where_a_network_does_not_repeat_itself_all_that_was_kept_is_found_again(bank, tmp_path, monkeypatch):
    network_, asked = Unsteady(ResNet(1, width=16, num_layers=1), SCHEDULE), []
    work = IdealScoreMachine._evaluate_same
    monkeypatch.setattr(ScoreMachine, "_evaluate_same", lambda *given: asked.append(1) or work(*given))

    def run(name, again):
        del asked[:]
        monkeypatch.setattr(measurement_module, "repeats", lambda device: not again)
        return [measurement(keep=Kept(tmp_path / name)).run(network_, *bank, SCHEDULE) for _ in range(2)]

    first, second = run("kept", again=True)
    times = len(asked)
    for steps, samples in first.comparison.network.items():
        assert torch.equal(samples, second.comparison.network[steps])
    assert [row["pearson_r"] for row in first.comparison.rows] == [row["pearson_r"] for row in second.comparison.rows]
    first, second = run("forgotten", again=False)  # on a CPU, where it is not what networks do
    assert not torch.equal(first.comparison.network[2], second.comparison.network[2])
    assert len(asked) > times


@pytest.mark.parametrize("changed", ["weights", "schedule", "code"])
def test_another_network_is_another(changed, tmp_path, monkeypatch):
    x_t, alpha_bar, keep, one = random_noise(2, 1, 8, 8).float(), levels(0.3, 0.6), Kept(tmp_path), network()
    backbone = one.backbone
    with torch.no_grad():
        first = RememberedNetwork(one, keep)(x_t, alpha_bar)
        assert torch.equal(first, one(x_t, alpha_bar))
        assert torch.equal(RememberedNetwork(one, keep)(x_t, alpha_bar), first)
        match changed:
            case "weights":
                next(one.parameters()).add_(1)
            case "schedule":
                one = EpsDenoiser(backbone, LinearSchedule())
            case "code":
                monkeypatch.setattr(type(backbone), "forward", lambda self, x_t, t, labels=None: 0.9 * x_t)
        other = RememberedNetwork(one, keep)(x_t, alpha_bar)
        assert torch.equal(other, one(x_t, alpha_bar))
        assert not torch.equal(other, first)


def test_noise_is_the_same_for_the_same_seed_whatever_the_global_generator(bank):
    torch.manual_seed(0)
    first = noises(bank, seed=3)
    torch.manual_seed(1)
    torch.testing.assert_close(noises(bank, seed=3), first, rtol=0, atol=0)


def test_all_machines_are_calibrated_on_the_same_noise(bank):
    bbels, ls, _ = noises(bank)
    assert torch.equal(bbels, ls)


def test_another_seed_gives_other_noise(bank):
    for noise, other in zip(noises(bank, seed=0), noises(bank, seed=1), strict=True):
        assert (noise != other).all()


def test_calibration_and_comparison_draw_from_different_streams(bank):
    _, calibration, comparison = noises(bank)
    assert not torch.isin(calibration, comparison).any()


def test_noise_does_not_depend_on_how_many_others_there_are(bank):
    few = noises(bank, comparison=ComparisonSettings(steps=2, network_steps=2, num_pairs=2))[-1]
    assert torch.equal(noises(bank)[-1][:2], few)


def test_labels_cycle_over_the_classes_that_are_there(bank):
    images, labels = bank
    some = torch.isin(labels, torch.tensor([2, 5, 9]))
    recording = Recording(conditional=True)
    found = measurement().run(recording, images[some], labels[some], SCHEDULE)
    assert found.comparison.labels.tolist() == [2, 5, 9, 2, 5]
    assert recording.labels[0].tolist() == [2, 5, 9]
    assert [row["label"] for row in found.comparison.rows[:5]] == [2, 5, 9, 2, 5]


def test_the_scalars_are_those_of_the_summary(result):
    scalars, machines = result.scalars(), result.comparison.summary()["machines"]
    for name in MACHINES:
        for prefix, steps in ((f"val/{name}", "2"), (f"val/{name}/steps_3", "3")):
            entry = machines[name][steps]
            for end in ("median", "low", "high"):
                assert scalars[f"{prefix}/pearson_r_{end}"] == entry["pearson_r"][end]
            assert scalars.get(f"{prefix}/beats_is") == entry["beats_is"]
    assert scalars["val/ls/patch_size_mean"] == np.mean(result.scales["ls"].patch_size.tolist())
    assert "val/is/beats_is" not in scalars
    assert "val/is/patch_size_mean" not in scalars


def test_scalars_are_finite_numbers(result):
    assert all(type(value) is float and np.isfinite(value) for value in result.scalars().values())


@pytest.mark.usefixtures("no_pictures")
def test_write_returns_the_files_it_wrote(result, tmp_path):
    written = files_of(result, tmp_path)
    assert sorted(written) == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert {str(path.relative_to(tmp_path)) for path in written} == {
        *("scales.json", "calibration.csv", "receptive_field.csv", "receptive_field.npz"),
        *("comparison.csv", "consistency.csv", "summary.json", "samples.npz"),
        *(f"figures/{name}.png" for name in ("scales", "receptive_field", "pairs", "ranking", "scatter")),
    }


def test_written_files_hold_the_result(result, tmp_path):
    write(result, tmp_path)
    tables = load_scales(tmp_path / "scales.json")
    assert {name: table.to_dict() for name, table in tables.items()} == {
        name: table.to_dict() for name, table in result.scales.items()
    }
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert "comparison.csv" in summary.pop("files")
    assert summary.pop("checksum")
    assert summary == result.comparison.summary() | {"doubts": doubts(result)}
    with (tmp_path / "receptive_field.csv").open(newline="") as file:
        sizes = [int(row["x0_size_90"]) for row in csv.DictReader(file)]
    assert sizes == result.gradients.size(0.9).tolist()
    with (tmp_path / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["pearson_r"]) for row in rows] == [row["pearson_r"] for row in result.comparison.rows]
    with np.load(tmp_path / "samples.npz") as arrays:
        assert set(arrays) == {*MACHINES, "network_2", "network_3"}
        np.testing.assert_array_equal(arrays["is"], result.comparison.machines["is"].numpy())


def test_an_empty_result_writes_nothing(tmp_path):
    assert write(Result({}, {}), tmp_path / "run") == []
    assert not (tmp_path / "run").exists()


def test_without_is_there_is_no_scatter_and_no_share(bank):
    found = measurement(machines={"ls": LocalScoreMachine}).run(network(), *bank, SCHEDULE)
    assert set(figures.of_result(found, SCHEDULE)) == {"scales", "receptive_field", "pairs"}
    assert "val/ls/beats_is" not in found.scalars()


def test_is_alone_needs_no_calibration(bank):
    found = measurement(machines={"is": IdealScoreMachine}).run(network(), *bank, SCHEDULE)
    assert found.scales == {}
    assert set(figures.of_result(found, SCHEDULE)) == {"pairs"}
    assert found.scalars()["val/is/pearson_r_median"] <= 1


def test_progress_is_told_of_every_part(bank):
    told = []
    measurement().run(network(), *bank, SCHEDULE, lambda what, done, total: told.append((what, done, total)))
    assert list(dict.fromkeys(what for what, _, _ in told)) == [
        *("calibrating bbels", "calibrating ls", "receptive field", "network, 2 steps"),
        *("bbels, 2 steps", "ls, 2 steps", "is, 2 steps"),
        *("bbels, consistency", "ls, consistency", "is, consistency"),
    ]
    last = {what: (done, total) for what, done, total in told}
    assert all(done == total for done, total in last.values())


# The published code's late start --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compatibility", "times", "sizes"),
    [(None, [1, 0.75, 0.5, 0.25], [7, 5, 3, 1]), ("official", [0.75, 0.5, 0.25], [7, 5, 3])],
)
def test_machines_start_a_step_late_with_the_scale_of_the_step_before_when_asked_to(bank, compatibility, times, sizes):
    calls = []

    class Seen(LocalScoreMachine):
        def forward(self, x_t, alpha_bar, labels=None):
            calls.append((x_t, alpha_bar[0].item(), self.patch_size_at(alpha_bar)[0].item()))
            return super().forward(x_t, alpha_bar, labels)

    table = ScaleTable(SCHEDULE.noise_levels(4), [7, 5, 3, 1])
    settings = ComparisonSettings(steps=4, network_steps=2, num_pairs=3, compatibility=compatibility)
    recording = Recording()
    found = measurement(machines={"ls": Seen}, comparison=settings, scales={"ls": table}).run(
        recording, *bank, SCHEDULE
    )
    assert torch.equal(calls[0][0], recording.noises[0])
    assert [level for _, level, _ in calls] == SCHEDULE.alpha_bar(torch.tensor(times)).tolist()
    assert [size for _, _, size in calls] == sizes
    assert found.scales["ls"].to_dict() == table.to_dict()


def test_the_late_start_is_the_machines_alone(bank):
    torch.manual_seed(0)
    denoiser, found = network(), {}
    for compatibility in (None, "official"):
        settings = ComparisonSettings(steps=3, network_steps=2, num_pairs=3, compatibility=compatibility)
        machines = {"is": IdealScoreMachine, "checkpoint": lambda images, labels=None: denoiser}
        found[compatibility] = measurement(machines=machines, comparison=settings).run(denoiser, *bank, SCHEDULE)
    usual, late = (found[name].comparison for name in (None, "official"))
    assert torch.equal(usual.network[2], late.network[2])
    assert torch.equal(usual.peers["checkpoint"][2], late.peers["checkpoint"][2])
    assert not torch.equal(usual.machines["is"], late.machines["is"])


# Another network among the machines -----------------------------------------------------------------------


def test_a_network_among_the_machines_is_measured_and_written_by_its_steps(bank, tmp_path):
    torch.manual_seed(0)
    denoiser = network()
    settings = ComparisonSettings(steps=2, network_steps=[2, 3], num_pairs=5)
    machines = {"checkpoint": lambda images, labels=None: denoiser, "is": IdealScoreMachine}
    found = measurement(machines=machines, comparison=settings).run(denoiser, *bank, SCHEDULE)
    scalars, comparison = found.scalars(), found.comparison
    for prefix, steps in (("val/is", 2), ("val/is/steps_3", 3)):
        share = comparison.values("is", steps).quantile(0.5).item()
        assert scalars[f"{prefix}/share_of_ceiling"] == pytest.approx(share, abs=1e-6)
        assert scalars[f"{prefix}/consistency"] == comparison.median_consistency("is")
        assert scalars[f"{prefix}/network_consistency"] == comparison.median_consistency("is", steps)
    assert scalars["val/checkpoint/pearson_r_median"] == pytest.approx(1)
    assert found.objective == scalars["val/is/pearson_r_median"]
    drawn = figures.of_result(found, SCHEDULE)
    words = {text.get_text() for axes in drawn["pairs"].axes for text in axes.texts}
    assert {"IS", "second network", "network,\n2 steps"} <= words
    write(found, tmp_path)
    figures.save_all(drawn, tmp_path)
    with np.load(tmp_path / "samples.npz") as arrays:
        assert set(arrays) == {"is", *(f"{name}_{steps}" for name in ("network", "checkpoint") for steps in (2, 3))}
    with (tmp_path / "consistency.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["consistency"]) for row in rows] == [row["consistency"] for row in comparison.consistency]


@pytest.mark.usefixtures("no_pictures")
def test_a_network_alone_among_the_machines_is_enough(bank, tmp_path):
    found = measurement(machines={"checkpoint": lambda images, labels=None: network()}).run(network(), *bank, SCHEDULE)
    names = {path.name for path in files_of(found, tmp_path)}
    assert names == {"comparison.csv", "summary.json", "samples.npz", "pairs.png"}


MISFITS = {
    "conditional": (
        lambda: network(conditional=True),
        False,
        "machines.peer is class-conditional, but the network to compare it with is unconditional",
    ),
    "unconditional": (
        network,
        True,
        "machines.peer is unconditional, but the network to compare it with is class-conditional",
    ),
    "channels": (
        lambda: network(3),
        False,
        "machines.peer does not fit the network to compare it with: .* 3 x any x any",
    ),
    "classes": (
        lambda: EpsDenoiser(ResNet(1, width=16, num_layers=1, conditional=True, num_classes=5), SCHEDULE),
        True,
        "machines.peer does not fit the network to compare it with: .*9",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_network_that_does_not_fit_the_one_to_explain_is_refused_before_any_work(bank, name):
    build, conditional, message = MISFITS[name]
    machines = {"is": IdealScoreMachine, "peer": lambda images, labels=None: build()}
    for method in ("check", "run"):
        recording = Recording(conditional)
        with pytest.raises(InputError, match=message) as caught:
            getattr(measurement(machines=machines), method)(recording, *bank, SCHEDULE)
        assert "\n" not in str(caught.value)
        assert recording.noises == []
