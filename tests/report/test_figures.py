"""Figures: every one draws what it is given, with labelled axes, into a file that is whole or not there."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from elslightning.diffusion.schedule import CosineSchedule
from elslightning.machines import BoundaryBrokenScoreMachine, IdealScoreMachine, LocalScoreMachine
from elslightning.measurement.calibration import calibrate
from elslightning.measurement.comparison import Comparison, compare
from elslightning.measurement.gradients import GradientField, effective_size
from elslightning.report import figures

SCHEDULE = CosineSchedule()
PAIRS = 3


def images(count: int, channels: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, channels, 6, 6, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def compared(channels: int, network_steps=(2, 3)) -> Comparison:
    """Two machines against a third."""
    bank = images(5, channels)
    return compare(
        LocalScoreMachine(bank, scales=3),
        {"bbels": BoundaryBrokenScoreMachine(bank, scales=3), "is": IdealScoreMachine(bank)},
        SCHEDULE,
        steps=2,
        network_steps=list(network_steps),
        noise=torch.randn(PAIRS, channels, 6, 6, generator=torch.Generator().manual_seed(1)),
    )


def calibrated(channels: int, names=("bbels", "ls")):
    bank = images(5, channels)
    factories = {"bbels": BoundaryBrokenScoreMachine, "ls": LocalScoreMachine}
    noise = torch.randn(2, channels, 6, 6, generator=torch.Generator().manual_seed(1))
    options = {"steps": 3, "patch_sizes": [3, 5], "noise": noise}
    truth = LocalScoreMachine(bank, scales=3)
    return {name: calibrate(truth, factories[name](bank, scales=3), SCHEDULE, **options) for name in names}


def gradients(steps: int = 3, formal: int | None = 5) -> GradientField:
    gradient = torch.rand(2, steps, 6, 6, generator=torch.Generator().manual_seed(0)) ** 4
    return GradientField(SCHEDULE.noise_levels(steps), *gradient, formal)


def tables(channels: int):
    return {name: calibration.scales for name, calibration in calibrated(channels).items()}


DRAWN = {
    "image_rows": lambda channels: figures.image_rows({"a": images(2, channels), "b": images(3, channels)}),
    "pairs": lambda channels: figures.pairs(compared(channels), "bbels"),
    "scatter": lambda channels: figures.scatter(compared(channels), "bbels"),
    "scales": lambda channels: figures.scales(calibrated(channels), SCHEDULE),
    "receptive_field": lambda channels: figures.receptive_field(gradients(), tables(channels), SCHEDULE),
    "training_curves": lambda channels: figures.training_curves({"val/loss": [(1, 0.9), (10, 0.1)]}),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_saves_as_a_readable_png_of_its_size(name, channels, tmp_path):
    figure = DRAWN[name](channels)
    figures.save(figure, tmp_path / "deep" / "figure.png")
    with Image.open(tmp_path / "deep" / "figure.png") as image:
        image.load()
        assert image.format == "PNG"
        np.testing.assert_allclose(image.size, figure.get_size_inches() * figure.dpi, atol=1)
        assert len(image.convert("RGB").getcolors(maxcolors=2**24)) > 10


@pytest.mark.parametrize("name", ["scatter", "training_curves"])
def test_the_axes_of_a_plot_are_labelled(name):
    (axes,) = DRAWN[name](1).axes
    assert axes.get_xlabel()
    assert axes.get_ylabel()
    assert axes.get_legend() is not None


def test_the_scales_have_labelled_axes_with_units():
    top, *_, bottom = DRAWN["scales"](1).axes
    assert "[pixels]" in top.get_ylabel()
    assert "time t" in bottom.get_xlabel()
    assert "agreement" in bottom.get_ylabel()


def shown(axes) -> np.ndarray:
    (image,) = axes.get_images()
    return np.asarray(image.get_array())


def test_rows_are_named_and_columns_titled():
    figure = figures.image_rows({"theory": images(2, 1), "network": images(2, 1)}, ["r = 0.1", "r = 0.2"])
    assert [axes.get_ylabel() for axes in figure.axes] == ["theory", "", "network", ""]
    assert [axes.get_title() for axes in figure.axes] == ["r = 0.1", "r = 0.2", "", ""]


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_shown_from_black_at_minus_one_to_white_at_one(channels):
    picture = images(1, channels)
    (axes,) = figures.image_rows({"a": picture}).axes
    expected = ((picture[0] + 1) / 2).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(shown(axes).reshape(expected.shape), expected, rtol=1e-6)
    assert axes.get_images()[0].get_clim() == (0, 1)


def test_pixels_beyond_the_range_are_clipped():
    (axes,) = figures.image_rows({"a": 3 * images(1, 3)}).axes
    assert shown(axes).min() == 0
    assert shown(axes).max() == 1


def test_a_shorter_row_leaves_its_last_places_empty():
    figure = figures.image_rows({"a": images(1, 1), "b": images(3, 1)})
    assert [axes.axison for axes in figure.axes] == [True, False, False, True, True, True]
    assert [len(axes.get_images()) for axes in figure.axes] == [1, 0, 0, 1, 1, 1]


def test_pairs_show_machines_above_the_network_from_the_same_noise():
    comparison = compared(1)
    grid = np.array(figures.pairs(comparison, "bbels").axes).reshape(3, PAIRS)
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["bbELS", "IS", "network, 2 steps"]
    for pair in range(PAIRS):
        for axes, samples in zip(grid[:, pair], [*comparison.machines.values(), comparison.network[2]], strict=True):
            np.testing.assert_allclose(shown(axes), ((samples[pair, 0] + 1) / 2).clamp(0, 1), atol=1e-6)


def test_the_r_above_a_pair_is_that_of_the_named_machine():
    comparison = compared(1)
    titles = [axes.get_title() for axes in figures.pairs(comparison, "is").axes[:PAIRS]]
    assert titles == [f"r = {value:.2f}" for value in comparison.values("is", 2).tolist()]


def test_pairs_show_no_more_than_asked_for():
    assert len(figures.pairs(compared(1), "bbels", count=2).axes) == 3 * 2


@pytest.mark.parametrize("network_steps", [(2,), (2, 3), (1, 2, 3, 4, 5)], ids=len)
def test_the_scatter_has_a_point_per_pair_and_number_of_network_steps(network_steps):
    comparison = compared(1, network_steps)
    (axes,) = figures.scatter(comparison, "bbels").axes
    assert len(axes.collections) == len(network_steps)
    for points, steps in zip(axes.collections, network_steps, strict=True):
        expected = torch.stack([comparison.values("is", steps), comparison.values("bbels", steps)], dim=1)
        np.testing.assert_allclose(points.get_offsets(), expected)


def test_the_scatter_shows_every_point():
    (axes,) = figures.scatter(compared(1), "bbels").axes
    points = np.concatenate([np.asarray(collection.get_offsets()) for collection in axes.collections])
    low, high = axes.get_xlim()
    assert axes.get_ylim() == (low, high)
    assert low <= points.min()
    assert points.max() <= high


def test_the_scales_are_drawn_at_their_times():
    calibrations = calibrated(1)
    figure = figures.scales(calibrations, SCHEDULE)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["bbELS", "LS"]
    for axes, calibration in zip(figure.axes[:2], calibrations.values(), strict=True):
        times, sizes = axes.get_lines()[0].get_data()
        np.testing.assert_allclose(times, [1 / 3, 2 / 3, 1])
        np.testing.assert_array_equal(sizes, calibration.scales.patch_size)


def test_the_evidence_has_a_curve_per_patch_size():
    calibration = calibrated(1, ["ls"])
    _, bottom = figures.scales(calibration, SCHEDULE).axes
    assert [line.get_label() for line in bottom.get_lines()] == ["P = 3", "P = 5"]
    for line, curve in zip(bottom.get_lines(), calibration["ls"].agreement.median(dim=2).values.T, strict=True):
        np.testing.assert_allclose(line.get_ydata(), curve)


def test_the_agreement_is_named_by_its_objective():
    _, bottom = figures.scales(calibrated(1, ["ls"]), SCHEDULE).axes
    assert bottom.get_ylabel() == "median agreement (cosine)"


@pytest.mark.parametrize(
    ("steps", "shown"), [(3, ["0.33", "0.67", "1.00"]), (1, ["1.00"]), (20, ["0.05", "0.50", "1.00"])]
)
def test_the_gradients_are_mapped_at_their_times_relative_to_their_peak(steps, shown):
    field = gradients(steps)
    *maps, _, _ = figures.receptive_field(field, {}, SCHEDULE, count=3).axes
    lines = np.array(maps).reshape(2, -1)
    assert [axes.get_title() for axes in lines[0]] == [f"t = {t}" for t in shown]
    assert [axes.get_ylabel() for axes in lines[:, 0]] == ["|∂eps / ∂x_t|", "|∂x0 / ∂x_t|"]
    for line, gradients_of in zip(lines, (field.gradient, field.x0_gradient), strict=True):
        for axes, t in zip(line, shown, strict=True):
            step = steps - round(float(t) * steps)
            expected = gradients_of[step] / gradients_of[step].max()
            np.testing.assert_allclose(axes.get_images()[0].get_array(), expected.clamp(min=1e-3), rtol=1e-6)
            (square,) = axes.patches
            side = effective_size(gradients_of, 0.9)[step]
            np.testing.assert_allclose(square.get_bbox().bounds, [3 - side / 2, 3 - side / 2, side, side])


def test_the_size_of_the_gradients_is_drawn_beside_the_machines_and_the_formal_receptive_field():
    field, machines = gradients(), tables(1)
    axes = figures.receptive_field(field, machines, SCHEDULE).axes[-1]
    lines = {line.get_label(): line.get_data() for line in axes.get_lines()}
    assert list(lines) == [
        *(f"network: {share} of the gradient of x0" for share in ("50%", "90%", "99%")),
        *("network: formal receptive field", "bbELS", "LS"),
    ]
    np.testing.assert_allclose(lines["network: 90% of the gradient of x0"], [[1, 2 / 3, 1 / 3], field.size(0.9)])
    assert set(lines["network: formal receptive field"][1]) == {5}
    np.testing.assert_array_equal(lines["LS"][1], machines["ls"].patch_size)
    assert "[pixels]" in axes.get_ylabel()
    assert "time t" in axes.get_xlabel()


def test_what_is_not_known_of_the_network_is_not_drawn():
    axes = figures.receptive_field(gradients(formal=None), {}, SCHEDULE).axes[-1]
    assert len(axes.get_lines()) == 3


def test_a_network_without_gradients_is_drawn():
    field = GradientField(SCHEDULE.noise_levels(1), torch.zeros(1, 6, 6), torch.zeros(1, 6, 6))
    assert figures.receptive_field(field, {}, SCHEDULE).axes[0].get_images()[0].get_array().max() == 1e-3


def test_training_curves_have_a_line_per_name_on_logarithmic_axes():
    (axes,) = figures.training_curves({"train/loss": [(2, 0.5), (4, 0.25)], "val/loss": [(4, 0.3)]}).axes
    lines = {line.get_label(): np.stack(line.get_data(), axis=1).tolist() for line in axes.get_lines()}
    assert lines == {"train/loss": [[2, 0.5], [4, 0.25]], "val/loss": [[4, 0.3]]}
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


@pytest.mark.parametrize(("machine", "name"), [("bbels", "bbELS"), ("els", "ELS"), ("is", "IS"), ("mine", "mine")])
def test_machines_are_named_as_in_the_paper_and_others_as_they_are(machine, name):
    assert figures.display_name(machine) == name


class Torn(Figure):
    """A figure whose drawing fails half-way."""

    def savefig(self, path, **options):
        with open(path, "wb") as file:
            file.write(b"half a figure")
        raise OSError("no space left on device")


def test_a_figure_that_fails_leaves_the_earlier_file_and_nothing_else(tmp_path):
    path = tmp_path / "figure.png"
    figures.save(DRAWN["training_curves"](1), path)
    before = path.read_bytes()
    with pytest.raises(OSError, match="no space left"):
        figures.save(Torn(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
