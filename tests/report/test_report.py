"""Reports: what they say is what the run's files say, and nothing in those files can do harm."""

import base64
import csv
import json
import re
import shutil
import time
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from files import unsealed, write_fashion_mnist
from omegaconf import OmegaConf
from tiny import cli, train

from elslightning.machines.scales import ScaleTable
from elslightning.measurement.calibration import Calibration
from elslightning.measurement.candidates import sizes_only
from elslightning.measurement.comparison import Comparison
from elslightning.measurement.doubts import FEW_PAIRS
from elslightning.measurement.mosaic import memorisation
from elslightning.report import figures
from elslightning.report.page.cautions import cautions
from elslightning.report.page.explorer import explore
from elslightning.report.page.markdown import escape
from elslightning.report.page.page import write_report
from elslightning.report.page.payload import pack
from elslightning.report.page.plan import FEWEST_PAIRS, MAP_BYTES, TOP, middle, plan, ranks
from elslightning.report.page.published import ROWS, published
from elslightning.report.page.side_by_side import write_comparison
from elslightning.runs.experiment import open_run, rebuild
from elslightning.system.errors import InputError

pytestmark = pytest.mark.usefixtures("no_drawing", "measured_once", "little_training")

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>|`*"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of digits with 5 pairs, which nobody may change."""
    return train(tmp_path_factory.mktemp("report") / "trained", "comparison.num_pairs=5")


@pytest.fixture
def run(trained, tmp_path):
    """A copy of that run, to work in."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="module")
def reported(trained, tmp_path_factory):
    """Its report: the page and the Markdown."""
    directory = Path(shutil.copytree(trained, tmp_path_factory.mktemp("reported") / "run"))
    return [path.read_text() for path in write_report(directory)]


def report(directory: Path, **options) -> tuple[str, str]:
    page, text = write_report(directory, **options)
    return page.read_text(), text.read_text()


class Elements(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found, self.scripts, self.text = [], [], []
        self._inside = None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text.append(data)


def cells(markdown: str) -> list[list[str]]:
    """The rows of all tables of a Markdown text."""
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    return [[cell.strip().strip("*") for cell in line.strip("|").split(" | ")] for line in lines]


# What is in it.


def test_the_tables_hold_the_numbers_of_the_summary(trained, reported):
    page, text = reported
    summary = json.loads((trained / "summary.json").read_text())
    rows = cells(text)
    for machine, by_steps in summary["machines"].items():
        for steps, entry in by_steps.items():
            r, r2 = entry["pearson_r"], entry["pearson_r2"]
            numbers = [f"{r['median']:.3f}", f"{r['low']:.3f} … {r['high']:.3f}", f"{r2['median']:.3f}"]
            assert [figures.display_name(machine), steps, *numbers] in [row[:5] for row in rows]
            assert all(f">{number}<" in page for number in numbers)


def test_every_pair_is_shown_and_the_best_median_and_worst_are_marked(trained, reported):
    page, _ = reported
    with (trained / "comparison.csv").open(newline="") as file:
        r = [float(row["pearson_r"]) for row in csv.DictReader(file) if row["machine"] == "bbels"]
    order = np.argsort(-np.array(r), kind="stable")
    shown = re.findall(r'alt="theory, pair (\d+)"', page)
    assert [int(pair) for pair in shown] == order.tolist()
    marks = re.findall(r"<figcaption><b>(\w+)</b> <span class=\"r\">([-\d.]+)</span>", page)
    assert marks == [("best", f"{max(r):.3f}"), ("median", f"{np.median(r):.3f}"), ("worst", f"{min(r):.3f}")]


def test_the_page_needs_nothing_but_itself(reported):
    elements = Elements(reported[0])
    addresses = [attrs[name] for _, attrs in elements.found for name in ("src", "href", "xlink:href") if name in attrs]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "@import" not in reported[0]
    identifiers = [attrs["id"] for _, attrs in elements.found if "id" in attrs]
    assert len(set(identifiers)) == len(identifiers)


@pytest.fixture(scope="module")
def opened(trained):
    return open_run(trained)


@pytest.fixture(scope="module")
def explored(opened):
    return explore(opened, rebuild(opened), pairs=3)


def test_the_explorer_holds_what_the_machine_attributes(opened, explored):
    run, found, experiment = opened, explored, rebuild(opened)
    order = np.argsort(-run.values("bbels", 2), kind="stable")
    assert found.pairs == order[[0, 2, 4]].tolist()
    assert [pair["mark"] for pair in found.meta["pairs"]] == ["best", "median", "worst"]
    arrays = unpack(found.blob, found.meta)
    assert (arrays["top_image"] == found.attributions.image.numpy()).all()
    assert (arrays["top_row"] == found.attributions.row.numpy()).all()
    assert (arrays["top_column"] == found.attributions.column.numpy()).all()
    np.testing.assert_allclose(arrays["top_weight"], found.attributions.weight, rtol=1e-3, atol=1e-7)
    nats = arrays["entropy"][:, -1] / 255 * found.meta["entropyMax"]
    np.testing.assert_allclose(nats, found.attributions.entropy, atol=found.meta["entropyMax"] / 255)
    samples = run.samples["bbels"][found.pairs]
    shown = arrays["theory"][:, -1] / 127.5 - 1
    np.testing.assert_allclose(shown, samples.clip(-1, 1), atol=0.005)
    bank = arrays["bank"] / 127.5 - 1
    np.testing.assert_allclose(bank, experiment.bank[torch.from_numpy(arrays["kept"].astype(int))], atol=0.005)
    assert found.coverage == 1


@pytest.mark.usefixtures("no_drawing")
def test_the_order_parameter_of_a_class_is_relative_to_its_images(tmp_path):
    run = open_run(train(tmp_path / "run", "denoiser.conditional=true", "report=false"))
    experiment = rebuild(run)
    pairs = explore(run, experiment, pairs=3).meta["pairs"]
    counts = torch.bincount(experiment.bank_labels)
    assert [pair["images"] for pair in pairs] == [int(counts[pair["label"]]) for pair in pairs]
    assert all(pair["images"] < len(experiment.bank) for pair in pairs)


def unpack(blob: str, meta: dict) -> dict[str, np.ndarray]:
    """What a browser makes of the arrays."""
    content = zlib.decompress(base64.b64decode(blob))
    found = {}
    for name, place in meta["arrays"].items():
        part = np.frombuffer(content[place["offset"] :][: place["bytes"]], np.uint8)
        kind = np.dtype(place["type"])
        found[name] = np.ascontiguousarray(part.reshape(kind.itemsize, -1).T).view(kind).reshape(place["shape"])
    return found


def test_arrays_come_back_from_their_text():
    arrays = {"a": np.arange(600, dtype=np.int32).reshape(2, 300), "b": np.linspace(0, 1, 7, dtype=np.float16)}
    blob, places = pack(arrays)
    for name, array in unpack(blob, {"arrays": places}).items():
        assert array.dtype == arrays[name].dtype
        assert (array == arrays[name]).all()


def test_agreement_per_step_starts_alike_and_ends_with_that_of_the_samples(opened, explored):
    torch.testing.assert_close(explored.own[0], explored.shared[0])  # at the first step all see the same noise
    assert explored.own.shape == explored.shared.shape == (2, 3)
    np.testing.assert_allclose(explored.own[-1], opened.values("bbels", 2)[explored.pairs], atol=1e-6)


@pytest.mark.usefixtures("no_rendering")
def test_with_little_work_one_pair_is_explored_and_attributed_at_its_end(opened, run):
    found = explore(opened, rebuild(opened), work=1.0)
    order = np.argsort(-opened.values("bbels", 2), kind="stable")
    assert found.pairs == [order[2]]
    assert [step["slot"] for step in found.meta["steps"]] == [-1, 0]
    assert found.own is not None
    assert found.shared is None
    page, text = report(run, work=1.0)
    assert "Here: 1 of 5 pairs; sources at 1 of the 2 steps shown." in page
    assert "for 1 pair of the explorer" in page
    assert "Medians over 1 of 5 pairs" in text


def test_the_mosaics_are_those_of_the_samples(opened, reported):
    experiment = rebuild(opened)
    rows = cells(reported[1])
    for title, images in (("bbELS", opened.samples["bbels"]), ("network, 2 steps", opened.samples["network_2"])):
        found = memorisation(experiment.machines["bbels"], torch.from_numpy(images))
        tiles, r = np.median(found.mosaic.tiles.numpy()), np.median(found.pearson_r.numpy())
        (row,) = [row for row in rows if row[0] == title and len(row) == 7 and "%" in row[3]]
        assert (row[1], row[6]) == (f"{tiles:g}", f"{r:.3f}")


# Which pairs, how much of them.


@pytest.mark.parametrize(("total", "count"), [(100, 9), (5, 9), (64, 4), (3, 3), (2, 1), (1, 9)])
def test_ranks_are_spread_and_hold_best_median_and_worst(total, count):
    found = ranks(total, count)
    assert len(found) == min(total, count)
    assert found == sorted(set(found))
    if count >= 3:
        assert {0, middle(total), total - 1} <= set(found)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 128, 128)])
@pytest.mark.parametrize("candidates", [100, 50_000, 60_000 * 1024])
def test_what_is_explored_stays_within_its_bounds(shape, candidates):
    work, area = 1e10, shape[1] * shape[2]
    found = plan(100, 9, 150, shape, candidates, work)
    assert found.shown[-1] == found.attributed[-1] == 149
    assert set(found.attributed) <= set(found.shown)
    weighed = 150 + len(found.attributed) + 150 * found.shared
    assert found.pairs * weighed * shape[0] * area * candidates <= work or (found.pairs, weighed) == (1, 151)
    stored = found.pairs * area * (3 * shape[0] * len(found.shown) + 7 * len(found.attributed) + 6 * TOP)
    least = found.pairs <= FEWEST_PAIRS and len(found.attributed) == len(found.shown) == 1
    assert stored <= MAP_BYTES or least


def test_a_hundred_pairs_of_noise_stay_small_and_quick(tmp_path):
    root = write_fashion_mnist(tmp_path / "data", train_size=24)
    sizes = ["data=fashion_mnist", f"data.root={root}", "data.train_size=24", "machines=[bbels,is]"]
    directory = train(tmp_path / "run", *sizes, "data.image_size=14", "comparison.num_pairs=100")
    start = time.perf_counter()
    page, _ = write_report(directory)
    assert time.perf_counter() - start < 60
    assert 100_000 < page.stat().st_size < 1_250_000  # a quarter of what as many images of 28 pixels may take
    assert page.read_text().count('alt="network, pair') == 100


# Nothing in a run's files is taken for markup.


def test_hostile_strings_stay_strings(trained, tmp_path):
    directory = Path(shutil.copytree(trained, tmp_path / "a<script>alert(3)&|b"))
    unsealed(directory)  # whoever makes such files makes their checksums, too
    record = {"command": f"elslightning train x={HOSTILE}", "git": {"commit": HOSTILE, "dirty": True}}
    (directory / "run.json").write_text(json.dumps(record))
    renamed = (directory / "comparison.csv").read_text().replace(",ls,", f",{HOSTILE},")
    (directory / "comparison.csv").write_text(renamed)
    summary = json.loads((directory / "summary.json").read_text().replace('"ls"', json.dumps(HOSTILE)))
    (directory / "summary.json").write_text(json.dumps(summary))
    page, text = report(directory)
    elements = Elements(page)
    assert len(elements.scripts) == 3
    assert not any("alert(" in script for script in elements.scripts)
    assert not any("onerror" in attrs for _, attrs in elements.found)
    assert HOSTILE in "".join(elements.text)
    assert "<script" not in text
    assert "<img" not in text
    (row,) = [line for line in text.splitlines() if line.startswith("| command |")]
    assert len(re.split(r"(?<!\\)\|", row)) == 4


def test_strings_in_the_data_of_the_explorer_cannot_end_it(explored):
    explorer = replace(explored, meta={"machine": HOSTILE})
    assert "<" not in explorer.json
    assert json.loads(explorer.json) == {"machine": HOSTILE}


def test_markdown_is_escaped():
    assert escape("a\nb|c <i> `x` [y]") == "a b\\|c &lt;i&gt; \\`x\\` \\[y\\]"


@pytest.mark.usefixtures("no_rendering")
def test_a_configuration_cannot_name_foreign_code(run, tmp_path):
    shutil.rmtree(run / "checkpoints")
    path = unsealed(run) / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    config.data._target_ = "os.system"
    config.schedule._target_ = "os.system"
    OmegaConf.save(config, path)
    page, _ = report(run)
    assert "os.system, which is not a class of elslightning" in page


# What is missing.

MISSING = {
    "calibration.csv": "The scales were given, not calibrated",
    "receptive_field.csv": "own gradients were not measured",
    "consistency.csv": "The run has no consistency.csv",
    "metrics.csv": "The run has no losses",
    "samples.npz": "The run has no samples.npz",
    "scales.json": "The run has no scales.json",
    "comparison.csv": "nothing was compared",
    "summary.json": "nothing was compared",
    "checkpoints/last.ckpt": "no checkpoint",
}


@pytest.mark.parametrize(("name", "sentence"), MISSING.items())
@pytest.mark.usefixtures("no_rendering")
def test_what_is_missing_is_left_out_with_a_sentence(run, reported, name, sentence):
    assert sentence not in reported[0]
    (run / name).unlink()
    page, _ = report(run, pairs=1)
    assert sentence in page
    if name not in ("comparison.csv", "summary.json", "scales.json"):
        assert "explorer-data" in page


@pytest.mark.usefixtures("no_rendering")
def test_without_its_configuration_a_run_is_known_by_its_checkpoint(run, reported):
    shutil.rmtree(run / ".hydra")
    (run / "run.json").unlink(missing_ok=True)  # which has the command too
    page, text = report(run)
    assert "explorer-data" in page
    assert "elslightning train" not in text


@pytest.mark.usefixtures("no_rendering")
def test_data_that_is_gone_leaves_out_what_needs_it(tmp_path):
    root = write_fashion_mnist(tmp_path / "data", train_size=10)
    sizes = ["data=fashion_mnist", f"data.root={root}", "data.train_size=10", "machines=[ls,is]"]
    directory = train(tmp_path / "run", *sizes)
    shutil.rmtree(root)
    page, text = report(directory)
    assert "There is no explorer: " in page
    assert str(root) in page
    assert "explorer-data" not in page
    assert "median r" in text


@pytest.mark.usefixtures("no_rendering")
def test_samples_that_cannot_be_made_again_are_not_explained(run):
    with np.load(run / "samples.npz") as content:
        arrays = {name: -content[name] if name == "bbels" else content[name] for name in content.files}
    np.savez_compressed(run / "samples.npz", **arrays)
    unsealed(run)  # whoever makes such files makes their checksums, too
    page, _ = report(run)
    assert "There is no explorer: the samples of bbels cannot be made again" in page


@pytest.mark.usefixtures("no_rendering")
def test_a_comparison_is_reported_with_what_it_took_from_its_checkpoint(trained, tmp_path):
    directory = tmp_path / "compared"
    done = cli(
        "compare",
        f"checkpoint={trained}",
        "comparison.num_pairs=4",
        "comparison.network_steps=3",
        "report=false",  # that of `report` is looked at
        f"hydra.run.dir={directory}",
    )
    assert done.code == 0, done.err
    page, text = report(directory)
    assert "explorer-data" in page
    assert "ResNet, width 16" in text
    assert "over 4 pairs" in text
    assert "other steps for the network" in page
    assert "the network was trained elsewhere" in text


# What is refused.


@pytest.mark.parametrize("kind", ["absent", "empty", "file"])
def test_a_directory_that_is_no_run_is_refused(tmp_path, kind):
    path = tmp_path / "run"
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.touch()
    with pytest.raises(InputError, match="is no finished run" if kind == "empty" else "is not a directory") as caught:
        write_report(path)
    assert "\n" not in str(caught.value)


def test_a_run_of_sample_is_refused(tmp_path):
    (tmp_path / "summary.json").write_text('{"samples": 3, "source": "bbels", "steps": 2}')
    with pytest.raises(InputError, match="a run of elslightning sample"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", "{"),
        ("summary.json", "[]"),
        ("scales.json", "{}"),
        ("run.json", "3"),
        ("comparison.csv", "pair,label,machine,steps,network_steps,pearson_r\n0,,bbels,2,2,nan\n"),
        ("comparison.csv", "pair,label,machine,steps,network_steps,pearson_r\n0,<b>,bbels,2,2,0.5\n"),
        ("samples.npz", "nothing"),
        (".hydra/config.yaml", "a: [1"),
    ],
)
def test_a_damaged_file_is_named_and_earlier_reports_stay(run, name, content):
    (run / "report.html").write_text("earlier")
    (run / name).write_text(content)
    with pytest.raises(InputError, match=re.escape(name.rpartition("/")[2])) as caught:
        write_report(run)
    assert "\n" not in str(caught.value)
    assert (run / "report.html").read_text() == "earlier"


def test_no_pairs_are_refused(trained):
    with pytest.raises(InputError, match="at least 1 pair, not 0"):
        write_report(trained, pairs=0)


# Warnings.


def said(run) -> set[str]:
    return {text.split(":")[0] for text in cautions(run)}


def test_few_pairs_are_warned_of(opened):
    for pairs, warned in ((FEW_PAIRS - 1, True), (FEW_PAIRS, False)):
        rows = [row | {"pair": pair} for row in opened.comparison.rows if row["pair"] == 0 for pair in range(pairs)]
        run = replace(opened, comparison=replace(opened.comparison, rows=rows))
        assert ("Few pairs" in said(run)) is warned


@pytest.mark.parametrize(
    ("sizes", "tried", "warnings"),
    [([5, 5], [3, 5, 7], 0), ([5, 7], [3, 5, 7], 1), ([3, 7], [3, 5, 7], 2), ([1, 5], [1, 5, 7], 0), ([9], [3, 5], 0)],
)
def test_scales_at_an_edge_of_the_list_are_warned_of(opened, sizes, tried, warnings):
    table = ScaleTable(np.linspace(0.1, 0.9, len(sizes)).tolist(), sizes)
    evidence = Calibration(table, table.alpha_bar, sizes_only(tried), torch.zeros(len(sizes), len(tried), 1))
    run = replace(opened, scales={"bbels": table}, calibrations={"bbels": evidence})
    assert sum(text.startswith("Scale at the edge") for text in cautions(run)) == warnings


def test_a_network_that_still_improves_is_warned_of(opened):
    steps = np.arange(100)
    for curve, warned in ((np.exp(-steps / 50), True), (0.1 + np.exp(-steps / 10), False), (steps[:3] / 1.0, False)):
        losses = {"val/loss": list(zip(range(100), (1 + 0 * curve + curve - 1).tolist(), strict=False))}
        assert ("Not converged" in said(replace(opened, losses=losses))) is warned


def test_machines_that_cannot_be_told_apart_are_warned_of(opened):
    def run(shift: float, spread: float):
        generator = np.random.default_rng(0)
        r = {"bbels": generator.normal(0.8, 0.05, 40)}
        r["ls"] = r["bbels"] - shift + generator.normal(0, spread, 40)
        rows = [
            {"pair": pair, "machine": name, "network_steps": 2, "pearson_r": float(value)}
            for name, values in r.items()
            for pair, value in enumerate(values)
        ]
        entries = {
            name: {"2": {"pearson_r": {"median": m, "low": m - 0.02, "high": m + 0.02}}}
            for name, m in ((name, float(np.median(values))) for name, values in r.items())
        }
        found = Comparison(rows, {}, {}, None)
        return replace(opened, comparison=found, summary={"pairs": 40, "steps": 2, "machines": entries})

    assert "Intervals overlap" not in said(run(0.2, 0.0))
    (alike,) = cautions(replace(run(0.0, 0.02), calibrations={}, losses={}))
    assert "cannot be told apart either" in alike
    (ahead,) = cautions(replace(run(0.03, 0.0), calibrations={}, losses={}))
    assert "Pair by pair bbELS is ahead nevertheless" in ahead


# The paper's numbers.


def test_the_paper_s_row_stands_beside_a_run_of_its_kind():
    def setting(**changes):
        values = {
            "data.dataset": "fashion_mnist",
            "denoiser._target_": "elslightning.ResNet",
            "denoiser.padding_mode": "zeros",
            "denoiser.conditional": True,
        } | changes
        return published(values.get)

    row = setting()
    assert (row.median("bbels", 150), row.median("bbels", 20), row.median("is", 20)) == (0.94, 0.90, 0.74)
    assert row.median("bbels", 50) is None
    assert row.median("els", 20) is None
    assert setting(**{"denoiser.padding_mode": "circular"}) is None
    assert setting(**{"data.dataset": "digits"}) is None
    assert setting(**{"denoiser.attention": [2]}) is None
    assert len({(row.data, row.network, row.padding) for row in ROWS}) == len(ROWS) == 10


# Several runs.


def test_runs_stand_side_by_side(trained, run, tmp_path):
    path = unsealed(run) / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    config.optimizer.lr = 0.5
    OmegaConf.save(config, path)
    page, markdown = write_comparison([trained, run], tmp_path / "both.html")
    assert (page.name, markdown.name) == ("both.html", "both.md")
    text = markdown.read_text()
    rows = cells(text)
    for name in ("trained", "run"):
        summary = json.loads((trained / "summary.json").read_text())
        for machine, by_steps in summary["machines"].items():
            median = f"{by_steps['2']['pearson_r']['median']:.3f}"
            assert [name, figures.display_name(machine), "2", "5", median] in [row[:5] for row in rows]
    assert ["optimizer.lr", "0.0001", "0.5"] in [[cell.replace("\\", "") for cell in row] for row in rows]
    assert len(Elements(page.read_text()).scripts) == 0


def test_runs_that_cannot_stand_side_by_side_are_refused(trained, run, tmp_path):
    with pytest.raises(InputError, match="at least 2, not 1"):
        write_comparison([trained], tmp_path / "a.html")
    with pytest.raises(InputError, match=r"must end in \.html, not a\.pdf"):
        write_comparison([trained, run], tmp_path / "a.pdf")
    (run / "comparison.csv").unlink()
    with pytest.raises(InputError, match="has no comparison"):
        write_comparison([trained, run], tmp_path / "a.html")
