"""run.json: what made a run; and that the same makes the same again."""

import hashlib
import inspect
import json
import subprocess
from pathlib import Path

import pytest
import torch
from tiny import cli, digits, train
from trainings import checkpoint

import elslightning
from elslightning.data.request import Split
from elslightning.runs import provenance

pytestmark = pytest.mark.usefixtures("no_drawing")

SAMPLE = ["source=is", "data.train_size=5", "steps=1", "num_samples=1", "seed=3"]


def record(directory: Path) -> dict:
    return json.loads((directory / "run.json").read_text())


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    directory = tmp_path_factory.mktemp("provenance") / "run"
    done = cli("sample", *SAMPLE, f"hydra.run.dir={directory}")
    assert done.code == 0, done.err
    return record(directory)


def test_a_run_says_what_it_was_made_of(sampled):
    assert set(sampled) == {
        *("started", "command", "overrides", "seed", "versions", "git", "data_sha256", "images"),
        *("device", "gpu", "processes", "threads", "wandb", "files", "checksum"),
    }
    assert sampled["command"].startswith("elslightning sample source=is ")
    assert sampled["overrides"] == SAMPLE
    assert (sampled["seed"], sampled["processes"]) == (3, 1)
    assert sampled["threads"] == torch.get_num_threads()
    assert sampled["versions"]["elslightning"] == elslightning.__version__
    assert sampled["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert None not in sampled["versions"].values()


def test_the_checksum_is_that_of_images_and_labels(sampled):
    data = digits(train_size=5)
    expected = hashlib.sha256(data.train_images.numpy().tobytes() + data.train_labels.numpy().tobytes())
    assert data.checksum() == expected.hexdigest() == sampled["data_sha256"]
    assert digits(train_size=6).checksum() != data.checksum()


def test_the_checksum_of_images_held_in_bytes_is_that_of_their_floats():
    data = digits(train_size=5)
    data._train = Split(torch.arange(320).byte().reshape(5, 1, 8, 8), None)
    assert data.checksum() == hashlib.sha256(data.train_images.numpy().tobytes()).hexdigest()


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_that_of_the_working_directory_if_the_package_is_installed(tmp_path, monkeypatch):
    installed = tmp_path / "repository" / "venv" / "elslightning"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    monkeypatch.setattr(elslightning, "__file__", str(installed / "__init__.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    told = inspect.unwrap(provenance.git)  # not what was remembered
    assert told() is None
    repository = tmp_path / "repository"
    git(repository, "init")
    (repository / "notes").write_text("a")
    git(repository, "add", "notes")
    git(repository, "commit", "-m", "notes")
    # Inside that checkout, but no part of it.
    assert told() is None
    monkeypatch.chdir(repository)
    commit = git(repository, "rev-parse", "HEAD")
    assert told() == {"of": "working directory", "commit": commit, "dirty": False}
    (repository / "notes").write_text("b")
    assert told() == {"of": "working directory", "commit": commit, "dirty": True}
    git(repository, "add", "venv")
    assert told()["of"] == "package"


def test_the_same_seed_trains_the_same_weights_bit_for_bit(tmp_path):
    options = ["compare=false", "trainer.max_epochs=2", "trainer.deterministic=true"]
    try:
        one, other = (train(tmp_path / name, *options) for name in ("one", "other"))
    finally:
        torch.use_deterministic_algorithms(False)
    for section in ("state_dict", "current_model_state", "averaging_state", "optimizer_states"):
        torch.testing.assert_close(checkpoint(one)[section], checkpoint(other)[section], rtol=0, atol=0)
    volatile = {"started", "finished", "command", "files", "checksum"}
    assert {key: value for key, value in record(one).items() if key not in volatile} == {
        key: value for key, value in record(other).items() if key not in volatile
    }
