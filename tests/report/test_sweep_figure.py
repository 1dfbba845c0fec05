"""The figure of a sweep."""

import itertools
from pathlib import Path

import pytest

from elslightning.report import figures
from elslightning.report.figures.sweeps import sweep


def run(x, r=None, size=None, **settings):
    found = {} if r is None else dict(zip(["_median", "_low", "_high"], [r, r - 0.1, r + 0.1], strict=True))
    found = {f"val/bbels/pearson_r{end}": value for end, value in found.items()}
    return {"x": x, **settings, **found} | ({} if size is None else {"val/bbels/patch_size_mean": size})


def curves(axes) -> dict[str, list[tuple[float, float]]]:
    """The lines with a label."""
    return {
        line.get_label(): list(zip(*line.get_data(), strict=True))
        for line in axes.lines
        if not line.get_label().startswith("_")
    }


def test_a_line_goes_through_the_medians_of_runs_alike():
    runs = [run(x, r, seed=seed) for x, (seed, r) in itertools.product([9, 5], enumerate([0.5, 0.9, 0.8]))]
    (axes,) = sweep(runs, "x").axes
    assert curves(axes) == {"bbELS": [(5, 0.8), (9, 0.8)]}
    assert len(axes.lines[0].get_xdata()) == 6
    assert axes.get_xlabel() == "x"


def test_there_is_a_row_per_quantity_and_a_column_per_value():
    runs = [run(x, 0.5, 3, pad=pad) for x, pad in itertools.product([1, 2], ["zeros", "circular"])]
    top = sweep(runs, "x", columns="pad", title="Why?")
    assert [axes.get_title() for axes in top.axes[:2]] == ["pad = zeros", "pad = circular"]
    assert [axes.get_ylabel() for axes in top.axes[::2]] == ["median Pearson r", "mean patch size [pixels]"]
    assert top.get_suptitle() == "Why?"


def test_lines_are_told_apart():
    runs = [run(1, r, way=way) for r, way in ((0.5, "a"), (0.7, "b"))]
    (axes,) = sweep(runs, "x", lines="way").axes
    assert curves(axes) == {"bbELS, way=a": [(1, 0.5)], "bbELS, way=b": [(1, 0.7)]}


@pytest.mark.parametrize(
    ("values", "scale"), [([1, 8], "log"), ([1, 7], "linear"), ([0, 9], "linear"), (["a", 9], "linear")]
)
def test_the_axis_is_logarithmic_for_numbers_that_span_much(values, scale):
    (axes,) = sweep([run(x, 0.5) for x in values], "x").axes
    assert axes.get_xscale() == scale
    assert [text.get_text() for text in axes.get_xticklabels()] == [str(value) for value in values]


def test_what_is_missing_leaves_gaps():
    runs = [run(1, 0.5), run(2), run(3, None, 4.0), {"x": 4, "val/loss": 1.0}]
    top, bottom = sweep(runs, "x").axes
    assert (curves(top), curves(bottom)) == ({"bbELS": [(1, 0.5)]}, {"bbELS": [(3, 4.0)]})


@pytest.mark.parametrize(
    "runs", [[], [{"x": 1}], [{"x": 1, "val/loss": 1.0, "val/bbels/steps_150/pearson_r_median": 0.9}]]
)
def test_without_results_there_is_no_figure(runs):
    assert sweep(runs, "x") is None


def test_it_can_be_saved(tmp_path: Path):
    figures.save(sweep([run(None, 0.5, 3)], "x"), tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size > 1000
