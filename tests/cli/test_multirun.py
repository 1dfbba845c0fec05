"""Multiruns: a failure stops nobody, what is finished is not done again, and the end says what is missing."""

import json
import math
from pathlib import Path

import pytest
from jobs import finished, started

from elslightning.cli.composing import sweeps_dir
from elslightning.cli.multirun import conclude, register, run_job
from elslightning.runs.jobs import FAILED, FINISHED, UNFINISHED, Job, read_job
from elslightning.system.errors import InputError


def fail(error: BaseException):
    raise error


def test_a_job_is_recorded_when_it_is_done(tmp_path, capsys):
    started(tmp_path, "seed=1")
    assert run_job(lambda: None, tmp_path) is None
    job = read_job(tmp_path)
    assert (job.status, job.overrides, job.error) == (FINISHED, ("seed=1",), None)
    assert job.seconds >= 0
    assert f"job {tmp_path.name}: seed=1" in capsys.readouterr().out


def test_a_finished_job_is_not_done_again(tmp_path):
    finished(tmp_path, objective=0.75)
    (tmp_path / "summary.json").write_text("{}")
    before = (tmp_path / "job.json").stat().st_mtime_ns
    assert run_job(lambda: fail(AssertionError()), tmp_path) == 0.75
    assert (tmp_path / "job.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("status", [FAILED, UNFINISHED])
def test_any_other_job_is(tmp_path, status):
    Job(started(tmp_path, "seed=1"), ("seed=1",), status).write()
    run_job(lambda: None, tmp_path)
    assert read_job(tmp_path).status == FINISHED


def test_input_that_cannot_be_worked_with_is_said_in_one_line(tmp_path, capsys):
    assert math.isnan(run_job(lambda: fail(InputError("no such\nthing")), started(tmp_path, "seed=1")))
    assert capsys.readouterr().err == "elslightning: error: no such thing\n"
    job = read_job(tmp_path)
    assert (job.status, job.error, job.refused, job.overrides) == (FAILED, "no such thing", True, ("seed=1",))


def test_what_is_refused_in_several_jobs_is_said_once(tmp_path, capsys):
    register()
    for name, reason in (("0", "too few"), ("1", "too many"), ("2", "too few")):
        run_job(lambda reason=reason: fail(InputError(reason)), started(tmp_path / name, f"seed={name}"))
    said = ["too few", "too many", "refused as a job before was"]
    assert capsys.readouterr().err.splitlines() == [f"elslightning: error: {line}" for line in said]
    assert read_job(tmp_path / "2").error == "too few"
    assert conclude(tmp_path) == 2
    missing = "3 of 3 jobs did not finish: 0 (seed=0), 2 (seed=2): too few; 1 (seed=1): too many"
    assert capsys.readouterr().err == f"elslightning: error: {missing}\n"
    register()
    run_job(lambda: fail(InputError("too few")), tmp_path / "1")
    assert capsys.readouterr().err == "elslightning: error: too few\n"  # another multirun
    conclude(tmp_path)
    assert capsys.readouterr().err == "elslightning: error: 3 of 3 jobs did not finish: all of them: too few\n"


@pytest.mark.parametrize("debugging", [True, False])
def test_any_other_error_is_shown_with_its_name(tmp_path, capsys, debugging):
    assert math.isnan(run_job(lambda: fail(ZeroDivisionError("of zero")), started(tmp_path), debugging=debugging))
    error = capsys.readouterr().err
    assert ("Traceback" in error) == debugging
    assert error.endswith("elslightning: error: ZeroDivisionError: of zero\n")
    job = read_job(tmp_path)
    assert (job.status, job.error, job.refused) == (FAILED, "ZeroDivisionError: of zero", False)


def test_an_interrupted_job_is_unfinished(tmp_path):
    finished(tmp_path, "seed=1")
    (tmp_path / ".hydra" / "overrides.yaml").write_text('["seed=2"]')
    with pytest.raises(KeyboardInterrupt):
        run_job(lambda: fail(KeyboardInterrupt()), tmp_path)
    assert read_job(tmp_path) == Job(tmp_path, ("seed=2",), UNFINISHED)


@pytest.mark.parametrize(
    ("second", "code"),
    [(("failed", True), 2), (("failed", False), 1), (("unfinished", False), 1), (("finished", False), 0)],
)
def test_a_multirun_ends_with_its_report_and_what_is_missing(tmp_path, capsys, second, code):
    finished(tmp_path / "0", "seed=0")
    status, refused = second
    error = "no luck" if status == FAILED else None
    Job(started(tmp_path / "1", "seed=1"), ("seed=1",), status, error, refused).write()
    assert conclude(tmp_path) == code
    printed = capsys.readouterr()
    assert f"report: {tmp_path / 'sweep.csv'}" in printed.out
    missing = f"elslightning: error: 1 of 2 jobs did not finish: 1 (seed=1): {error or status}\n"
    assert printed.err == (missing if code else "")


def test_a_multirun_without_jobs_has_no_report(tmp_path, capsys):
    assert conclude(tmp_path) == 1
    assert "there is no report" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_no_end(tmp_path, capsys):
    finished(tmp_path / "0")
    (tmp_path / "sweep.csv").mkdir()
    assert conclude(tmp_path) == 1
    assert "there is no report" in capsys.readouterr().err


def test_the_sweeps_are_found():
    assert (sweeps_dir() / "README.md").is_file()
    assert json.dumps(sorted(path.name for path in Path(sweeps_dir() / "hydra").iterdir())) == '["sweep"]'
