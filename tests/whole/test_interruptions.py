"""Work that is killed: nothing that was finished is lost, and what is started again ends as if nothing had happened."""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import victims
from tiny import MEASUREMENT, TRAIN, cli, snapshot, train
from trainings import SEVERAL_EPOCHS, assert_same_training, checkpoint, content, whole_files

from elslightning.cli import verbs
from elslightning.machines import BoundaryBrokenScoreMachine
from elslightning.machines.patches import PatchMachine
from elslightning.machines.remembering import remembering
from elslightning.runs.metrics import read_losses
from elslightning.runs.provenance import finish, is_finished
from elslightning.system.keeping import KEPT, Kept
from elslightning.system.locking import NAME
from elslightning.system.signals import EXIT_CODES
from elslightning.training.comparing import ELSComparison
from elslightning.training.task import DenoisingTask
from elslightning.training.writers import MetricsFile, WholeCheckpoints

pytestmark = [pytest.mark.reliability, pytest.mark.usefixtures("no_drawing")]

VOLATILE = {"run.json"}


def wait(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("interruptions")
    assert victims.finish("train", *SEVERAL_EPOCHS, f"hydra.run.dir={folder / 'whole'}", output=folder / "log") == 0
    return folder / "whole"


def seconds(run: Path) -> float:
    """How long a run took, from its first file to its last."""
    return (run / "run.json").stat().st_mtime - (run / ".hydra" / "config.yaml").stat().st_mtime


@pytest.mark.parametrize(
    ("number", "seed"),
    [(signal.SIGKILL, 0), (signal.SIGKILL, 1), (signal.SIGKILL, 2), (signal.SIGTERM, 3), (signal.SIGINT, 4)],
    ids=str,
)
def test_a_training_that_is_killed_again_and_again_ends_the_same(whole, tmp_path, number, seed):
    run, output, dice = tmp_path / "run", tmp_path / "log", random.Random(seed)
    command, kills = ["train", *SEVERAL_EPOCHS, f"hydra.run.dir={run}"], 0
    while True:
        output.unlink(missing_ok=True)
        process = victims.start(*command, output=output)
        if kills < 3:
            wait(output.exists)  # with it, the program begins, and knows what signals mean
            process.join(dice.uniform(0.3, 0.3 + seconds(whole)))
            if process.is_alive():
                os.kill(process.pid, number)
            kills += 1
        process.join(120)
        # With all written it has little left to do, but may be stopped in that, and by the system's own rule.
        if process.exitcode == 0 or is_finished(run):
            (run / NAME).unlink(missing_ok=True)  # the lock, which a killed one leaves
            break
        assert process.exitcode == EXIT_CODES.get(number, -number), output.read_text()
        whole_files(run)
        if (run / "checkpoints" / "last.ckpt").is_file():
            command = ["train", f"resume={run}"]
    assert_same_training(run, whole)
    assert not (run / KEPT).exists()


def test_a_training_that_is_killed_in_its_comparison_only_compares(tmp_path, monkeypatch):
    options = [*TRAIN, "machines=[bbels,ls]"]
    whole = train(tmp_path / "whole", *options)
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(ELSComparison, "_log_measured", lambda *arguments: 1 / 0)
        assert cli("train", *options, f"hydra.run.dir={run}").code == 1
    assert "finished" not in json.loads((run / "run.json").read_text())
    assert (run / KEPT).is_dir()
    evaluated, left = [], []
    partials = PatchMachine._partials
    with monkeypatch.context() as patch:
        patch.setattr(DenoisingTask, "training_step", lambda *arguments: pytest.fail("it trains"))
        patch.setattr(PatchMachine, "_partials", lambda *arguments: evaluated.append(1) or partials(*arguments))
        patch.setattr(verbs, "finish", lambda run: left.append((run / KEPT).exists()) or finish(run))
        done = cli("train", f"resume={run}")
    assert done.code == 0, done.err
    assert left == [False]  # killed once it says that it is finished, it leaves nothing that it kept
    assert not evaluated  # all of it was kept
    assert content(run) == content(whole)
    assert json.loads((run / "run.json").read_text())["finished"]
    done = cli("train", f"resume={run}")
    assert (done.code, "1 of 1 epochs are done" in done.err) == (2, True)


def test_a_training_that_is_killed_when_all_is_measured_measures_the_same_again(whole, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(verbs, "finish", lambda run: 1 / 0)
        assert cli("train", *SEVERAL_EPOCHS, f"hydra.run.dir={run}").code == 1
    assert "finished" not in json.loads((run / "run.json").read_text())
    done = cli("train", f"resume={run}")
    assert done.code == 0, done.err
    assert content(run) == content(whole)  # of the losses, too, it knows no more than the first time


def test_a_training_whose_directory_is_taken_away_stops_and_leaves_it_to_whoever_has_it(tmp_path, monkeypatch):
    run, save = tmp_path / "run", WholeCheckpoints.save_checkpoint

    def late(*arguments, **options):
        shutil.rmtree(run)
        run.mkdir()
        (run / NAME).touch()  # the lock of another run
        save(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(WholeCheckpoints, "save_checkpoint", late)
        done = cli("train", *TRAIN, f"hydra.run.dir={run}")
    assert done.code == 1
    (line,) = [line for line in done.err.splitlines() if line.startswith("elslightning: error: ")]
    assert f"{run} is no longer the directory that this run began in" in line
    assert [str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()] == [NAME]


def test_a_training_that_slurm_preempts_is_asked_for_again_and_ends_the_same(whole, tmp_path):
    run, output, asked = tmp_path / "run", tmp_path / "log", tmp_path / "asked"
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    (folder / "scontrol").chmod(0o755)
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "job", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    slurm = {**job, "SLURM_NODEID": "0", "PATH": f"{folder}:{os.environ['PATH']}"}
    command = ["train", *SEVERAL_EPOCHS, f"hydra.run.dir={run}"]
    process = victims.start(*command, output=output, environment=slurm)
    wait(lambda: (run / "checkpoints" / "last.ckpt").is_file())
    os.kill(process.pid, signal.SIGUSR1)
    wait(asked.is_file)
    process.kill()
    process.join()
    assert asked.read_text().split() == ["requeue", "7"]
    assert list(run.glob("hpc_ckpt_*.ckpt"))
    steps = checkpoint(run)["global_step"]
    process = victims.start(*command, output=output, environment=slurm)
    process.join(120)
    assert process.exitcode == 0, output.read_text()
    assert 0 < steps < checkpoint(run)["global_step"]
    assert_same_training(run, whole)
    (again,) = json.loads((run / "run.json").read_text())["resumed"]
    assert again["seed"] == 0


@pytest.mark.parametrize("verb", ["calibrate", "compare"])
def test_a_measurement_that_is_killed_keeps_what_it_had(whole, tmp_path, verb, monkeypatch):
    more = [word for word in MEASUREMENT if "steps" not in word]
    options = [f"checkpoint={whole}", *more, "calibration.steps=6", "comparison.steps=6", "comparison.network_steps=6"]
    options += ["calibration.num_samples=3"]
    reference, run, output = tmp_path / "reference", tmp_path / "run", tmp_path / "log"
    command = [verb, *options, f"hydra.run.dir={run}"]
    monkeypatch.setattr(victims, "THREADS", "1")
    assert victims.finish(verb, *options, f"hydra.run.dir={reference}", output=output) == 0
    assert not (reference / KEPT).exists()
    process = victims.start(*command, output=output)
    wait(lambda: len(list((run / KEPT).glob("[!.]*.npy"))) > 2)
    process.kill()
    process.join()
    whole_files(run)
    kept = {path.name for path in (run / KEPT).glob("[!.]*.npy")}
    assert len(kept) > 2
    assert victims.finish(*command, output=output) == 0
    assert not (run / KEPT).exists()
    names = snapshot(reference).keys() - VOLATILE
    assert snapshot(run).keys() - VOLATILE == names
    for name in names:
        if name.endswith((".csv", ".json")):
            assert (run / name).read_bytes() == (reference / name).read_bytes(), name


def test_earlier_metrics_stay_until_there_are_others(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,val/loss\n1,0.5\n")
    before = path.read_bytes()
    logger = MetricsFile(str(tmp_path), name="", version="")
    logger.experiment.log_metrics({"val/loss": 0.25}, step=3)
    assert path.read_bytes() == before
    logger.save()
    assert [line.rpartition(",")[0] for line in path.read_text().split()] == ["step,val/loss", "3,0.25"]
    assert read_losses(path) == {"val/loss": [(3, 0.25)]}


def test_what_was_kept_is_found_by_the_same_question_only(tmp_path):
    images = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x_t = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    levels = torch.full((2,), 0.5, dtype=torch.float64)

    def files(x_t: torch.Tensor = x_t, images: torch.Tensor = images, size: int = 3) -> int:
        machine = BoundaryBrokenScoreMachine(images, scales=size)
        bare = machine(x_t, levels)
        for _ in range(2):
            assert torch.equal(remembering(machine, Kept(tmp_path))(x_t, levels), bare)
        return len(list(tmp_path.iterdir()))

    assert [files(), files()] == [1, 1]
    assert files(x_t=x_t + 1e-6) == 2
    assert files(images=images + 1e-6) == 3
    assert files(size=5) == 4
    (tmp_path / sorted(path.name for path in tmp_path.iterdir())[0]).write_bytes(b"\x93NUMPY cut")
    assert files() == 4


def test_a_second_run_in_the_same_directory_refuses(tmp_path):
    run, output = tmp_path / "run", tmp_path / "log"
    options = [*(word for word in TRAIN if "max_epochs" not in word), "trainer.max_epochs=400", "compare=false"]
    first = victims.start("train", *options, f"hydra.run.dir={run}", output=output)
    try:
        wait(lambda: (run / "checkpoints" / "last.ckpt").is_file())
        before = (run / ".hydra" / "overrides.yaml").read_bytes()
        for words in ([*TRAIN, f"hydra.run.dir={run}"], [f"resume={run}"]):
            done = cli("train", *words)
            assert (done.code, done.err) == (
                2,
                f"elslightning: error: another run is at work in {run}: wait, or choose another one\n",
            )
        assert (run / ".hydra" / "overrides.yaml").read_bytes() == before
        assert first.is_alive()
    finally:
        first.kill()
        first.join()
    epochs = checkpoint(run)["epoch"] + 2
    done = cli("train", f"resume={run}", f"trainer.max_epochs={epochs}")  # a dead run holds no directory
    assert done.code == 0, done.err
