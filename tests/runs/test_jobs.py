"""The records of jobs: which are finished, which are not, and how they are named."""

import pytest
from jobs import finished, started

from elslightning.runs.jobs import FAILED, FINISHED, UNFINISHED, Job, find_jobs, lost, read_job, unfinished, varied
from elslightning.system.errors import InputError


def test_a_record_comes_back_as_it_was(tmp_path):
    job = Job(started(tmp_path, "seed=1"), ("seed=1",), FAILED, "no luck", True, None, 2.0)
    job.write()
    assert read_job(tmp_path) == job


def test_a_job_without_a_record_is_unfinished_whatever_else_is_there(tmp_path):
    started(tmp_path, "seed=1")
    (tmp_path / "summary.json").write_text("{}")  # a comparison while training writes it, too
    assert read_job(tmp_path) == Job(tmp_path, ("seed=1",), UNFINISHED)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"status": "finished"}', '{"overrides": null}'])
def test_a_damaged_record_is_none(tmp_path, text):
    started(tmp_path, "seed=1")
    (tmp_path / "job.json").write_text(text)
    assert read_job(tmp_path).status == UNFINISHED


def test_other_overrides_are_another_job(tmp_path):
    finished(tmp_path, "seed=1")
    (tmp_path / ".hydra" / "overrides.yaml").write_text('["seed=2"]')
    assert read_job(tmp_path) == Job(tmp_path, ("seed=2",), UNFINISHED)


def test_a_job_that_compared_needs_its_summary(tmp_path):
    finished(tmp_path, objective=0.9)
    assert read_job(tmp_path).status == UNFINISHED
    (tmp_path / "summary.json").write_text("{}")
    assert read_job(tmp_path).objective == 0.9


def test_jobs_are_found_in_the_order_of_their_numbers(tmp_path):
    for name in ("10", "2", "deep/er", "1"):
        finished(tmp_path / name)
    started(tmp_path)  # a directory is not a job of itself
    found = [job.directory.relative_to(tmp_path).as_posix() for job in find_jobs(tmp_path)]
    assert found == ["1", "2", "10", "deep/er"]


def test_a_directory_without_jobs_is_refused(tmp_path):
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=f"{directory} holds no run of a multirun"):
            find_jobs(directory)


def test_lost_jobs_are_named_by_what_sets_them_apart(tmp_path):
    jobs = [
        Job(tmp_path / "0", ("+sweep=a", "width=4", "seed=0"), FINISHED),
        Job(tmp_path / "1", ("+sweep=a", "width=4", "seed=1"), FAILED, "no luck"),
        Job(tmp_path / "2", ("+sweep=a", "width=4", "seed=2"), UNFINISHED),
    ]
    assert varied(jobs) == ["seed"]
    assert unfinished(jobs) == jobs[1:]
    assert lost(jobs) == "2 of 3 jobs did not finish: 1 (seed=1): no luck; 2 (seed=2): unfinished"


def test_values_are_what_overrides_set(tmp_path):
    job = Job(tmp_path, ("+sweep=a", "++a.b=[1,2]", "~c", "experiment=digits"))
    assert job.values() == {"a.b": "[1,2]", "c": "", "experiment": "digits"}
