"""Publication figures: written for every run as PNG and PDF, true to its files, labelled, and legible."""

import re

import numpy as np
import pytest
import torch
from files import unsealed
from matplotlib import rcParams
from PIL import Image
from tiny import PAIRS, cli, train

from elslightning.data.names import class_names
from elslightning.diffusion.schedule import CosineSchedule
from elslightning.machines.scales import load_scales
from elslightning.measurement.comparison import Comparison
from elslightning.report import paper as publication
from elslightning.report.figures import PRINT, class_grids, pairs, save_formats, scatter
from elslightning.report.figures.patches import FLOOR
from elslightning.runs.contents import calibration_rows
from elslightning.runs.run import read_run
from elslightning.system.errors import InputError

pytestmark = pytest.mark.usefixtures("plain_fonts")

SCHEDULE = CosineSchedule()
COMPARED = ["fig4a_receptive_field", "fig4b_patch_size", "fig5_pairs", "fig5_scatter", "fig10_grid", "ranking"]
HOSTILE = ["$x_{$", "<script>alert(1)</script>", "two\nlines\x00", "\udcff", "长" * 40, "", "%s{0}", "\\frac"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, no_drawing):
    return train(tmp_path_factory.mktemp("run"), "denoiser.conditional=true", "comparison.network_steps=[2,3]")


@pytest.fixture(scope="module")
def black_white(tmp_path_factory, no_drawing):
    directory = tmp_path_factory.mktemp("black_white")
    done = cli("sample", "experiment=black_white", "num_samples=9", "steps=10", f"hydra.run.dir={directory}")
    assert done.code == 0, done.err
    return directory


@pytest.fixture
def run(trained):
    return read_run(trained)


def drawn(run, name):
    (figure,) = publication.FIGURES[name](run)
    return figure


def words(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def pixels(picture) -> np.ndarray:
    """What a sheet shows, as bytes, without its enlargement."""
    return np.asarray(picture.get_array())[::8, ::8, 0]


def as_bytes(image: np.ndarray) -> np.ndarray:
    return ((image.astype(np.float64).clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)


def test_every_figure_of_a_run_is_written_as_png_and_pdf(trained, tmp_path):
    done = cli("figures", str(trained), f"output={tmp_path / 'new' / 'folder'}")
    assert done.code == 0, done.err
    folder = tmp_path / "new" / "folder"
    assert {path.name for path in folder.iterdir()} == {f"{name}.{end}" for name in COMPARED for end in ("png", "pdf")}
    for name in COMPARED:
        with Image.open(folder / f"{name}.png") as image:
            image.load()
            assert image.width <= 300 * PRINT.page + 1
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        content = (folder / f"{name}.pdf").read_bytes()
        assert content.startswith(b"%PDF")
        assert content.rstrip().endswith(b"%%EOF")
        assert b"/Type3" not in content  # journals refuse fonts that are drawings
        assert f"figure: {folder / name}.png and {name}.pdf" in done.out
    assert "left out: fig3_black_white: only for a run of elslightning sample experiment=black_white" in done.out


def test_figures_lie_in_the_run_if_no_folder_is_given(black_white):
    written = publication.write_figures(black_white)
    assert written.files == [black_white / "figures" / "paper" / f"fig3_black_white.{end}" for end in ("png", "pdf")]
    assert set(written.left_out) == {*COMPARED, "stepwise"}


def test_the_user_s_own_style_neither_counts_nor_changes(run):
    before = dict(rcParams)
    rcParams["font.size"] = 40.0
    try:
        figure = drawn(run, "fig5_scatter")
        assert rcParams["font.size"] == 40.0
    finally:
        rcParams.update(before)
    assert figure.axes[0].xaxis.label.get_fontsize() == 7


def test_figure_3_shows_both_training_images_and_the_samples(black_white):
    figure = drawn(read_run(black_white), "fig3_black_white")
    black, white, *samples = (picture.get_array() for picture in figure.axes[0].get_images())
    assert (black.max(), white.min()) == (0, 255)
    with np.load(black_white / "samples.npz") as arrays:
        expected = as_bytes(arrays["samples"][:, 0])
    np.testing.assert_array_equal([sample[::4, ::4, 0] for sample in samples], expected)
    assert any(re.search(r"\d+ % of pixels are consistent", text) for text in words(figure))


def test_figure_4a_shows_the_gradients_of_the_file(run, trained):
    figure = drawn(run, "fig4a_receptive_field")
    *maps, bar = figure.axes
    with np.load(trained / "receptive_field.npz") as arrays:
        for line, name in zip(np.array(maps).reshape(2, -1), ("gradient", "x0_gradient"), strict=True):
            for axes, gradient in zip(line, arrays[name], strict=True):
                expected = np.maximum(gradient / gradient.max(), FLOOR)
                np.testing.assert_allclose(axes.get_images()[0].get_array(), expected, rtol=1e-6)
    assert [axes.get_title() for axes in maps] == ["t = 1.00", "t = 0.50", "", ""]
    assert [axes.get_ylabel() for axes in maps] == ["|∂ε / ∂xₜ|", "", "|∂x₀ / ∂xₜ|", ""]
    assert bar.get_ylabel() == "relative to the peak"


def test_figure_4b_shows_the_scales_of_the_file(run, trained):
    top, bottom = drawn(run, "fig4b_patch_size").axes
    lines = {line.get_label(): line.get_data() for line in top.get_lines()}
    for name, label in (("bbels", "bbELS"), ("ls", "LS")):
        table = load_scales(trained / "scales.json")[name]
        times, sizes = lines[label]
        np.testing.assert_allclose(times, SCHEDULE.time(table.alpha_bar))
        np.testing.assert_array_equal(sizes, table.patch_size)
    np.testing.assert_array_equal(lines["90 % of gradient"][1], run.gradients.size(0.9))
    assert top.get_ylabel() == "patch size, window [pixels]"
    assert bottom.get_xlabel() == "time t, from 1 (noise) to 0 (image)"
    assert bottom.get_ylabel() == "1 − cosine of the two ε"
    for line, name in zip(bottom.get_lines(), ("bbels", "ls"), strict=True):
        table = run.scales[name]
        np.testing.assert_allclose(line.get_xdata(), SCHEDULE.time(table.alpha_bar.flip(0)))
        for level, value in zip(table.alpha_bar.flip(0).tolist(), line.get_ydata(), strict=True):
            size = int(table.at(torch.tensor([level], dtype=torch.float64))[0])
            found = [
                row["agreement"]
                for row in calibration_rows(run.calibrations)
                if (row["machine"], row["alpha_bar"], row["patch_size"]) == (name, level, size)
            ]
            assert value == pytest.approx(1 - np.median(found))


def test_figure_5_ranks_the_pairs_by_the_r_of_the_theory(run):
    figure = drawn(run, "fig5_pairs")
    r, order = {name: run.values(name, 2) for name in run.theories}, np.argsort(-run.values("bbels", 2))
    shown = [pixels(picture) for picture in figure.axes[0].get_images()]
    assert len(shown) == PAIRS * (1 + len(run.theories))
    expected = [*(run.images(name, 2) for name in run.theories), run.network_images(2)]
    np.testing.assert_array_equal(shown, [as_bytes(of[pair, 0]) for of in expected for pair in order])
    said = words(figure)
    for pair in order:
        assert all(f"{of[pair]:.2f}" in said for of in r.values())
    titles = [f"{rank}\n{run.labels()[pair]}" for rank, pair in zip(("1", "2", "3 of 3"), order, strict=True)]
    assert {*titles, "network,\n2 steps", "bbELS", "LS", "IS"} <= set(said)
    assert figure.get_figwidth() <= PRINT.column


def test_the_scatter_shows_the_values_of_the_file_and_all_of_them(run):
    figure = drawn(run, "fig5_scatter")
    assert [axes.get_title() for axes in figure.axes] == ["network, 2 steps", "network, 3 steps"]
    assert figure.axes[0].get_ylabel()
    for axes, steps in zip(figure.axes, (2, 3), strict=True):
        points = {line.get_label().split(":")[0]: line.get_data() for line in axes.get_lines()}
        for name, label in (("bbels", "bbELS"), ("ls", "LS")):
            np.testing.assert_array_equal(points[label], [run.values("is", steps), run.values(name, steps)])
            assert axes.get_xlim()[0] <= min(map(np.min, points[label]))
        assert axes.get_xlabel() == "Pearson r of IS with the network"


@pytest.mark.parametrize("count", [1, 3, 5])
def test_the_scatter_has_a_labelled_panel_per_number_of_network_steps(count):
    r = np.linspace(-0.5, 0.9, 4).tolist()
    rows = [
        {"machine": name, "network_steps": steps, "pair": pair, "pearson_r": value - shift}
        for steps in range(count)
        for name, shift in (("ls", 0.0), ("is", 0.1))
        for pair, value in enumerate(r)
    ]
    figure = scatter(Comparison(rows, {}, {}, None), style=PRINT)
    panels = [axes for axes in figure.axes if axes.axison]
    assert len(panels) == count
    assert all(axes.get_xlabel() for axes in panels)
    assert figure.get_figwidth() <= PRINT.page


def test_the_grid_has_a_line_per_class_and_the_pairs_of_it(run):
    figure = drawn(run, "fig10_grid")
    assert run.labels() == [0, 1, 2]
    names = [text.get_text() for text in figure.axes[0].texts if text.get_fontsize() == 7]
    assert names == ["class", "0", "1", "2"]
    shown = [pixels(picture) for picture in figure.axes[0].get_images()]
    order = [run.images("bbels", 2), run.network_images(2), run.images("is", 2)]
    np.testing.assert_array_equal(shown, [as_bytes(of[pair, 0]) for pair in range(PAIRS) for of in order])


def comparison(count: int, r: list[float] | None = None) -> Comparison:
    """Two machines that make what the network makes, with these r."""
    images = torch.linspace(-1, 1, count * 12).reshape(count, 3, 2, 2)
    values = torch.linspace(0, 1, count).tolist() if r is None else r
    rows = [
        {"machine": name, "network_steps": 2, "pair": pair, "pearson_r": value}
        for name in ("ls", "is")
        for pair, value in enumerate(values)
    ]
    return Comparison(rows, {2: images}, {"ls": images, "is": images}, None)


def grid(pairs, names=None):
    return list(class_grids(comparison(pairs), "ls", classes=names))


def test_more_classes_than_fit_make_more_pages():
    figures = grid(46, [f"class {pair % 23}" for pair in range(46)])
    assert [len(figure.axes[0].get_images()) // 3 for figure in figures] == [20, 20, 6]


def test_without_classes_the_first_pairs_fill_one_page():
    (figure,) = grid(64)
    assert len(figure.axes[0].get_images()) == 3 * 60
    assert {"pairs", "1–6", "55–60"} <= set(words(figure))


@pytest.mark.parametrize("classes", zip(HOSTILE[::2], HOSTILE[1::2], strict=True), ids=range(len(HOSTILE) // 2))
@pytest.mark.filterwarnings("ignore:Glyph")  # the font does not have every script
def test_a_class_may_have_any_name(classes, tmp_path):
    found = comparison(2, [0.1, 0.9])
    ranked = pairs(found, "ls", classes=classes, style=PRINT)
    (page,) = class_grids(found, "ls", classes=classes)
    for figure in (ranked, page):
        for path in save_formats(figure, tmp_path / "figure"):
            assert path.stat().st_size > 1000
        titles = ("network", "rank", "1\n", "2 of 2\n", "A column")
        assert all("\n" not in text or text.startswith(titles) for text in words(figure))
        assert all(text.count("\n") <= 1 for text in words(figure) if not text.startswith("A column"))


def test_the_names_of_classes_are_those_of_the_folders(tmp_path):
    for name in ("zebra", "$ant_{", "cat"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "val" / name).mkdir(parents=True)
        for part in ("train", "val"):
            Image.new("L", (4, 4)).save(tmp_path / part / name / "one.png")
    assert class_names("folder", tmp_path) == ("$ant_{", "cat", "zebra")
    assert class_names("folder", tmp_path / "train") == ("$ant_{", "cat", "zebra")
    assert class_names("folder", tmp_path / "gone") == ()
    assert class_names("photos") == ()
    assert len(class_names("fashion_mnist")) == len(class_names("mnist")) == 10


def test_a_class_without_a_known_name_has_its_number(run):
    run.config.data.dataset = "photos"
    assert "class 2" in words(drawn(run, "fig10_grid"))


def test_no_type_is_too_small_to_read(run):
    for name in COMPARED:
        figure = drawn(run, name)
        texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
        texts += [axes.xaxis.label for axes in figure.axes] + [axes.yaxis.label for axes in figure.axes]
        assert min(text.get_fontsize() for text in texts) >= PRINT.small - 0.5


LACKS = {
    "receptive_field.npz": ("fig4a_receptive_field", "there is no receptive_field.npz"),
    "scales.json": ("fig4b_patch_size", "there is no scales.json"),
    "samples.npz": ("fig5_pairs", "samples.npz does not hold the samples of the network"),
    "comparison.csv": ("fig5_scatter", "did not compare"),
}


def copy(trained, directory, *left_out):
    for path in trained.rglob("*"):
        if path.is_file() and path.name not in left_out and path.suffix in (".json", ".csv", ".npz", ".yaml"):
            target = directory / path.relative_to(trained)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return directory


@pytest.mark.parametrize("name", LACKS)
def test_what_a_run_lacks_is_named_and_the_rest_is_drawn(trained, tmp_path, name, monkeypatch):
    monkeypatch.setattr(publication, "save_formats", lambda figure, stem: [stem])  # drawing takes its time
    written = publication.write_figures(copy(trained, tmp_path, name))
    figure, reason = LACKS[name]
    assert reason in written.left_out[figure]
    assert len(written.files) + len(written.left_out) == len(publication.FIGURES)


def test_samples_of_another_run_are_not_drawn(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(publication, "save_formats", lambda figure, stem: [stem])
    directory = copy(trained, tmp_path)
    with np.load(trained / "samples.npz") as arrays:
        np.savez(directory / "samples.npz", **{name: array[:-1] for name, array in arrays.items()})
    with pytest.raises(InputError, match=r"samples\.npz was not written with summary\.json"):
        publication.write_figures(directory)
    # Of a version that wrote no checksums, what does not fit is told by its shape.
    unsealed(directory)
    left_out = publication.write_figures(directory).left_out
    assert "for the network, where there are 3 samples" in left_out["fig5_pairs"]
    assert "fig10_grid" in left_out


def test_a_run_without_data_for_any_figure_is_refused(tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    done = cli("figures", str(tmp_path))
    assert done.code == 2
    assert f"{tmp_path} has data for no figure" in done.err
    assert done.err.count("\n") == 1


def test_a_directory_that_is_no_run_gets_one_line(tmp_path):
    done = cli("figures", str(tmp_path))
    assert (done.code, done.out) == (2, "")
    reason = f"{tmp_path} is no run: it has neither .hydra/config.yaml nor summary.json"
    assert done.err == f"elslightning: error: {reason}\n"


def test_a_folder_that_cannot_be_written_to_is_refused(trained, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the figures"):
        publication.write_figures(trained, tmp_path / "file")


@pytest.mark.parametrize("arguments", [(), ("a", "b"), ("--flag",), ("a", "output=")], ids=str)
def test_misuse_shows_the_usage(arguments):
    done = cli("figures", *arguments)
    assert (done.code, done.err) == (2, "elslightning: error: usage: elslightning figures RUN_DIR [output=FOLDER]\n")


def test_a_schedule_that_is_not_ours_is_not_called(trained, tmp_path):
    directory = unsealed(copy(trained, tmp_path))
    config = directory / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("elslightning.CosineSchedule", "os.getcwd"))
    with pytest.raises(InputError, match=r"names os\.getcwd"):
        publication.write_figures(directory)
