"""Run directories of strangers: what they say of places, downloads and the environment is read, and nothing more."""

import shutil
from pathlib import Path

import pytest
from tiny import cli

from elslightning.report.sweep import report
from elslightning.runs.experiment import open_run, rebuild
from elslightning.runs.run import read_run
from elslightning.system.errors import InputError

pytestmark = [pytest.mark.reliability, pytest.mark.usefixtures("no_rendering", "no_drawing")]

COMPARED = Path(__file__).resolve().parents[1] / "fixtures" / "version_0_1" / "compared"
SECRET = "a-token-of-the-reader"
ASKING = [
    "${oc.env:ELS_TOKEN}",
    "${oc.decode:${oc.env:ELS_TOKEN}}",
    "${oc.${oc_end}:ELS_TOKEN}",
    "${${oc_whole}:ELS_TOKEN}",
    "digits, ${ oc.env : ELS_TOKEN, nothing}",
]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run, and no checkpoint of it that could complete its configuration."""
    monkeypatch.setenv("ELS_TOKEN", SECRET)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(COMPARED, tmp_path / "run")
    return tmp_path / "run"


def edit(run, *changes):
    path = run / ".hydra" / "config.yaml"
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)


@pytest.mark.parametrize("text", ASKING)
def test_nothing_of_the_environment_is_in_what_is_read_or_reported(run, text):
    edit(run, ("seed: 0", f"seed: '{text}'\noc_end: env\noc_whole: oc.env"), ("dataset: digits", f"dataset: '{text}'"))
    assert read_run(run).setting("seed") is None
    assert read_run(run).setting("data.dataset") is None
    with pytest.raises(InputError, match="nothing_is_resolved"):
        rebuild(open_run(run))
    done = cli("report", str(run))
    assert done.code == 0, done.err
    assert SECRET not in done.out + done.err
    for path in run.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()


def test_what_a_configuration_says_of_itself_is_resolved(run):
    edit(run, ("seed: 0", "seed: 3\nagain: ${seed}"))
    assert read_run(run).setting("again") == 3


@pytest.mark.parametrize("text", ASKING)
def test_nothing_of_the_environment_is_in_the_table_of_a_sweep(tmp_path, monkeypatch, text):
    monkeypatch.setenv("ELS_TOKEN", SECRET)
    shutil.copytree(COMPARED.parent / "sweep", tmp_path / "sweep")
    for job in "01":
        edit(tmp_path / "sweep" / job, ("seed: 0", f"seed: '{text}'\noc_end: env\noc_whole: oc.env"))
    report(tmp_path / "sweep")
    assert SECRET not in (tmp_path / "sweep" / "sweep.csv").read_text()


def test_a_report_fetches_no_data(run, monkeypatch):
    fetched = []
    monkeypatch.setattr("elslightning.data.module.download", lambda *asked: fetched.append(asked))
    edit(
        run, ("dataset: digits", "dataset: mnist\n  download: true"), ("root: null", f"root: {run.parent / 'nowhere'}")
    )
    done = cli("report", str(run))
    assert done.code == 0, done.err
    assert "There is no explorer: data.root=" in (run / "report.md").read_text()
    assert fetched == []
    assert not (run.parent / "nowhere").exists()
