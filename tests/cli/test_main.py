"""The command line: what is asked for happens, and what cannot happen is said in one line."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
from files import unsealed, write_fashion_mnist
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.object_type import ObjectType
from omegaconf import OmegaConf
from refusals import assert_refused, rounds
from tiny import MEASUREMENT, TRAIN, Done, cli, compose_config, snapshot, train

from elslightning import __version__
from elslightning.cli import verbs
from elslightning.cli.composing import conf_dir
from elslightning.cli.keys import choices, composed, keys
from elslightning.cli.main import HELP, VERBS
from elslightning.cli.tools import TOOLS
from elslightning.machines.scales import load_scales
from elslightning.runs.checkpoints import open_network
from elslightning.runs.configuration import INHERITED, inherit

pytestmark = pytest.mark.usefixtures("no_drawing")


@pytest.fixture(scope="module")
def trained(trained_once):
    """The directory of a finished training run, which nobody may change."""
    return trained_once


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of that run, to work in."""
    return Path(shutil.copytree(trained, tmp_path / "copied"))


def refused(*arguments: str) -> str:
    """What is said where the input cannot be worked with: one line, and exit code 2."""
    done = cli(*arguments)
    assert done.code == 2, done.err
    (line,) = done.err.splitlines()
    assert line.startswith("elslightning: error: ")
    return line.removeprefix("elslightning: error: ")


def compared(checkpoint: Path, directory: Path, *arguments: str) -> Done:
    """What `elslightning compare` prints, which writes no page: that takes longer than all else."""
    done = cli("compare", f"checkpoint={checkpoint}", "report=false", *arguments, f"hydra.run.dir={directory}")
    assert done.code == 0, done.err
    return done


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# Without a run.


@pytest.mark.parametrize("argument", ["--help", "-h", "help"])
def test_help_lists_every_verb(argument):
    done = cli(argument)
    assert (done.code, done.out, done.err) == (0, HELP, "")
    for verb, about in {**VERBS, **{name: tool.about for name, tool in TOOLS.items()}}.items():
        assert verb in done.out
        assert about in done.out


def test_no_argument_shows_the_help_and_fails():
    done = cli()
    assert (done.code, done.out) == (2, HELP)


def test_version():
    done = cli("--version")
    assert (done.code, done.out.strip()) == (0, __version__)


def test_an_unknown_verb_is_refused_with_the_known_ones():
    message = refused("trian")
    assert "'trian'" in message
    assert message.endswith("; did you mean train?")
    assert all(verb in message for verb in VERBS)


@pytest.fixture(scope="module")
def listed_once():
    """Hydra asks twice, and for every verb, what the options of every group are."""
    with pytest.MonkeyPatch.context() as patch:
        listing, found = ConfigLoaderImpl.get_group_options, {}

        def listed(self, group_name, results_filter=ObjectType.CONFIG):
            asked = (group_name, results_filter)
            if asked not in found:
                found[asked] = listing(self, group_name, results_filter)
            return found[asked]

        patch.setattr(ConfigLoaderImpl, "get_group_options", listed)
        yield


@pytest.mark.usefixtures("listed_once")
@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_shows_usage_examples_and_keys_that_there_are(verb):
    done = cli(verb, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"elslightning {verb}: " in done.out
    assert f"Usage: elslightning {verb} " in done.out
    assert "elslightning explain KEY" in done.out
    table = done.out.partition("Keys that people set\n")[2].partition("\n\n")[0]
    named = re.findall(r"^\s+'?([\w.]+)=", table, re.MULTILINE)
    assert len(set(named)) == len(named) == (21 if verb == "train" else len(named))
    assert len(named) >= 8
    known = {*keys(composed(verb)), *choices(), "hydra.run.dir"}
    assert set(named) <= known


def test_help_does_not_wait_for_torch():
    code = "import elslightning.cli.main, sys; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def examples() -> list[str]:
    """The commands in the help texts."""
    found = [line.strip() for line in HELP.splitlines()]
    for verb in VERBS:
        header = OmegaConf.load(conf_dir() / f"{verb}.yaml").hydra.help.header
        found += [line.strip() for line in header.partition("Examples")[2].splitlines()]
    return [line for line in found if line.startswith("elslightning ") and "=" in line and "[key" not in line]


@pytest.mark.parametrize("example", examples())
def test_the_examples_of_the_help_compose(example):
    arguments = shlex.split(example)[1:]
    if "--multirun" in arguments:  # whose first job stands for all of them
        arguments.remove("--multirun")
        arguments = [argument.split(",")[0] for argument in arguments]
    done = cli(*arguments, "--cfg", "job")
    assert done.code == 0, done.err


def test_the_configuration_can_be_seen_from_anywhere_without_a_trace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("train", "experiment=digits", "denoiser.width=24", "--cfg", "job")
    assert (done.code, done.err) == (0, "")
    config = OmegaConf.create(done.out)
    assert (config.verb, config.denoiser.width, config.data.dataset) == ("train", 24, "digits")
    assert list(tmp_path.iterdir()) == []


def test_the_console_script_is_installed():
    script = Path(sysconfig.get_path("scripts")) / "elslightning"
    done = subprocess.run([script, "nothing"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    known = ", ".join([*VERBS, *TOOLS])
    assert done.stderr == f"elslightning: error: there is no verb 'nothing': choose from {known}\n"


# From training to samples.


def test_a_run_goes_to_a_dated_directory_below_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("sample", "source=is", "data.train_size=5", "num_samples=2", "steps=1")
    assert done.code == 0, done.err
    (directory,) = (tmp_path / "outputs" / "sample").iterdir()
    assert {"samples.npz", "figures", ".hydra"} <= {path.name for path in directory.iterdir()}
    assert f"files: outputs{os.sep}sample{os.sep}{directory.name}{os.sep}" in done.out


def test_training_prints_the_table_and_where_the_files_are(tmp_path):
    directory = tmp_path / "run"
    done = cli("train", *TRAIN, f"hydra.run.dir={directory}")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    summary = json.loads((directory / "summary.json").read_text())["machines"]
    for name, by_steps in summary.items():
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert f"{by_steps['2']['pearson_r']['median']:.3f}" in line
    assert lines[-1] == f"files: {directory}{os.sep}"


def test_training_alone_leaves_no_comparison(tmp_path):
    train(tmp_path / "run", "compare=false")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"checkpoints", "metrics.csv"} <= names
    assert names.isdisjoint({"scales.json", "comparison.csv", "summary.json"})


def test_the_configuration_of_a_run_is_kept(trained):
    config = OmegaConf.load(trained / ".hydra" / "config.yaml")
    assert (config.denoiser.width, config.data.train_size) == (16, 40)
    assert open_network(trained)[1]["comparison"]["num_pairs"] == 3


@pytest.mark.usefixtures("no_rendering")
def test_calibrating_again_finds_the_scales_of_the_training(trained, tmp_path):
    done = cli("calibrate", f"checkpoint={trained}", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.code == 0, done.err
    again, first = load_scales(tmp_path / "run" / "scales.json"), load_scales(trained / "scales.json")
    assert {name: table.to_dict() for name, table in again.items()} == {
        name: table.to_dict() for name, table in first.items()
    }
    names = {path.name for path in (tmp_path / "run").iterdir()}
    measured = {"scales.json", "calibration.csv", "receptive_field.csv", "receptive_field.npz"}
    assert names == {*measured, "figures", ".hydra", "run.json", "report.html", "report.md"}
    sizes = [int(row["x0_size_90"]) for row in rows(tmp_path / "run" / "receptive_field.csv")]
    assert f"network: windows with 90 % of the gradient of x0, from noise to image: {sizes}" in done.out
    for name, table in again.items():
        assert f"{name}: patch sizes from noise to image: {table.patch_size.flip(0).tolist()}" in done.out


def test_comparing_again_finds_what_the_training_found(trained, tmp_path):
    compared(trained, tmp_path / "run")
    again, first = rows(tmp_path / "run" / "comparison.csv"), rows(trained / "comparison.csv")
    assert [(row["pair"], row["machine"]) for row in again] == [(row["pair"], row["machine"]) for row in first]
    assert [float(row["pearson_r"]) for row in again] == pytest.approx(
        [float(row["pearson_r"]) for row in first], abs=1e-5
    )


def test_a_comparison_takes_the_scales_of_the_checkpoints_run(copied, tmp_path):
    tables = json.loads((copied / "scales.json").read_text())
    for table in tables.values():
        table["patch_size"] = [7 for _ in table["patch_size"]]
    (copied / "scales.json").write_text(json.dumps(tables))
    unsealed(copied)
    compared(copied, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "scales.json").read_text()) == tables
    assert not (tmp_path / "run" / "calibration.csv").exists()


@pytest.mark.parametrize(
    ("override", "tried"),
    [
        ("calibration.objective=heldout", {"3", "5"}),
        ("calibration.max_patch_size=network", {"3", "5"}),
        ("calibration.max_patch_size=4", {"3"}),
        ("++calibration.statistic=mode", {"3", "5"}),
    ],
)
def test_a_comparison_that_is_told_how_to_calibrate_does(trained, tmp_path, override, tried):
    compared(trained, tmp_path / "run", "machines=[ls]", override)
    assert {row["patch_size"] for row in rows(tmp_path / "run" / "calibration.csv")} == tried
    assert (tmp_path / "run" / "receptive_field.csv").is_file()


def test_given_scales_are_taken_all_the_same(trained, tmp_path):
    options = ["machines=[ls]", f"scales={trained / 'scales.json'}", "calibration.objective=heldout"]
    compared(trained, tmp_path / "run", *options)
    assert not (tmp_path / "run" / "calibration.csv").exists()


def test_a_comparison_takes_one_patch_size_for_all(copied, tmp_path):
    tables = json.loads((copied / "scales.json").read_text())
    for table in tables.values():
        table["patch_size"] = [5 for _ in table["patch_size"]]
    (copied / "scales.json").write_text(json.dumps(tables))
    unsealed(copied)
    found = []
    for options in ([], ["scales=5"]):
        directory = tmp_path / str(len(found))
        compared(copied, directory, *options)
        found.append([float(row["pearson_r"]) for row in rows(directory / "comparison.csv")])
    assert found[0] == pytest.approx(found[1], abs=1e-6)


HELD_OUT = ["calibration.objective=heldout", "data.train_size=40", "data.val_size=10", *MEASUREMENT]


@pytest.mark.parametrize("conditional", [False, True])
def test_machines_are_calibrated_on_held_out_images_without_a_checkpoint(tmp_path, conditional):
    options = [*HELD_OUT, f"conditional={conditional}".lower()]
    done = cli("calibrate", *options, f"hydra.run.dir={tmp_path / 'run'}")
    assert done.code == 0, done.err
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "run.json",
        "scales.json",
        "calibration.csv",
        "figures",
        ".hydra",
    }
    for name, table in load_scales(tmp_path / "run" / "scales.json").items():
        assert f"{name}: patch sizes from noise to image: {table.patch_size.flip(0).tolist()}" in done.out
    drawn(tmp_path / "sample", "source=ls", f"scales={tmp_path / 'run' / 'scales.json'}", "data.train_size=40")


def test_a_training_can_calibrate_on_held_out_images(tmp_path):
    run = train(tmp_path / "run", "calibration.objective=heldout", "machines=[ls]")
    assert max(float(row["agreement"]) for row in rows(run / "calibration.csv")) < 0


def test_they_are_found_from_within_that_run_too(copied, tmp_path, monkeypatch):
    monkeypatch.chdir(copied / "checkpoints")
    compared(Path("last.ckpt"), tmp_path / "run", "machines=[ls]")
    assert not (tmp_path / "run" / "calibration.csv").exists()


def test_data_named_relative_to_the_training_is_found_from_elsewhere(tmp_path, monkeypatch):
    write_fashion_mnist(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    run = train(tmp_path / "run", "data=fashion_mnist", "data.root=data", "data.image_size=8", "compare=false")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = cli("calibrate", f"checkpoint={run}", "report=false", f"hydra.run.dir={tmp_path / 'again'}")
    assert done.code == 0, done.err


def test_a_checkpoint_does_not_ask_for_downloads(tmp_path):
    root = write_fashion_mnist(tmp_path / "data")
    run = train(tmp_path / "run", "data=fashion_mnist", f"data.root={root}", "data.download=true", "compare=false")
    _, config = open_network(run)
    assert "download" not in config["data"]
    for path in root.iterdir():
        path.unlink()
    done = cli("calibrate", f"checkpoint={run}", f"hydra.run.dir={tmp_path / 'again'}")
    assert done.code == 2
    assert "data.download=true fetches it" in done.err


def test_a_comparison_without_scales_calibrates(copied, tmp_path):
    (copied / "scales.json").unlink()
    compared(copied, tmp_path / "run", "machines=[ls]")
    assert (tmp_path / "run" / "calibration.csv").is_file()


def test_overrides_of_a_comparison_win_over_the_checkpoint(trained, tmp_path):
    compared(trained, tmp_path / "run", "machines=[is]", "comparison.num_pairs=2", "comparison.network_steps=[1,2]")
    found = [(row["machine"], row["network_steps"]) for row in rows(tmp_path / "run" / "comparison.csv")]
    assert found == [("is", "1"), ("is", "1"), ("is", "2"), ("is", "2")]


def test_a_machine_of_the_checkpoint_can_be_left_out(trained, tmp_path):
    compared(trained, tmp_path / "run", "~machines.ls")
    assert {row["machine"] for row in rows(tmp_path / "run" / "comparison.csv")} == {"bbels", "is", "wiener", "mean"}


def test_another_checkpoint_among_the_machines_is_a_ceiling(trained, tmp_path, monkeypatch):
    other = train(tmp_path / "other", "seed=1", "denoiser.num_layers=0", "compare=false")
    monkeypatch.chdir(tmp_path)
    options = ["machines=[bbels,is,checkpoint]", f"machines.checkpoint.path={other.name}"]
    options += ["comparison.network_steps=[1,2]", "comparison.steps=3"]
    done = compared(trained, tmp_path / "run", *options)
    steps = {(row["machine"], row["network_steps"], row["steps"]) for row in rows(tmp_path / "run" / "comparison.csv")}
    assert steps == {
        (name, n, n if name == "checkpoint" else "3") for name in ("bbels", "is", "checkpoint") for n in "12"
    }
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())["machines"]
    for n in "12":
        r = {name: summary[name][n]["pearson_r"]["median"] for name in summary}
        assert summary["bbels"][n]["share_of_ceiling"] == pytest.approx(r["bbels"] / r["checkpoint"])
        assert summary["checkpoint"][n]["share_of_ceiling"] is None
    with np.load(tmp_path / "run" / "samples.npz") as arrays:
        assert (arrays["checkpoint_2"] != arrays["network_2"]).any()
    assert "of ceiling" in done.out


def test_a_checkpoint_is_its_own_ceiling(trained, tmp_path):
    options = [
        "+machines.checkpoint._target_=elslightning.Checkpoint",
        f"+machines.checkpoint.path={trained}",
    ]
    compared(trained, tmp_path / "run", *options)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())["machines"]
    assert list(summary) == ["bbels", "ls", "is", "wiener", "mean", "checkpoint"]
    assert summary["checkpoint"]["2"]["mse"]["high"] == 0


def test_a_training_with_a_checkpoint_among_its_machines_names_it_by_its_full_path(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(trained.parent)
    options = ["machines=[is,checkpoint]", f"machines.checkpoint.path={trained.name}"]
    run = train(tmp_path / "run", *options)
    assert open_network(run)[1]["machines"]["checkpoint"]["path"] == str(trained)
    monkeypatch.chdir(tmp_path)
    assert "checkpoint" in compared(run, tmp_path / "again").out


def test_a_checkpoint_among_the_machines_does_not_change_the_training(trained, tmp_path):
    options = ["machines=[is,checkpoint]", f"machines.checkpoint.path={trained}", "comparison.every_n_epochs=1"]
    run = train(tmp_path / "run", *options, "trainer.max_epochs=2")
    alone = train(tmp_path / "alone", "compare=false", "trainer.max_epochs=2")
    torch.testing.assert_close(
        open_network(run)[0].state_dict(), open_network(alone)[0].state_dict(), rtol=0, atol=1e-6
    )


def test_the_published_start_changes_the_machines_alone(trained, tmp_path):
    arrays = {}
    for name in ("null", "official"):
        compared(trained, tmp_path / name, "machines=[bbels]", f"++comparison.compatibility={name}")
        with np.load(tmp_path / name / "samples.npz") as found:
            arrays[name] = dict(found)
    np.testing.assert_array_equal(arrays["null"]["network_2"], arrays["official"]["network_2"])
    assert (arrays["null"]["bbels"] != arrays["official"]["bbels"]).any()


def drawn(directory: Path, *arguments: str) -> dict[str, np.ndarray]:
    """The arrays of `elslightning sample`."""
    done = cli("sample", *arguments, "num_samples=3", "steps=2", f"hydra.run.dir={directory}")
    assert done.code == 0, done.err
    assert (directory / "figures" / "samples.png").is_file()
    with np.load(directory / "samples.npz") as arrays:
        return dict(arrays)


def test_samples_of_a_network_follow_the_seed(trained, tmp_path):
    runs = [drawn(tmp_path / str(n), f"checkpoint={trained}", f"seed={seed}") for n, seed in enumerate((1, 1, 2))]
    assert set(runs[0]) == {"samples"}
    assert runs[0]["samples"].shape == (3, 1, 8, 8)
    np.testing.assert_array_equal(runs[0]["samples"], runs[1]["samples"])
    assert (runs[0]["samples"] != runs[2]["samples"]).all()


def test_a_machine_of_a_run_is_sampled_with_its_scales(copied, tmp_path):
    tables = json.loads((copied / "scales.json").read_text())
    tables["ls"]["patch_size"] = [5 for _ in tables["ls"]["patch_size"]]
    (copied / "scales.json").write_text(json.dumps(tables))
    unsealed(copied)
    usual = drawn(tmp_path / "usual", f"checkpoint={copied}", "source=ls")
    given = drawn(tmp_path / "given", f"checkpoint={copied}", "source=ls", "scales=5")
    other = drawn(tmp_path / "other", f"checkpoint={copied}", "source=ls", "scales=3")
    np.testing.assert_array_equal(usual["samples"], given["samples"])
    assert (usual["samples"] != other["samples"]).any()


@pytest.mark.parametrize(
    "arguments", [["source=is"], ["source=bbels", "scales=3"], ["source=ls", "scales=17"]], ids=str
)
def test_a_machine_is_sampled_without_a_checkpoint(tmp_path, arguments):
    samples = drawn(tmp_path / "run", *arguments, "data.train_size=10")["samples"]
    assert samples.shape == (3, 1, 8, 8)
    assert np.abs(samples).max() <= 1 + 1e-5


def test_a_conditional_machine_takes_classes_in_turn_or_one_alone(tmp_path):
    options = ["source=is", "conditional=true", "data.train_size=10"]
    assert drawn(tmp_path / "turn", *options)["labels"].tolist() == [0, 1, 2]
    arrays = drawn(tmp_path / "alone", *options, "label=7")
    assert arrays["labels"].tolist() == [7] * 3
    # One training image of each class: the sample is that image.
    assert np.ptp(arrays["samples"], axis=0).max() < 1e-5


def test_a_conditional_network_is_compared_and_sampled_by_class(tmp_path):
    directory = train(tmp_path / "run", "denoiser.conditional=true", "data.train_size=10", "compare=false")
    compared(directory, tmp_path / "compare", "machines=[ls]")
    assert [row["label"] for row in rows(tmp_path / "compare" / "comparison.csv")] == ["0", "1", "2"]
    arrays = drawn(tmp_path / "sample", f"checkpoint={directory}", "label=4")
    assert arrays["labels"].tolist() == [4, 4, 4]


def test_the_consistency_of_a_machines_samples_is_written_and_printed(tmp_path):
    options = ["source=bbels", "scales=3", "data.train_size=10", "num_samples=4", "steps=3"]
    done = cli("sample", *options, f"hydra.run.dir={tmp_path / 'run'}")
    assert done.code == 0, done.err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert {key: summary[key] for key in ("source", "steps", "samples")} == {
        "source": "bbels",
        "steps": 3,
        "samples": 4,
    }
    share = summary["consistency"]
    assert 0 <= share["low"] <= share["median"] <= share["high"] <= 1
    assert f"bbels: {share['median']:.1%} of a sample's pixels" in done.out


def test_the_samples_of_a_network_are_consistent_with_nothing(trained, tmp_path):
    drawn(tmp_path / "network", f"checkpoint={trained}")
    options = ["source=checkpoint", "machines=[checkpoint]", f"machines.checkpoint.path={trained}"]
    drawn(tmp_path / "checkpoint", f"checkpoint={trained}", *options)
    for name in ("network", "checkpoint"):
        assert not (tmp_path / name / "summary.json").exists()


def test_training_again_into_a_directory_replaces_its_checkpoint(copied):
    before = open_network(copied)[0].state_dict()
    train(copied, "seed=1", "compare=false")
    assert [path.name for path in (copied / "checkpoints").iterdir()] == ["last.ckpt"]
    after = open_network(copied)[0].state_dict()
    assert any((before[name] != after[name]).any() for name in before)


def test_the_same_seed_trains_the_same_network(trained, tmp_path):
    again, _ = open_network(train(tmp_path / "run", "compare=false"))
    torch.testing.assert_close(again.state_dict(), open_network(trained)[0].state_dict(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("group", ["logger", "callbacks"])
def test_a_list_of_parts_may_be_empty(tmp_path, group):
    train(tmp_path / "run", f"{group}=[]", "compare=false")
    assert (tmp_path / "run" / "metrics.csv").exists() == (group == "callbacks")


def test_a_finished_training_leaves_no_wandb_run_open(tmp_path):
    train(tmp_path / "run", "logger=[wandb]", "logger.wandb.mode=disabled", "compare=false")
    try:
        assert wandb.run is None
    finally:
        wandb.finish()


# Many runs.


def test_a_multirun_makes_a_directory_per_job(tmp_path):
    options = [*TRAIN, "compare=false", "denoiser.num_layers=0,1"]
    done = cli("train", "--multirun", *options, f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert done.code == 0, done.err
    for job, layers in (("0", 0), ("1", 1)):
        _, config = open_network(tmp_path / "sweep" / job)
        assert config["denoiser"]["num_layers"] == layers
        assert (tmp_path / "sweep" / job / "metrics.csv").is_file()


def test_the_flag_of_a_multirun_may_stand_among_the_overrides(tmp_path, monkeypatch):
    jobs = []
    monkeypatch.setattr(verbs, "run", lambda cfg, directory: jobs.append((directory, cfg.denoiser.num_layers)))
    words = [*TRAIN, "compare=false", "--multirun", "denoiser.num_layers=0,1"]
    done = cli("train", *words, f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert done.code == 0, done.err
    assert jobs == [(tmp_path / "sweep" / "0", 0), (tmp_path / "sweep" / "1", 1)]


def test_a_job_of_a_multirun_that_cannot_work_fails_in_one_line(tmp_path):
    arguments = ["source=bbels", "scales=4,3", "data.train_size=5", "steps=1", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    done = cli("sample", "--multirun", *arguments)
    assert done.code != 0
    assert "elslightning: error: a patch size must be odd and positive, not 4" in done.err
    assert "Traceback" not in done.err


def test_a_sweep_directory_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    message = refused("sample", "--multirun", "source=is", "seed=1,2", f"hydra.sweep.dir={tmp_path / 'file' / 'sweep'}")
    assert f"{tmp_path / 'file' / 'sweep'}" in message


# What cannot be done.


def test_an_unknown_experiment_is_named_with_the_known_ones(tmp_path):
    message = refused("train", "experiment=digitz", f"hydra.run.dir={tmp_path / 'run'}")
    assert "experiment/digitz" in message
    assert "fashion_mnist_small" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("denoiser.depth=3", "denoiser.depth"),
        ("machine=[ls]", "machine"),
        ("data=imagenet", "data/imagenet"),
        ("machines=[ls,nn]", "machines/nn"),
        ("denoiser.width", "denoiser.width"),
    ],
)
def test_an_unknown_key_or_option_is_named(tmp_path, override, named):
    assert named in refused("train", override, f"hydra.run.dir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("denoiser.widht=3", "denoiser.width"),
        ("widht=3", "denoiser.width"),
        ("quux=3", ""),
        ("width=3", "denoiser.width"),
        ("denoiser=resnt", "resnet"),
        ("machines=[ls,bels]", "bbels"),
        ("experiment=folde", "folder"),
        ("+denoiser.widht=3", "width"),
        ("calibration.objective=cosinus", "cosine"),
    ],
)
def test_what_a_mistyped_word_may_mean_is_said(tmp_path, override, meant):
    message = refused("train", override, f"hydra.run.dir={tmp_path / 'run'}")
    assert (f"did you mean {meant}?" in message) == bool(meant)
    assert ("did you mean" in message) == bool(meant)
    assert "To append to your config" not in message


REFUSED = {
    "experiment of another verb": (
        ["train", "experiment=black_white"],
        "the configuration is for elslightning sample, and does not work with train",
    ),
    "experiment that sets what the verb has not": (["sample", "experiment=digits"], "experiment/digits"),
    "bad compatibility": (["train", "comparison.compatibility=paper"], "must be null or official, not 'paper'"),
    "checkpoint without a path": (["train", "machines=[is,checkpoint]"], "machines.checkpoint.path=PATH"),
    "missing checkpoint among the machines": (
        ["train", "machines=[checkpoint]", "machines.checkpoint.path=missing"],
        "missing: there is no file /",
    ),
    "even patch size": (["train", "calibration.patch_sizes=[3,4]"], "not [3, 4]"),
    "no pairs": (["train", "comparison.num_pairs=0"], "comparison.num_pairs must be a whole number, at least 1, not 0"),
    "bad width": (["train", "denoiser.width=7"], "denoiser.width must be"),
    "bad padding": (["train", "denoiser.padding_mode=mirror"], "mirror"),
    "bad prediction": (
        ["train", "denoiser.prediction=score"],
        "denoiser.prediction must be one of eps, v, x0, not 'score'",
    ),
    "bad objective": (["train", "calibration.objective=dot"], "calibration.objective must be one of"),
    "bad statistic": (["train", "calibration.statistic=max"], "calibration.statistic must be one of"),
    "bad cap": (["train", "calibration.max_patch_size=all"], "must be a number, null or network, not 'all'"),
    "cap below all sizes": (["train", "calibration.max_patch_size=1"], "calibration.max_patch_size=1 leaves none"),
    "network below all sizes": (
        ["train", "calibration.max_patch_size=network", "calibration.patch_sizes=[19]"],
        "calibration.max_patch_size=17 leaves none of calibration.patch_sizes=[19]",
    ),
    "cap by no network": (
        ["calibrate", "calibration.objective=heldout", "calibration.max_patch_size=network"],
        "calibration.max_patch_size=network needs a network",
    ),
    "too few held-out images": (
        ["calibrate", "calibration.objective=heldout", "data.val_size=31"],
        "calibration.num_samples=32, but there are only 31 held-out images (data.val_size)",
    ),
    "too few to train with": (
        ["train", "calibration.objective=heldout", "calibration.num_samples=298"],
        "calibration.num_samples=298, but there are only 297 held-out images",
    ),
    "bad stretch": (["train", "schedule.stretch=1.0"], "schedule.stretch must exceed"),
    "too much data": (["train", "data.train_size=1501"], "data.train_size=1501, but digits has only 1500 images"),
    "wrong channels": (["train", "data.channels=3"], "data.channels=3, but digits has images of 1 channels"),
    "no data root": (["train", "data=fashion_mnist"], "data.root"),
    "missing data root": (["train", "data=fashion_mnist", "data.root=/nowhere"], "data.root=/nowhere"),
    "text for a number": (["train", "data.batch_size=many"], "batch_size"),
    "no machine": (["train", "machines=[]"], "at least one machine"),
    "negative seed": (["train", "seed=-1"], "seed"),
    "text for the seed": (["train", "seed=lucky"], "seed"),
    "text for epochs": (["train", "trainer.max_epochs=many"], "max_epochs"),
    "calibrate without checkpoint": (["calibrate"], "elslightning calibrate needs checkpoint=PATH"),
    "compare without checkpoint": (["compare"], "elslightning compare needs checkpoint=PATH"),
    "sample without checkpoint": (["sample"], "source=network needs checkpoint=PATH"),
    "missing checkpoint": (["compare", "checkpoint=missing"], "missing: there is no file /"),
    "unknown source": (["sample", "source=els2"], "not 'els2'"),
    "no scales": (["sample", "source=bbels"], "source=bbels needs scales=PATH"),
    "even scales": (["sample", "source=bbels", "scales=4"], "must be odd and positive, not 4"),
    "missing scales": (["sample", "source=bbels", "scales=missing.json"], "/missing.json: there is no file"),
    "label of nobody": (["sample", "source=is", "label=3"], "label=3"),
    "unknown label": (["sample", "source=is", "conditional=true", "label=11"], "label=11 is not a class"),
    "no samples": (["sample", "source=is", "num_samples=0"], "num_samples must be a whole number, at least 1, not 0"),
    "text for samples": (["sample", "source=is", "num_samples=many"], "num_samples"),
    "no steps": (["sample", "source=is", "steps=0"], "steps must be a whole number, at least 1, not 0"),
    "unknown device": (["sample", "source=is", "device=abacus"], "device=abacus cannot be used"),
}


TOGETHER = [
    (
        *("bad compatibility", "even patch size", "no pairs", "bad width", "bad padding", "bad prediction"),
        *("bad objective", "bad statistic", "bad cap", "bad stretch", "text for a number", "negative seed"),
        "text for epochs",
    ),
    ("text for the seed", "cap below all sizes"),
    ("no samples", "no steps", "unknown device", "even scales"),
    ("text for samples", "no scales"),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("names", rounds(REFUSED, TOGETHER), ids=", ".join)
def test_input_that_cannot_be_worked_with_is_refused_in_a_line_for_each(tmp_path, monkeypatch, names):
    monkeypatch.chdir(tmp_path)
    assert_refused(REFUSED, names)


def test_a_refused_run_makes_no_network(tmp_path):
    refused("train", *TRAIN, "calibration.patch_sizes=[3,4]", f"hydra.run.dir={tmp_path / 'run'}")
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not (tmp_path / "run" / "metrics.csv").exists()


@pytest.mark.parametrize("verb", VERBS)
def test_a_run_directory_that_cannot_be_made_is_refused(tmp_path, verb):
    (tmp_path / "file").touch()
    network = [] if verb in ("train", "create") else [f"checkpoint={tmp_path / 'file'}"]  # which nobody opens
    message = refused(verb, *network, f"hydra.run.dir={tmp_path / 'file' / 'run'}")
    assert message == f"cannot write to the run directory {tmp_path / 'file' / 'run'}: Not a directory"


def test_scales_that_do_not_cover_the_steps_are_refused(trained, tmp_path):
    (tmp_path / "scales.json").write_text(json.dumps({"ls": {"alpha_bar": [0.99, 0.98], "patch_size": [3, 5]}}))
    options = [f"checkpoint={trained}", f"scales={tmp_path / 'scales.json'}", f"hydra.run.dir={tmp_path / 'run'}"]
    assert "the scale table covers" in refused("compare", "machines=[ls]", *options)
    assert "there are no scales for the machine bbels" in refused("compare", "machines=[bbels]", *options)
    assert "the scale table covers" in refused("sample", "source=ls", *options)


REFUSALS = {
    "a bad setting": ["train", "calibration.patch_sizes=[3,4]"],
    "missing data": ["train", "data=fashion_mnist", "data.root=/nowhere"],
    "a missing checkpoint": ["compare", "checkpoint=/nowhere"],
    "missing scales": ["sample", "source=ls", "scales=/nowhere"],
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refused_run_changes_nothing_of_an_earlier_one(copied, name):
    before = snapshot(copied)
    refused(*REFUSALS[name], f"hydra.run.dir={copied}")
    assert snapshot(copied) == before


def test_a_run_that_does_not_compose_changes_nothing_of_an_earlier_one(copied):
    before = snapshot(copied)
    refused("train", "denoiser.depth=3", f"hydra.run.dir={copied}")
    assert snapshot(copied) == before


# What later verbs take from a checkpoint.

SMALL = ["denoiser.width=24", "data.train_size=7", *MEASUREMENT]


@pytest.fixture(scope="module")
def config():
    """The sections that a checkpoint of another run would hold."""
    cfg = compose_config("train", Path("elsewhere"), [*SMALL, "seed=5"])
    return OmegaConf.to_container(OmegaConf.create({name: cfg[name] for name in INHERITED}), resolve=True)


def inherited(config, *overrides: str):
    cfg = compose_config("compare", Path("here"), overrides)
    inherit(cfg, config, overrides)
    return cfg


def test_the_sections_of_the_checkpoint_are_taken(config):
    cfg = inherited(config)
    for name in INHERITED:
        assert cfg[name] == config[name]


def test_other_sections_are_left_alone(config):
    cfg = inherited(config, "device=cpu")
    assert (cfg.device, cfg.paths.run_dir, cfg.verb) == ("cpu", "here", "compare")


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("seed=9", "seed", 9),
        ("data.train_size=11", "data.train_size", 11),
        ("data.train_size=null", "data.train_size", None),
        ("calibration.patch_sizes=[5]", "calibration.patch_sizes", [5]),
        ("++comparison.num_pairs=4", "comparison.num_pairs", 4),
    ],
)
def test_explicit_overrides_win(config, override, key, value):
    cfg = inherited(config, override)
    assert OmegaConf.select(cfg, key) == value
    assert cfg.denoiser.width == 24


def test_an_override_leaves_the_rest_of_its_section_to_the_checkpoint(config):
    cfg = inherited(config, "comparison.num_pairs=50")
    assert (cfg.comparison.num_pairs, cfg.comparison.steps) == (50, 2)


def test_a_chosen_group_replaces_the_section(config):
    cfg = inherited(config, "machines=[is]", "comparison=default", "comparison.steps=3")
    assert list(cfg.machines) == ["is"]
    assert (cfg.comparison.num_pairs, cfg.comparison.steps) == (100, 3)


def test_a_key_that_only_begins_alike_does_not_count(config):
    config = {**config, "seed": 5}
    cfg = compose_config("compare", Path("here"), ["+seedling=1"])
    inherit(cfg, config, ["+seedling=1"])
    assert cfg.seed == 5


def test_a_deleted_key_is_deleted(config):
    cfg = inherited(config, "~machines.ls")
    assert list(cfg.machines) == ["bbels", "is", "wiener", "mean"]


def test_a_checkpoint_that_lacks_a_section_leaves_the_default(config):
    cfg = inherited({name: config[name] for name in ("denoiser", "schedule")})
    assert (cfg.denoiser.width, cfg.comparison.num_pairs) == (24, 100)


def test_the_configuration_stays_closed(config):
    with pytest.raises(AttributeError, match="colour"):
        inherited(config).colour = "red"
