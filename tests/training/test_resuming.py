"""Resuming: what was interrupted ends as if it never had been."""

import csv
import json
import shutil
import time
from pathlib import Path

import offline
import pytest
import torch
from files import unsealed, write_fashion_mnist
from omegaconf import OmegaConf
from tiny import PAIRS, TRAIN, cli, snapshot
from trainings import checkpoint, metrics

from elslightning.runs.provenance import wandb_identity
from elslightning.training.task import DenoisingTask

pytestmark = [pytest.mark.reliability, pytest.mark.usefixtures("no_drawing", "_quiet")]

OPTIONS = [*TRAIN, "trainer.max_epochs=2", "machines=[is]", "scheduler=one_cycle", "logger=[csv,wandb]"]
STEPS = 2  # an epoch


@pytest.fixture(scope="module")
def _quiet():
    """No reports of errors to W&B."""
    with pytest.MonkeyPatch.context() as patch:
        offline.looked_once(patch)
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        patch.setenv("WANDB_SILENT", "true")
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nothing interrupted."""
    directory = tmp_path_factory.mktemp("resuming") / "whole"
    done = cli("train", *OPTIONS, f"hydra.run.dir={directory}")
    assert done.code == 0, done.err
    return directory


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """The same, but that the power failed in the second epoch."""
    directory = tmp_path_factory.mktemp("resuming") / "it's, broken"
    step = DenoisingTask.training_step

    def failing(self, batch, batch_idx):
        if self.global_step > STEPS:
            raise RuntimeError("power failure")
        return step(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DenoisingTask, "training_step", failing)
        done = cli("train", *OPTIONS, f'hydra.run.dir="{directory}"')
    assert done.code == 1
    assert "RuntimeError: power failure" in done.err
    assert checkpoint(directory)["global_step"] == STEPS
    return directory


def left(directory: Path) -> dict[str, bytes]:
    """Every file but for W&B's logs, which another process may still be writing."""
    return {name: content for name, content in snapshot(directory).items() if "/logs/" not in name}


@pytest.fixture(scope="module")
def before(interrupted):
    """What it left, W&B's own process too, which on a busy machine ends later."""
    logs = list(interrupted.glob("wandb/*/logs/debug-internal.log"))
    until = time.monotonic() + 20
    while time.monotonic() < until and not all("all finished" in path.read_text() for path in logs):
        time.sleep(0.05)
    return left(interrupted)


@pytest.fixture(scope="module")
def resumed(interrupted, before):
    done = cli("train", f"resume={interrupted}")
    assert done.code == 0, done.err
    return interrupted


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=1"], "only trainer.max_epochs, data.root, logger.* and trust can be set, not seed"),
        (["~callbacks.ema"], "not callbacks.ema"),
        (["hydra.run.dir=other"], "not hydra.run.dir"),
        (["--multirun"], "--multirun does not go with it"),
        (["trainer.max_epochs=3"], "trainer.max_epochs must stay 2: scheduler=one_cycle was made for as many"),
    ],
    ids=str,
)
def test_what_does_not_go_with_resuming_is_refused(interrupted, before, words, message):
    done = cli("train", f"resume={interrupted}", *words)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert left(interrupted) == before


def test_a_directory_without_a_training_is_refused(tmp_path):
    done = cli("train", f"resume={tmp_path / 'none'}")
    assert done.code == 2
    assert f"resume={tmp_path / 'none'}: there is no training to go on with" in done.err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("section", ["state_dict", "current_model_state", "averaging_state", "optimizer_states"])
def test_a_resumed_training_has_the_weights_of_an_uninterrupted_one_bit_for_bit(whole, resumed, section):
    one, other = checkpoint(whole)[section], checkpoint(resumed)[section]
    assert one
    torch.testing.assert_close(other, one, rtol=0, atol=0)


def test_the_learning_rate_goes_on(whole, resumed):
    assert checkpoint(resumed)["lr_schedulers"] == checkpoint(whole)["lr_schedulers"] != []


def test_the_random_generator_goes_on_too(whole, resumed):
    one, other = (checkpoint(run)["callbacks"]["RandomState"]["torch"] for run in (whole, resumed))
    assert torch.equal(one, other)


def test_the_same_files_are_left(whole, resumed):
    def names(directory):
        return {str(path.relative_to(directory)) for path in directory.rglob("*") if "wandb" not in path.parts}

    assert names(resumed) == names(whole)
    assert len(list(csv.DictReader((resumed / "comparison.csv").open()))) == PAIRS
    assert (resumed / "comparison.csv").read_bytes() == (whole / "comparison.csv").read_bytes()
    assert (resumed / "summary.json").read_bytes() == (whole / "summary.json").read_bytes()


def test_the_curves_are_whole(whole, resumed):
    assert metrics(resumed) == metrics(whole)
    one, other = (checkpoint(run)["callbacks"]["ELSComparison"]["history"] for run in (whole, resumed))
    assert other == one
    assert [step for step, _ in other["train/loss"]] == [STEPS, 2 * STEPS]


def test_the_run_of_wandb_goes_on(resumed):
    first, second = offline.runs(resumed)
    assert first.id == second.id == json.loads((resumed / "run.json").read_text())["wandb"]["id"]
    assert first.name == second.name
    assert (first.exit_code, second.exit_code) == (1, 0)


def test_run_json_keeps_the_first_start_and_adds_the_second(resumed, before):
    first, now = json.loads(before["run.json"]), json.loads((resumed / "run.json").read_text())
    (again,) = now.pop("resumed")
    assert now.pop("finished") >= again["started"] >= now["started"]
    assert now.pop("checksum") != first.pop("checksum")
    assert now == first
    assert again["command"].startswith("elslightning train ")
    assert "resume=" in again["command"]
    assert again["data_sha256"] == first["data_sha256"]


def test_a_finished_training_is_not_gone_on_with(resumed):
    done = cli("train", f"resume={resumed}")
    assert done.code == 2
    assert "2 of 2 epochs are done" in done.err


def test_a_finished_training_goes_on_for_more_epochs_and_with_other_loggers(tmp_path):
    options = [*TRAIN, "compare=false", "logger=[csv]"]
    for name, epochs in (("short", 1), ("long", 2)):
        done = cli("train", *options, f"trainer.max_epochs={epochs}", f"hydra.run.dir={tmp_path / name}")
        assert done.code == 0, done.err
    done = cli("train", f"resume={tmp_path / 'short'}", "trainer.max_epochs=2", "logger=[csv,wandb]")
    assert done.code == 0, done.err
    one, other = (checkpoint(tmp_path / name)["state_dict"] for name in ("short", "long"))
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert metrics(tmp_path / "short") == metrics(tmp_path / "long")
    (run,) = offline.runs(tmp_path / "short")
    assert run.id == wandb_identity(tmp_path / "short")["id"]


def test_a_training_goes_on_elsewhere_and_after_its_data_have_moved(tmp_path, monkeypatch):
    for name, values in (("here", "data"), ("there", "none")):
        (tmp_path / name / values).mkdir(parents=True)
    write_fashion_mnist(tmp_path / "here" / "data")
    monkeypatch.chdir(tmp_path / "here")
    options = [*TRAIN, "data=fashion_mnist", "data.root=data", "compare=false", "logger=[]", "callbacks=[checkpoint]"]
    done = cli("train", *options, "hydra.run.dir=../run")
    assert done.code == 0, done.err
    monkeypatch.chdir(tmp_path / "there")
    done = cli("train", "resume=../run", "trainer.max_epochs=2")
    assert done.code == 0, done.err
    shutil.move(tmp_path / "here" / "data", tmp_path / "My Data (2)")
    assert "data.root=" in cli("train", f"resume={tmp_path / 'run'}", "trainer.max_epochs=3").err
    done = cli("train", f"resume={tmp_path / 'run'}", "trainer.max_epochs=3", "data.root=../My Data (2)")
    assert done.code == 0, done.err
    assert checkpoint(tmp_path / "run")["epoch"] == 2
    assert OmegaConf.load(tmp_path / "run" / ".hydra" / "config.yaml").data.root == str(tmp_path / "here" / "data")


def test_a_relative_root_that_no_command_line_names_is_of_where_the_training_began(tmp_path, monkeypatch):
    """As a configuration file, or an earlier version, leaves it."""
    write_fashion_mnist(tmp_path / "here" / "data")
    monkeypatch.chdir(tmp_path / "here")
    options = [*TRAIN, "data=fashion_mnist", "data.root=data", "compare=false", "logger=[]", "callbacks=[checkpoint]"]
    assert cli("train", *options, f"hydra.run.dir={tmp_path / 'run'}").code == 0
    for name in ("config.yaml", "overrides.yaml"):
        path = tmp_path / "run" / ".hydra" / name
        path.write_text(path.read_text().replace(str(tmp_path / "here" / "data"), "data"))
    unsealed(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    done = cli("train", "resume=run", "trainer.max_epochs=2")
    assert done.code == 0, done.err
