"""Ctrl-C and SIGTERM: exit codes, what is left, and how to go on; and what a failure says."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import victims
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import ConfigCompositionException
from tiny import TRAIN, cli

from elslightning.cli import measuring
from elslightning.cli import verbs as runs
from elslightning.cli.main import HELP
from elslightning.cli.output import OutputDirectory
from elslightning.data.module import ImageDataModule
from elslightning.measurement.measurement import Measurement
from elslightning.runs.checkpoints import open_network
from elslightning.system.signals import EXIT_CODES, Terminated, terminable, undisguised
from elslightning.training.task import DenoisingTask

pytestmark = [pytest.mark.reliability, pytest.mark.usefixtures("no_drawing")]

STEPS = 2
"""Of an epoch."""
SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


@pytest.mark.parametrize("number", SIGNALS, ids=str)
def test_a_training_stopped_by_a_signal_says_how_to_go_on(tmp_path, number):
    run, output = tmp_path / "a run", tmp_path / "log"
    options = [*TRAIN, "trainer.max_epochs=100000", "compare=false", "callbacks=[checkpoint]"]
    process = victims.start("train", *options, f"hydra.run.dir={run}", output=output)
    try:
        deadline = time.monotonic() + 120
        while not (run / "checkpoints" / "last.ckpt").is_file():
            assert process.is_alive(), output.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, number)
        process.join(60)
    finally:
        process.kill()
    assert process.exitcode == EXIT_CODES[number]
    err = output.read_text()
    assert err.splitlines()[-1] == f"elslightning: {SIGNALS[number]}; go on with: elslightning train 'resume={run}'"
    assert "Traceback" not in err
    open_network(run)


def kill(number: signal.Signals):
    """A function that sends this process a signal, whatever it is called with."""

    def killing(*arguments, **options):
        os.kill(os.getpid(), number)
        time.sleep(5)  # the signal ends it
        return pytest.fail("the signal did not arrive")

    return killing


@pytest.mark.parametrize("number", SIGNALS, ids=str)
def test_stopped_before_the_first_checkpoint_there_is_nothing_to_go_on_with(tmp_path, monkeypatch, number):
    monkeypatch.setattr(DenoisingTask, "training_step", kill(number))
    done = cli("train", *TRAIN, f"hydra.run.dir={tmp_path}")
    assert (done.code, done.out) == (EXIT_CODES[number], "")
    assert done.err.splitlines()[-1] == f"elslightning: {SIGNALS[number]}; there is no checkpoint to go on from"


@pytest.mark.parametrize("number", SIGNALS, ids=str)
def test_stopped_while_comparing_the_training_is_finished(tmp_path, monkeypatch, number):
    monkeypatch.setattr(Measurement, "run", kill(number))
    done = cli("train", *TRAIN, "callbacks=[checkpoint]", f"hydra.run.dir={tmp_path}")
    assert done.code == EXIT_CODES[number]
    assert f"elslightning train resume={tmp_path}" in done.err
    open_network(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(DenoisingTask, "training_step", lambda *arguments: pytest.fail("it trains"))
    done = cli("train", f"resume={tmp_path}")
    assert done.code == 0, done.err
    assert (tmp_path / "comparison.csv").is_file()


@pytest.mark.parametrize("number", SIGNALS, ids=str)
def test_other_verbs_are_stopped_too(tmp_path, monkeypatch, number):
    monkeypatch.setattr(measuring, "draw", kill(number))
    done = cli("sample", "source=is", "data.train_size=5", f"hydra.run.dir={tmp_path}")
    assert (done.code, done.err) == (EXIT_CODES[number], f"elslightning: {SIGNALS[number]}\n")
    assert not (tmp_path / "samples.npz").exists()


def disguise(number: signal.Signals, error: Exception, *, forgetful: bool):
    """A function that is stopped, and raises an error instead; if it is forgetful, one that nothing led to."""

    def disguised(*arguments, **options):
        try:
            kill(number)()
        except BaseException as stop:
            if not forgetful:
                raise error from AttributeError("half a list")
            del stop
        raise error

    return disguised


@pytest.mark.parametrize("number", SIGNALS, ids=str)
@pytest.mark.parametrize("forgetful", [False, True])
@pytest.mark.parametrize("error", [ConfigCompositionException("half a list"), AttributeError("no flags")], ids=repr)
def test_stopped_while_the_configuration_is_put_together(tmp_path, monkeypatch, number, forgetful, error):
    """OmegaConf then may raise what became of the half of it."""
    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", disguise(number, error, forgetful=forgetful))
    done = cli("sample", "source=is", f"hydra.run.dir={tmp_path}")
    assert (done.code, done.err) == (EXIT_CODES[number], f"elslightning: {SIGNALS[number]}\n")


@pytest.mark.parametrize("number", SIGNALS, ids=str)
def test_a_job_that_raises_something_else_when_it_is_stopped_is_no_failure(tmp_path, monkeypatch, number):
    monkeypatch.setattr(measuring, "draw", disguise(number, ValueError("half"), forgetful=True))
    options = ["source=is", "data.train_size=5", "seed=1,2", f"hydra.sweep.dir={tmp_path}"]
    done = cli("sample", "--multirun", *options)
    assert done.code == EXIT_CODES[number]
    assert "half" not in done.err
    assert not (tmp_path / "0" / "job.json").exists()
    assert not (tmp_path / "1").exists()


@pytest.mark.parametrize("number", SIGNALS, ids=str)
def test_a_training_that_raises_something_else_when_it_is_stopped_says_how_to_go_on(tmp_path, monkeypatch, number):
    monkeypatch.setattr(Measurement, "run", disguise(number, ValueError("half"), forgetful=True))
    done = cli("train", *TRAIN, "callbacks=[checkpoint]", f"hydra.run.dir={tmp_path}")
    assert done.code == EXIT_CODES[number]
    said = f"elslightning: {SIGNALS[number]}; go on with: elslightning train resume={tmp_path}"
    assert done.err.splitlines()[-1] == said


def test_what_fails_after_a_command_that_was_stopped_is_a_failure_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "draw", kill(signal.SIGTERM))
    command = ["sample", "source=is", "data.train_size=5", f"hydra.run.dir={tmp_path}"]
    assert cli(*command).code == EXIT_CODES[signal.SIGTERM]
    monkeypatch.setattr(measuring, "draw", lambda *arguments, **options: 1 / 0)
    assert cli(*command).code == 1


def test_a_multirun_stops_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "draw", kill(signal.SIGTERM))
    options = ["source=is", "data.train_size=5", "seed=1,2", f"hydra.sweep.dir={tmp_path}"]
    done = cli("sample", "--multirun", *options)
    assert done.code == 143
    said = "elslightning: terminated; go on with the same command: jobs that are finished are not done again"
    assert done.err.splitlines()[-1] == said
    assert not (tmp_path / "1").exists()


@pytest.mark.parametrize(("number", "given"), [(signal.SIGTERM, True), (signal.SIGINT, False)], ids=str)
def test_a_multirun_that_is_stopped_between_two_jobs_says_how_to_go_on(tmp_path, monkeypatch, number, given):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(OutputDirectory, "on_job_end", kill(number))
    monkeypatch.setattr(runs, "run", lambda cfg, directory: None)
    done = cli("sample", "--multirun", "source=is", "seed=1,2", *(["hydra.sweep.dir=sweep"] if given else []))
    assert done.code == EXIT_CODES[number]
    (job,) = tmp_path.rglob("job.json")
    there = "" if given else f" and hydra.sweep.dir={job.parent.parent}"
    said = f"{SIGNALS[number]}; go on with the same command{there}: jobs that are finished are not done again"
    assert done.err.splitlines()[-1] == f"elslightning: {said}"
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "run", lambda cfg, directory: None)
    again = cli("sample", "--multirun", "source=is", "seed=1,2", f"hydra.sweep.dir={job.parent.parent}")
    assert (again.code, "job 0 is finished already" in again.out) == (0, True)


def test_a_training_stopped_in_a_multirun_goes_on_with_the_same_command_in_the_same_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DenoisingTask, "training_step", kill(signal.SIGTERM))
    done = cli("train", "--multirun", *TRAIN, "seed=1,2")
    assert done.code == 143
    line = done.err.splitlines()[-1]
    (sweep,) = (tmp_path / "outputs" / "multirun" / "train").iterdir()
    assert f"; go on with the same command and hydra.sweep.dir={sweep}: jobs that are finished" in line
    assert "checkpoint" not in line


def test_signals_mean_what_they_did_before_when_a_command_is_done(tmp_path):
    before = [signal.getsignal(number) for number in SIGNALS]
    assert cli("sample", "source=is", "data.train_size=5", "steps=1", f"hydra.run.dir={tmp_path}").code == 0
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_second_sigterm_does_not_disturb_the_first():
    def put_away():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        return True

    done = False
    with pytest.raises(Terminated), terminable():  # noqa: PT012
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            done = put_away()
    assert done


def test_sigterm_that_means_something_already_keeps_its_meaning():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with terminable():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_other_exits_stay_what_they_are():
    with pytest.raises(SystemExit) as caught, undisguised():
        sys.exit(3)
    assert caught.value.code == 3


# What a failure says.


@pytest.fixture
def broken(monkeypatch, tmp_path):
    """A command that fails with an exception that nobody foresaw."""

    def fail(self, stage=None):
        raise ZeroDivisionError("nobody\nforesaw this")

    monkeypatch.setattr(ImageDataModule, "setup", fail)
    return ["sample", "source=is", f"hydra.run.dir={tmp_path}"]


def test_an_exception_that_nobody_foresaw_ends_in_one_line(broken):
    done = cli(*broken)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "elslightning: error: ZeroDivisionError: nobody foresaw this (--debug shows where it came from)\n"
    )


@pytest.mark.parametrize("place", ["first", "last", "environment"])
def test_debugging_shows_where_it_came_from(broken, monkeypatch, place):
    if place == "environment":
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    words = {"first": ["--debug", *broken], "last": [*broken, "--debug"], "environment": broken}[place]
    done = cli(*words)
    assert done.code == 1
    assert "Traceback" in done.err
    assert Path(__file__).name in done.err
    assert done.err.splitlines()[-1] == "elslightning: error: ZeroDivisionError: nobody foresaw this"


def test_debugging_shows_where_refusals_come_from_too(tmp_path):
    done = cli("sample", "source=nobody", "--debug", f"hydra.run.dir={tmp_path}")
    assert done.code == 2
    assert "Traceback" in done.err
    assert done.err.splitlines()[-1].startswith("elslightning: error: source must be")


def test_processes_that_a_command_starts_know_that_nobody_debugs(broken, monkeypatch):
    seen = {}
    monkeypatch.setattr(ImageDataModule, "setup", lambda self: seen.update(os.environ) or 1 / 0)
    cli(*broken)
    assert "HYDRA_FULL_ERROR" in seen
    assert "HYDRA_FULL_ERROR" not in os.environ
    for name, value in seen.items():
        monkeypatch.setenv(name, value)
    assert "Traceback" not in cli(*broken).err


def test_the_help_and_the_readme_say_what_exit_codes_mean():
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    for text in (HELP, readme):
        codes = text.partition("Exit codes:")[2]
        for said in ("0 done", "1 the run", "2 the input", "130 interrupted (Ctrl-C)", "143 terminated"):
            assert said in codes
        assert "--debug" in text
