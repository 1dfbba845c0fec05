"""The report of a multirun: its table and its figure, from whatever its jobs have left."""

import json

import pytest
from jobs import job, rows, started, summary
from omegaconf import OmegaConf
from PIL import Image
from tiny import cli

from elslightning.measurement.novelty import ENDS
from elslightning.report import sweep as sweep_report
from elslightning.report.sweep import report
from elslightning.runs.jobs import Job
from elslightning.system.errors import InputError
from elslightning.system.files import write_csv

pytestmark = pytest.mark.usefixtures("no_layout")


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn: the runs and how they are shown, in place of a picture."""
    calls = []

    def draw(runs, x, **options):
        calls.append((runs, x, options))

    monkeypatch.setattr(sweep_report, "sweep", draw)
    return calls


def test_a_row_has_what_was_set_and_what_was_found(tmp_path, drawn):
    for layers in (1, 2):
        job(tmp_path / str(layers), layers)
    found = report(tmp_path)
    assert (found.written, found.complaint, found.skipped()) == ([tmp_path / "sweep.csv"], None, None)
    first, second = rows(tmp_path)
    assert (second["job"], second["status"], second["error"], second["seconds"]) == ("2", "finished", "", "1.5")
    assert (first["denoiser.num_layers"], second["denoiser.num_layers"]) == ("1", "2")
    assert (first["receptive_field"], second["receptive_field"]) == ("7", "9")
    assert (second["val/bbels/patch_sizes"], second["val/bbels/patch_size_mean"]) == ("3 9", "6.0")
    assert second["val/network/patch_size_mean"] == "5.0"
    expected = summary(2)["machines"]["is"]["2"]
    for name in ("median", "low", "high"):
        assert float(second[f"val/is/pearson_r_{name}"]) == expected["pearson_r"][name]
    assert second["val/bbels/beats_is"] == "1.0"
    assert "sweep" not in second


def test_without_a_question_the_figure_is_about_what_varies(tmp_path, drawn):
    for layers in (1, 2):
        job(tmp_path / str(layers), layers)
    report(tmp_path)
    runs, x, options = drawn[0]
    assert (x, options["columns"], options["lines"]) == ("denoiser.num_layers", None, None)
    assert [run[x] for run in runs] == [1, 2]


def test_the_sweep_says_what_the_figure_shows(tmp_path, drawn):
    job(tmp_path / "1", 1, sweep={"question": "Why?", "x": "receptive_field", "columns": "denoiser.width", "more": 1})
    report(tmp_path)
    (runs, x, options) = drawn[0]
    assert (x, options) == ("receptive_field", {"columns": "denoiser.width", "lines": None, "title": "Why?"})
    assert [(run["receptive_field"], run["denoiser.width"]) for run in runs] == [(7, 16)]


@pytest.mark.parametrize("chosen", ["experiment", "denoiser"])
def test_a_choice_of_a_group_is_a_setting(tmp_path, drawn, chosen):
    for name in ("one", "other"):
        directory = job(tmp_path / name, 1)
        Job(directory, (f"{chosen}={name}",), "finished").write()
        (directory / ".hydra" / "overrides.yaml").write_text(f'["{chosen}={name}"]')
    report(tmp_path)
    runs, x, _ = drawn[0]
    assert (x, [run[x] for run in runs]) == (chosen, ["one", "other"])
    assert [row[chosen] for row in rows(tmp_path)] == ["one", "other"]


def test_a_history_has_a_point_per_comparison(tmp_path, drawn):
    job(tmp_path / "1", 1, sweep={"question": "When?", "x": "step", "history": True})
    report(tmp_path)
    (runs, x, _) = drawn[0]
    shown = [(run[x], run["val/bbels/pearson_r_median"], run["val/bbels/patch_size_mean"]) for run in runs]
    assert shown == [(10, 0.5, 4.0), (20, 0.75, 5.0)]
    assert len(rows(tmp_path)) == 1


def test_what_is_not_finished_is_named_and_left_out(tmp_path, drawn):
    job(tmp_path / "0", 1)
    started(tmp_path / "1", "denoiser.num_layers=2")
    Job(started(tmp_path / "2", "denoiser.num_layers=3"), ("denoiser.num_layers=3",), "failed", "no luck").write()
    job(tmp_path / "3", 4)
    (tmp_path / "3" / "summary.json").write_text("{")
    (tmp_path / "4").mkdir()  # not a job
    found = report(tmp_path)
    assert [row["status"] for row in rows(tmp_path)] == ["finished", "unfinished", "failed", "unreadable"]
    assert [run["job"] for run in drawn[0][0]] == ["0"]
    names = "1 (denoiser.num_layers=2): unfinished; 2 (denoiser.num_layers=3): no luck; 3 (denoiser.num_layers=4): "
    assert found.skipped().startswith(f"3 of 4 jobs did not finish: {names}unreadable: ")
    assert f"{tmp_path / '3' / 'summary.json'} is not a JSON file" in found.skipped()


@pytest.mark.parametrize(("name", "text"), [("scales.json", "[]"), ("summary.json", '{"machines": {"is": 1}}')])
def test_files_of_another_content_are_unreadable(tmp_path, drawn, name, text):
    (job(tmp_path / "0", 1) / name).write_text(text)
    report(tmp_path)
    assert rows(tmp_path)[0]["status"] == "unreadable"


def test_runs_without_a_comparison_have_a_row_and_no_figure(tmp_path):
    job(tmp_path / "0", 1, results=False)
    assert report(tmp_path).written == [tmp_path / "sweep.csv"]
    assert rows(tmp_path)[0]["status"] == "finished"


def test_a_configuration_that_names_anything_else_builds_nothing(tmp_path, drawn):
    directory = job(tmp_path / "0", 1)
    config = OmegaConf.create({"data": {}, "denoiser": {"_target_": "pathlib.Path", "_args_": ["x"]}})
    OmegaConf.save(config, directory / ".hydra" / "config.yaml")
    report(tmp_path)
    assert rows(tmp_path)[0]["receptive_field"] == ""


def test_the_table_is_written_whatever_befalls_the_figure(tmp_path, monkeypatch):
    job(tmp_path / "0", 1)

    def draw(*arguments, **options):
        raise RuntimeError("no ink")

    monkeypatch.setattr(sweep_report, "sweep", draw)
    found = report(tmp_path)
    assert found.text() == f"report: {tmp_path / 'sweep.csv'}\nthere is no figure: RuntimeError: no ink"
    assert len(rows(tmp_path)) == 1


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no run of a multirun"):
        report(tmp_path)
    assert list(tmp_path.iterdir()) == []


# On the command line.


def test_the_verb_writes_table_and_figure_and_names_what_it_skips(tmp_path):
    for layers in (1, 2):
        job(tmp_path / str(layers), layers)
    started(tmp_path / "3", "denoiser.num_layers=3")
    done = cli("sweep-report", str(tmp_path))
    assert done.code == 0
    picture = tmp_path / "figures" / "sweep.png"
    assert done.out == f"report: {tmp_path / 'sweep.csv'}\nreport: {picture}\n"
    assert done.err == "elslightning: warning: 1 of 3 jobs did not finish: 3 (denoiser.num_layers=3): unfinished\n"
    with Image.open(picture) as image:
        assert min(image.size) > 100


def test_its_help_says_what_it_takes():
    done = cli("sweep-report", "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("elslightning sweep-report DIR: ")


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["--dir"]])
def test_it_takes_one_folder(arguments):
    done = cli("sweep-report", *arguments)
    assert (done.code, done.err) == (2, "elslightning: error: usage: elslightning sweep-report DIR\n")


def test_a_missing_folder_is_refused_in_one_line(tmp_path):
    done = cli("sweep-report", str(tmp_path / "missing"))
    expected = f"elslightning: error: {tmp_path / 'missing'} holds no run of a multirun\n"
    assert (done.code, done.err) == (2, expected)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    job(tmp_path / "0", 1)
    (tmp_path / "sweep.csv").mkdir()
    done = cli("sweep-report", str(tmp_path))
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert f"cannot write the report of {tmp_path}" in done.err
    assert json.loads((tmp_path / "0" / "job.json").read_text())["status"] == "finished"


def test_a_sweep_may_ask_for_the_creativity_map(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(sweep_report, "creativity_map", lambda points, **options: drawn.append((points, options)))
    for layers in (1, 2):
        directory = job(
            tmp_path / str(layers),
            layers,
            sweep={"question": "Where?", "x": "receptive_field", "columns": "denoiser.width", "map": True},
        )
        write_csv(
            directory / "creativity.csv",
            [
                {"name": name, "measure": measure, **dict.fromkeys(ENDS, layers / 10)}
                for name in ("network", "bbels", "held-out images")
                for measure in ("novelty", "patch_precision")
            ],
        )
    assert report(tmp_path).complaint is None
    ((points, options),) = drawn
    assert options == {"title": "Where?"}
    shown = [(point["group"], point["label"], point["novelty"]["mean"]) for point in points]
    assert shown == [
        ("bbELS", "", 0.1),
        (None, "held-out images", 0.1),
        ("denoiser.width = 16", "7", 0.1),
        ("denoiser.width = 16", "9", 0.2),
    ]
    assert [float(row["val/network/novelty"]) for row in rows(tmp_path)] == [0.1, 0.2]
    assert [float(row["val/bbels/novelty"]) for row in rows(tmp_path)] == [0.1, 0.2]


def test_the_map_joins_networks_that_differ_in_the_horizontal_key_alone(monkeypatch, tmp_path):
    jobs = [
        Job(tmp_path / f"{size}{layers}", (f"data.train_size={size}", f"denoiser.num_layers={layers}", f"seed={size}"))
        for layers in (1, 4)
        for size in (100, 1500)
    ]
    between = dict.fromkeys(("novelty", "patch_precision"), dict.fromkeys(ENDS, 0.5))
    monkeypatch.setattr(sweep_report, "read_creativity", lambda path: {"network": between})
    drawn = []
    monkeypatch.setattr(sweep_report, "creativity_map", lambda points, **options: drawn.append(points))
    points = [dict(job.values()) | {"denoiser.padding_mode": "zeros"} for job in jobs]
    for columns, before in ((None, "denoiser."), ("denoiser.padding_mode", "padding_mode = zeros, ")):
        question = sweep_report.Question("Where?", "data.train_size", columns, map=True)
        sweep_report._map(points, question, jobs)
        found = [(point["group"], point["label"]) for point in drawn.pop()]
        assert found == [(f"{before}num_layers = {n}", size) for n in (1, 4) for size in ("100", "1500")]


def test_there_is_no_map_of_runs_that_measured_no_samples(tmp_path):
    job(tmp_path / "1", 1, sweep={"question": "Where?", "map": True})
    found = report(tmp_path)
    assert (found.written, found.complaint) == ([tmp_path / "sweep.csv"], None)
