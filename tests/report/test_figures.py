"""Figures: every one draws what it is given, with labelled axes, into a file that is whole or not there."""

import functools
import io
import re

import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure
from PIL import Image

from elslightning.diffusion.schedule import CosineSchedule
from elslightning.machines import BoundaryBrokenScoreMachine, IdealScoreMachine, LocalScoreMachine, WienerScoreMachine
from elslightning.machines.scales import ScaleTable
from elslightning.measurement.calibration import Calibration, calibrate
from elslightning.measurement.candidates import sizes_only
from elslightning.measurement.comparing import compare
from elslightning.measurement.comparison import Comparison
from elslightning.measurement.gradients import GradientField, effective_size
from elslightning.measurement.order import Order
from elslightning.report import figures
from elslightning.report.figures.creativity import creativity_map, image_points, machine_point, order_curve
from elslightning.report.figures.patches import FLOOR
from elslightning.report.figures.style import percent, plain

SCHEDULE = CosineSchedule()
PAIRS = 3


def images(count: int, channels: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, channels, 6, 6, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@functools.cache
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


@functools.cache
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


def between(mean):
    """Measures of one point of the creativity map."""
    return {name: {"mean": mean, "low": mean - 0.1, "high": mean + 0.05} for name in ("novelty", "fidelity")}


def orders():
    effective = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * 9 + 1
    alpha_bar, shares = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), torch.rand(3, 2).double()
    return Order(alpha_bar, effective, shares, torch.tensor([5, 5]))


DRAWN = {
    "image_rows": lambda channels, style: figures.image_rows(
        {"a": images(2, channels), "b": images(3, channels)}, style=style
    ),
    "pairs": lambda channels, style: figures.pairs(compared(channels), "bbels", style=style),
    "scatter": lambda channels, style: figures.scatter(compared(channels), style=style),
    "scales": lambda channels, style: scales(calibrated(channels), style=style),
    "patch_size": lambda channels, style: figures.patch_size(
        tables(channels), SCHEDULE, calibrations=calibrated(channels), field=gradients(), style=style
    ),
    "receptive_field": lambda channels, style: figures.receptive_field(
        gradients(), tables(channels), SCHEDULE, machine="bbels", style=style
    ),
    "losses": lambda channels, style: figures.losses({"val/loss": [(1, 0.9), (10, 0.1)]}, style=style),
    "trajectory": lambda channels, style: figures.trajectory(
        SCHEDULE.noise_levels(3), {"r": torch.rand(3, 4)}, SCHEDULE, style=style
    ),
    "consistency": lambda channels, style: figures.consistency(compared(channels), style=style),
    "side_by_side": lambda channels, style: figures.side_by_side([(compared(channels), 2)], ["$a_{"], style=style),
    "class_grids": lambda channels, style: next(figures.class_grids(compared(channels), "bbels", style=style)),
    "black_white": lambda channels, style: figures.black_white(images(3, channels), 1.0, style=style),
    "sweep": lambda channels, style: figures.sweep(
        [{"x": x, "val/bbels/pearson_r_median": 0.5} for x in (1, 2)], "x", title="?" * 200, style=style
    ),
    "creativity_map": lambda channels, style: creativity_map(
        [
            machine_point("bbels", "a $b_{", between(0.2)),
            machine_point("bbels", "c", between(0.9)),
            machine_point("network", "", between(0.5), "networks"),
            image_points("held-out images", between(0.8)),
        ],
        title="?" * 200,
        style=style,
    ),
    "order_curve": lambda channels, style: order_curve({"bbELS": orders(), "network": orders()}, SCHEDULE, style=style),
}


WITHOUT_IMAGES = {"losses", "trajectory", "sweep", "creativity_map", "order_curve"}
"""The figures to which the channels of images are nothing."""


@functools.cache
def drawn(name: str, channels: int, style: figures.Style) -> Figure:
    """A figure that nobody may change."""
    return DRAWN[name](channels, style)


STYLES = {"screen": figures.SCREEN, "print": figures.PRINT, "page": figures.PAGE}


@pytest.mark.parametrize(
    ("name", "channels"), [*((name, 1) for name in DRAWN), *((name, 3) for name in DRAWN if name not in WITHOUT_IMAGES)]
)
def test_a_figure_saves_as_a_readable_png_of_its_size(name, channels, tmp_path):
    figure = drawn(name, channels, figures.SCREEN)
    figures.save(figure, tmp_path / "deep" / "figure.png")
    with Image.open(tmp_path / "deep" / "figure.png") as image:
        image.load()
        assert image.format == "PNG"
        np.testing.assert_allclose(image.size, figure.get_size_inches() * figure.dpi, atol=1)
        assert image.convert("RGB").getcolors(maxcolors=10) is None  # there are more


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", DRAWN)
def test_every_figure_takes_every_style(name, style):
    figure = drawn(name, 1, STYLES[style])
    assert figure.dpi == STYLES[style].dpi
    assert figure.get_figwidth() <= STYLES[style].page
    texts = [text for axes in figure.axes for text in (*axes.texts, axes.xaxis.label, axes.yaxis.label, axes.title)]
    assert min(text.get_fontsize() for text in [*figure.texts, *texts]) >= STYLES[style].small - 0.5
    for axes in figure.axes:
        assert all(label.get_fontsize() <= STYLES[style].type for label in axes.get_xticklabels())


@pytest.mark.parametrize("name", ["scales", "patch_size", "receptive_field", "trajectory"])
def test_time_runs_from_noise_on_the_left_to_the_image_on_the_right(name):
    *_, axes = (axes for axes in drawn(name, 1, figures.SCREEN).axes if "time" in axes.get_xlabel())
    assert axes.get_xlim() == (1, 0)
    assert axes.get_xlabel() == "time t, from 1 (noise) to 0 (image)"


@pytest.mark.parametrize("name", ["scales", "scatter", "creativity_map"])
def test_a_notebook_shows_it_large_enough_to_read(name):
    """Without a word of matplotlib in the notebook, which then has no renderer of figures."""
    shown, _ = DisplayFormatter().format(drawn(name, 1, figures.SCREEN))
    width, height = Image.open(io.BytesIO(shown["image/png"])).size
    assert width >= 600
    assert height >= 150
    assert figures.SCREEN.small * figures.SCREEN.dpi / 72 >= 13  # pixels, of the smallest letters


def test_nothing_is_cut_off_at_the_border():
    for name in ("sweep", "scales", "patch_size", "receptive_field", "pairs", "side_by_side"):
        for style in (figures.SCREEN, figures.PRINT):
            figure = drawn(name, 1, style)
            figure.draw_without_rendering()
            box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
            assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.01, name


def test_an_svg_has_the_colours_of_its_page_and_names_of_its_own():
    found = [figures.svg(figures.scales, table, SCHEDULE, field=gradients()) for table in (tables(1), {})]
    for text in found:
        assert text.startswith("<svg")
        assert "var(--ink)" in text
        assert figures.PAGE.ink not in text
        assert "<text" in text
    assert "var(--bbels)" in found[0]
    one, other = (set(re.findall(r'id="([^"]+)"', text)) for text in found)
    assert not one & other
    assert found[1] == figures.svg(figures.scales, {}, SCHEDULE, field=gradients())


def test_shares_are_written_as_people_write_them():
    assert [percent(1), percent(0.995), percent(0.1234, 1)] == ["100 %", "100 %", "12.3 %"]


@pytest.mark.parametrize("name", ["scatter", "losses"])
def test_the_axes_of_a_plot_are_labelled(name):
    first, *_ = drawn(name, 1, figures.SCREEN).axes
    assert first.get_xlabel()
    assert first.get_ylabel()
    assert first.get_legend() is not None


def test_the_scales_have_labelled_axes_with_units():
    top, *_, bottom = drawn("scales", 1, figures.SCREEN).axes
    assert "[pixels]" in top.get_ylabel()
    assert "time t" in bottom.get_xlabel()
    assert "worse than the best" in bottom.get_ylabel()


def shown(picture) -> np.ndarray:
    """What is shown, as bytes (height, width, 3), without its enlargement."""
    array = np.asarray(picture.get_array())
    return array[:: len(array) // 6, :: array.shape[1] // 6]


def places(figure) -> list[list[int]]:
    """Column and row of every picture."""
    corners = np.array([picture.get_extent() for picture in figure.axes[0].get_images()])[:, [0, 3]].round(6)
    return np.stack([np.unique(each, return_inverse=True)[1] for each in corners.T], axis=1).tolist()


def words(figure) -> dict[str, tuple[float, float]]:
    return {text.get_text(): text.get_position() for text in figure.axes[0].texts}


def test_rows_are_named_and_columns_titled():
    figure = figures.image_rows({"theory": images(2, 1), "network": images(2, 1)}, ["r = 0.1", "r = 0.2"])
    found = words(figure)
    centres = [np.mean(np.reshape(picture.get_extent(), (2, 2)), axis=1) for picture in figure.axes[0].get_images()]
    for name, centre in (("theory", centres[0]), ("network", centres[2])):
        assert found[name][1] == pytest.approx(centre[1])
        assert found[name][0] < centre[0]
    for title, centre in (("r = 0.1", centres[0]), ("r = 0.2", centres[1])):
        assert found[title][0] == pytest.approx(centre[0])
        assert found[title][1] < centre[1]


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_shown_from_black_at_minus_one_to_white_at_one(channels):
    picture = images(1, channels)
    (drawn,) = figures.image_rows({"a": picture}).axes[0].get_images()
    expected = ((picture[0] + 1) * 127.5).round().expand(3, 6, 6).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(shown(drawn), expected)


def test_pixels_beyond_the_range_are_clipped():
    (drawn,) = figures.image_rows({"a": 3 * images(1, 3)}).axes[0].get_images()
    assert shown(drawn).min() == 0
    assert shown(drawn).max() == 255


def test_a_shorter_row_leaves_its_last_places_empty():
    figure = figures.image_rows({"a": images(1, 1), "b": images(3, 1)})
    assert places(figure) == [[0, 0], [0, 1], [1, 1], [2, 1]]


def test_pairs_show_machines_above_the_network_from_the_same_noise():
    comparison = compared(1)
    figure = figures.pairs(comparison, "bbels")
    order = comparison.values("bbels", 2).argsort(descending=True, stable=True)
    rows = [*comparison.machines.values(), comparison.network[2]]
    expected = [((samples[pair, 0] + 1) * 127.5).round().clamp(0, 255) for samples in rows for pair in order]
    pictures = figure.axes[0].get_images()
    assert places(figure) == [[column, row] for row in range(3) for column in range(PAIRS)]
    for picture, image in zip(pictures, expected, strict=True):
        np.testing.assert_array_equal(shown(picture)[..., 0], image)
    names = sorted(("bbELS", "IS", "network,\n2 steps"), key=lambda name: words(figure)[name][1])
    assert names == ["bbELS", "IS", "network,\n2 steps"]


def test_the_r_beneath_an_image_is_that_of_its_machine():
    comparison = compared(1)
    texts = [text.get_text() for text in figures.pairs(comparison, "is").axes[0].texts]
    order = comparison.values("is", 2).argsort(descending=True, stable=True)
    for name, label in (("bbels", "bbELS"), ("is", "IS")):
        place = texts.index(label)
        r = [f"{value:.2f}" for value in comparison.values(name, 2)[order].tolist()]
        assert texts[place + 1 : place + 2 + PAIRS] == ["r =", *r]
    assert "ranks: by that of IS" in " ".join(texts[-1].split())


def test_pairs_show_no_more_than_asked_for():
    assert len(figures.pairs(compared(1), "bbels", count=2).axes[0].get_images()) == 3 * 2


@pytest.mark.parametrize("network_steps", [(2,), (2, 3), (1, 2, 3, 4, 5)], ids=len)
def test_the_scatter_has_a_point_per_pair_and_number_of_network_steps(network_steps):
    comparison = compared(1, network_steps)
    panels = [axes for axes in figures.scatter(comparison, ["bbels"]).axes if axes.axison]
    assert [axes.get_title() for axes in panels] == [f"network, {steps} steps" for steps in network_steps]
    for axes, steps in zip(panels, network_steps, strict=True):
        (points,) = (line for line in axes.get_lines() if line.get_label().startswith("bbELS"))
        expected = [comparison.values("is", steps), comparison.values("bbels", steps)]
        np.testing.assert_allclose(points.get_data(), torch.stack(expected))
        share = comparison.share_beating_baseline("bbels", steps)
        assert points.get_label() == f"bbELS: {percent(share)} above IS"


def test_the_scatter_shows_every_point():
    for axes in figures.scatter(compared(1)).axes:
        points = np.concatenate([line.get_data() for line in axes.get_lines()], axis=1)
        low, high = axes.get_xlim()
        assert axes.get_ylim() == (low, high)
        assert low <= points.min()
        assert points.max() <= high


def scales(calibrations, **options):
    found = {name: calibration.scales for name, calibration in calibrations.items()}
    return figures.scales(found, SCHEDULE, calibrations=calibrations, **options)


def test_the_scales_are_drawn_at_their_times():
    calibrations = calibrated(1)
    top = scales(calibrations).axes[0]
    assert [line.get_label() for line in top.get_lines()] == ["bbELS", "LS"]
    for line, calibration in zip(top.get_lines(), calibrations.values(), strict=True):
        times, sizes = line.get_data()
        np.testing.assert_allclose(times, [1 / 3, 2 / 3, 1])
        np.testing.assert_array_equal(sizes, calibration.scales.patch_size)


def test_the_evidence_has_a_curve_per_patch_size():
    calibration = calibrated(1, ("ls",))
    _, bottom = scales(calibration).axes
    *curves, chosen = bottom.get_lines()
    assert [line.get_label() for line in (*curves, chosen)] == ["P = 3", "P = 5", "calibrated"]
    medians = calibration["ls"].agreement.double().quantile(0.5, dim=2)
    for line, curve in zip(curves, medians.T, strict=True):
        np.testing.assert_allclose(line.get_xdata(), [1, 2 / 3, 1 / 3])
        np.testing.assert_allclose(line.get_ydata(), medians.max(dim=1).values - curve)
    for step, (size, value) in enumerate(
        zip(calibration["ls"].scales.patch_size.flip(0), chosen.get_ydata(), strict=True)
    ):
        assert value == curves[[3, 5].index(int(size))].get_ydata()[step]
    assert min(line.get_ydata().min() for line in curves) == 0
    low, high = bottom.get_ylim()
    assert low > high  # the best on top


def test_the_agreement_is_named_by_its_objective():
    _, bottom = scales(calibrated(1, ("ls",))).axes
    assert bottom.get_ylabel() == "LS: median cosine,\nworse than the best by"


@pytest.mark.parametrize(
    ("steps", "shown"), [(3, ["1.00", "0.67", "0.33"]), (1, ["1.00"]), (20, ["1.00", "0.50", "0.05"])]
)
def test_the_gradients_are_mapped_at_their_times_relative_to_their_peak(steps, shown):
    field = gradients(steps)
    *maps, _, _ = figures.receptive_field(field, {}, SCHEDULE, count=3).axes
    lines = np.array(maps).reshape(2, -1)
    assert [axes.get_title() for axes in lines[0]] == [f"t = {t}" for t in shown]
    assert [axes.get_ylabel() for axes in lines[:, 0]] == ["|∂ε / ∂xₜ|", "|∂x₀ / ∂xₜ|"]
    for line, gradients_of in zip(lines, (field.gradient, field.x0_gradient), strict=True):
        for axes, t in zip(line, shown, strict=True):
            step = steps - round(float(t) * steps)
            expected = gradients_of[step] / gradients_of[step].max()
            np.testing.assert_allclose(axes.get_images()[0].get_array(), expected.clamp(min=FLOOR), rtol=1e-6)
            side = int(effective_size(gradients_of, 0.9)[step])
            low, high = max(3 - side / 2, -0.5), min(3 + side / 2, 5.5)
            for frame in axes.patches:  # white on black
                np.testing.assert_allclose(frame.get_bbox().extents, [low, low, high, high])


def test_the_size_of_the_gradients_is_drawn_beside_the_machines_and_the_formal_receptive_field():
    field, machines = gradients(), tables(1)
    axes = figures.receptive_field(field, machines, SCHEDULE).axes[-1]
    lines = {line.get_label(): line.get_data() for line in axes.get_lines()}
    assert list(lines) == ["bbELS", "LS", "90 % of gradient", "receptive field, 5"]
    np.testing.assert_allclose(lines["90 % of gradient"], [[1, 2 / 3, 1 / 3], field.size(0.9)])
    assert set(lines["receptive field, 5"][1]) == {5}
    np.testing.assert_array_equal(lines["LS"][1], machines["ls"].patch_size)
    (band,) = axes.collections
    assert band.get_label() == "50–99 % of gradient"
    corners = {tuple(point) for point in band.get_paths()[0].vertices.round(6).tolist()}
    for share in (0.5, 0.99):
        assert set(zip([1, 0.666667, 0.333333], field.size(share).tolist(), strict=True)) <= corners
    assert "[pixels]" in axes.get_ylabel()
    assert "time t" in axes.get_xlabel()


def test_what_is_not_known_of_the_network_is_not_drawn():
    axes = figures.receptive_field(gradients(formal=None), {}, SCHEDULE).axes[-1]
    assert [line.get_label() for line in axes.get_lines()] == ["90 % of gradient"]


def test_a_network_without_gradients_is_drawn():
    field = GradientField(SCHEDULE.noise_levels(1), torch.zeros(1, 6, 6), torch.zeros(1, 6, 6))
    assert figures.receptive_field(field, {}, SCHEDULE).axes[0].get_images()[0].get_array().max() == 1e-3


@pytest.mark.parametrize("size", [3, 31])
def test_the_frames_are_windows_around_the_centre_within_the_image(size):
    gradient = torch.zeros(1, 8, 8)
    gradient[0, 4, 4] = 1
    field = GradientField(SCHEDULE.noise_levels(1), gradient, gradient)
    axes = figures.receptive_field(field, {"ls": ScaleTable([0.5], [size])}, SCHEDULE, machine="ls").axes[0]
    bounds = [patch.get_bbox().extents.tolist() for patch in axes.patches]
    assert bounds[0] == [3.5, 3.5, 4.5, 4.5]
    assert bounds[-1] == ([2.5, 2.5, 5.5, 5.5] if size == 3 else [-0.5, -0.5, 7.5, 7.5])


def test_what_is_left_is_drawn_where_there_is_evidence_and_without_logarithms_where_nothing_is():
    table = ScaleTable([0.9, 0.1], [3, 5])
    (axes,) = figures.patch_size({"ls": table}, SCHEDULE).axes
    assert axes.get_xlabel()
    levels, whole = torch.tensor([0.1, 0.9], dtype=torch.float64), torch.ones(2, 2, 4)
    for objective, label, scale in (
        ("cosine", "1 − cosine of the two ε", "linear"),
        ("mse", "mean squared error of the two ε", "linear"),
        ("heldout", "mean squared error on held-out images", "linear"),
    ):
        found = {"ls": Calibration(table, levels, sizes_only((3, 5)), whole, objective)}
        _, bottom = figures.patch_size({"ls": table}, SCHEDULE, calibrations=found).axes
        assert (bottom.get_ylabel(), bottom.get_yscale()) == (label, scale)


def test_losses_have_a_line_per_name_on_logarithmic_axes():
    (axes,) = figures.losses({"train/loss": [(2, 0.5), (4, 0.25)], "val/loss": [(0, 0.3)]}).axes
    lines = {line.get_label(): np.stack(line.get_data(), axis=1).tolist() for line in axes.get_lines()}
    assert lines == {"train/loss": [[2, 0.5], [4, 0.25]], "val/loss": [[1, 0.3]]}
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_the_consistency_of_every_sample_and_the_medians_are_marked():
    comparison = compared(1)
    (axes,) = figures.consistency(comparison).axes
    titles = [label.get_text() for label in axes.get_yticklabels()]
    assert titles[:3] == ["bbELS: own samples", "bbELS: network, 2 steps", "bbELS: network, 3 steps"]
    marks, median = axes.get_lines()[:2]
    found = [row["consistency"] for row in comparison.consistency if row["source"] == "bbels"]
    np.testing.assert_array_equal(marks.get_xdata(), found)
    assert set(median.get_xdata()) == {np.median(found)}


def test_runs_stand_side_by_side_with_the_medians_of_all_their_machines():
    comparison = compared(1)
    (axes,) = figures.side_by_side([(comparison, 2), (comparison, 3)], ["one", "other"]).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "other"]
    for bars, name in zip(axes.containers, ("bbels", "is"), strict=True):
        expected = [float(comparison.values(name, steps).quantile(0.5)) for steps in (2, 3)]
        np.testing.assert_allclose(bars.lines[0].get_xdata(), expected)


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
    figures.save(drawn("losses", 1, figures.SCREEN), path)
    before = path.read_bytes()
    with pytest.raises(OSError, match="no space left"):
        figures.save(Torn(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_long_name_is_cut():
    assert plain("a" * 17) == "a" * 15 + "…"
    assert plain("a" * 16) == "a" * 16


def test_the_ranking_shows_paired_differences_the_best_first():
    comparison = compared(1, (2,))
    axes = figures.ranking(comparison, 2).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        figures.display_name(name)
        for name in sorted(comparison.names, key=lambda name: -float(comparison.values(name, 2).median()))
    ]
    shown = {round(float(x), 9) for container in axes.containers for x in container.lines[0].get_xdata()}
    difference = comparison.values("is", 2) - comparison.values("bbels", 2)
    assert shown == {0.0, round(float(difference.quantile(0.5)), 9)}


def test_distances_at_the_networks_states_are_medians_per_noise_level():
    bank = images(5, 1)
    machines = {"bbels": BoundaryBrokenScoreMachine(bank, scales=3), "wiener": WienerScoreMachine(bank)}
    noise = torch.randn(PAIRS, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    options = {"steps": 3, "network_steps": 2, "noise": noise, "stepwise": True}
    comparison = compare(LocalScoreMachine(bank, scales=3), machines, SCHEDULE, **options)
    cosines, errors = figures.stepwise(comparison, SCHEDULE).axes
    for line, name in zip(cosines.get_lines(), machines, strict=True):
        np.testing.assert_allclose(line.get_xdata(), [1, 2 / 3, 1 / 3], atol=1e-9)
        expected = (1 - comparison.along(name, "eps_cosine")[1]).quantile(0.5, dim=1)
        np.testing.assert_allclose(line.get_ydata(), expected.clamp(min=1e-7))
    np.testing.assert_allclose(errors.get_lines()[1].get_ydata(), 1.0)  # Wiener's, of itself
    del machines["wiener"]
    comparison = compare(LocalScoreMachine(bank, scales=3), machines, SCHEDULE, **options)
    (cosines,) = figures.stepwise(comparison, SCHEDULE).axes  # there is nothing to hold errors against
    assert len(cosines.get_lines()) == 1
