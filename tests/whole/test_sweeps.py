"""The files of sweeps/, and multiruns from the command line to the report."""

import atexit
import functools
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import victims
from afresh import forks
from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser
from joblib.externals.loky.backend.context import set_start_method
from joblib.externals.loky.process_executor import _python_exit
from jobs import rows
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from tiny import TRAIN, Done, cli, compose_config, snapshot, train, undrawn

from elslightning.cli import verbs as runs
from elslightning.cli.composing import sweeps_dir
from elslightning.cli.multirun import register
from elslightning.report import sweep as sweep_report
from elslightning.report.sweep import Question
from elslightning.runs.checkpoints import read_checkpoint
from elslightning.runs.targets import build
from elslightning.system.errors import InputError
from elslightning.system.files import write_json
from elslightning.system.locking import NAME

pytestmark = pytest.mark.usefixtures("no_layout")

register()

HYDRA = {path.stem: OmegaConf.load(path) for path in sorted((sweeps_dir() / "hydra" / "sweep").glob("*.yaml"))}
WANDB = {
    path.stem: OmegaConf.to_container(OmegaConf.load(path)) for path in sorted((sweeps_dir() / "wandb").glob("*.yaml"))
}
VERBS = {name: "compare" if name == "calibration" else "train" for name in HYDRA}
LOGGING = {"hydra.run.dir", "logger", "logger.wandb.mode"}


@functools.cache
def hydra_grid(name: str) -> dict[str, list[str]]:
    """The swept keys of a Hydra sweep and their values."""
    cfg = compose_config(VERBS[name], Path("run"), [f"+sweep={name}"], hydra=True)
    texts = [f"{key}={value}" for key, value in cfg.hydra.sweeper.params.items()]
    parsed = OverridesParser.create().parse_overrides(texts)
    return {
        override.key_or_group: list(override.sweep_string_iterator())
        if override.is_sweep_override()
        else [override.get_value_element_as_str()]
        for override in parsed
    }


def wandb_grid(name: str) -> dict[str, list[str]]:
    """The keys of a W&B sweep and their values, of intervals the ends."""
    return {
        key: [
            str(value)
            for value in (entry.get("values") or [entry[end] for end in ("value", "min", "max") if end in entry])
        ]
        for key, entry in WANDB[name]["parameters"].items()
    }


def rounds(grid: dict[str, list[str]]) -> list[list[str]]:
    """Every value of every key, in as few lists of overrides as possible."""
    count = max(map(len, grid.values()))
    return [[f"{key}={values[n % len(values)]}" for key, values in grid.items()] for n in range(count)]


def composed(verb: str, overrides: list[str]) -> DictConfig:
    """The configuration with Hydra's own section; its parts take their settings."""
    cfg = compose_config(verb, Path("run"), overrides, hydra=True)
    for part in ("denoiser", "calibration", "comparison"):
        assert build(cfg[part]) is not None
    return cfg


# The files.


def test_there_is_a_sweep_for_every_question():
    questions = {
        "receptive_field",
        "patch_sizes",
        "calibration",
        "data_size",
        "training_time",
        "theories",
        "creativity",
    }
    assert set(HYDRA) == questions
    assert set(WANDB) == set(HYDRA) - {"calibration"} | {"predictability"}
    readme = (sweeps_dir() / "README.md").read_text("utf-8")
    for name in {*HYDRA, *WANDB}:
        assert f"| `{name}`" in readme


@pytest.mark.parametrize("name", HYDRA)
def test_every_value_of_a_sweep_is_one_that_works(name):
    for overrides in rounds(hydra_grid(name)):
        composed(VERBS[name], [f"+sweep={name}", *overrides])


@pytest.mark.parametrize("name", HYDRA)
def test_a_sweep_is_a_multirun_and_asks_about_keys_that_there_are(name):
    cfg = composed(VERBS[name], [f"+sweep={name}", *rounds(hydra_grid(name))[0]])
    assert cfg.hydra.mode.name == "MULTIRUN"
    if VERBS[name] == "train":
        assert build(cfg.trainer, logger=False, enable_checkpointing=False) is not None
    question = Question(**cfg.sweep)
    assert question.question.endswith("?")
    for key in {question.x, question.columns, question.lines} - {None, "receptive_field", "step"}:
        assert OmegaConf.select(cfg, key) is not None
    runs_of = 1
    for values in hydra_grid(name).values():
        runs_of *= len(values)
    readme = (sweeps_dir() / "README.md").read_text("utf-8").splitlines()
    (line,) = [line for line in readme if line.startswith(f"| `{name}`")]
    assert line.endswith(f"| {runs_of} |")


def test_the_depths_of_the_receptive_field_sweep_see_9_to_21_pixels():
    depths = hydra_grid("receptive_field")["denoiser.num_layers"]
    fields = [build(compose_config("train", Path("run"), [f"denoiser.num_layers={n}"]).denoiser) for n in depths]
    assert [network.receptive_field for network in fields] == [9, 11, 13, 15, 17, 19, 21]


@pytest.mark.parametrize("name", WANDB)
def test_every_key_of_a_wandb_sweep_is_one_of_the_configuration(name, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    sweep = WANDB[name]
    assert sweep["command"] == ["${env}", "elslightning", "train", "${args_no_hyphens}"]
    assert sweep["program"] == "elslightning"  # the agent asks for it, though the command names it
    assert sweep["metric"] == {"name": "val/bbels/pearson_r_median", "goal": "maximize"}
    assert sweep["method"] == ("bayes" if name == "predictability" else "grid")
    for overrides in rounds(wandb_grid(name)):
        cfg = composed("train", overrides)
        assert cfg.hydra.run.dir == "outputs/wandb/abc"
        assert list(cfg.logger) == ["csv", "wandb"]
        assert "bbels" in cfg.machines  # or there would be nothing to maximise


@pytest.mark.parametrize("name", sorted(set(WANDB) & set(HYDRA)))
def test_a_wandb_sweep_is_the_multirun_of_its_name(name):
    ours, theirs = hydra_grid(name), {key: values for key, values in wandb_grid(name).items() if key not in LOGGING}
    assert {key: values for key, values in theirs.items() if key in ours} == ours
    ours_cfg = compose_config("train", Path("run"), [f"+sweep={name}", *rounds(ours)[0]])
    theirs_cfg = compose_config("train", Path("run"), rounds(theirs)[0])
    assert {key: value for key, value in ours_cfg.items() if key != "sweep"} == dict(theirs_cfg.items())


# Multiruns.


def ended(directory: Path) -> dict[str, int]:
    """When the jobs below a directory were recorded."""
    return {path.parent.name: path.stat().st_mtime_ns for path in directory.glob("*/job.json")}


@pytest.fixture
def stub(monkeypatch):
    """Jobs that write an empty summary at once, and fail for some seeds; returns the seeds done."""
    done = []

    def run(cfg, directory):
        done.append(cfg.seed)
        if cfg.seed == 13:
            raise InputError("13 is unlucky")
        if cfg.seed == 14:
            raise ZeroDivisionError
        write_json(directory / "summary.json", {})
        return SimpleNamespace(text=lambda: "", objective=0.5)

    monkeypatch.setattr(runs, "run", run)
    return done


def multirun(directory: Path, *arguments: str) -> Done:
    return cli("train", *arguments, "--multirun", f"hydra.sweep.dir={directory}")


@pytest.mark.parametrize(("seeds", "code"), [("13,1", 2), ("14,1", 1), ("13,14,1", 1), ("1,2", 0)])
def test_jobs_that_fail_are_named_at_the_end_and_the_others_run(tmp_path, stub, seeds, code):
    done = multirun(tmp_path, f"seed={seeds}")
    assert stub == [int(seed) for seed in seeds.split(",")]
    assert done.code == code
    failed = {"13": "0 (seed=13): 13 is unlucky", "14": "(seed=14): ZeroDivisionError:"}
    for seed, said in failed.items():
        assert (said in (done.err.splitlines() or [""])[-1]) == (seed in seeds.split(","))
    statuses = {row["seed"]: row["status"] for row in rows(tmp_path)}
    assert statuses == {seed: "failed" if seed in failed else "finished" for seed in seeds.split(",")}


def test_a_multirun_in_batches_runs_them_all(tmp_path, stub):
    assert multirun(tmp_path, "seed=13,1,2", "hydra.sweeper.max_batch_size=1").code == 2
    assert stub == [13, 1, 2]


def test_a_multirun_again_does_what_is_missing(tmp_path, stub):
    assert multirun(tmp_path, "seed=1,14,2").code == 1
    (tmp_path / "2" / "summary.json").unlink()
    before = ended(tmp_path)
    stub.clear()
    assert multirun(tmp_path, "seed=1,14,2").code == 1
    assert stub == [14, 2]
    assert [name for name, time in ended(tmp_path).items() if time == before[name]] == ["0"]


@contextmanager
def at_work(directory: Path) -> Iterator[None]:
    """Another process, as far as locks can tell."""
    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(directory / NAME):
        yield


@pytest.mark.reliability
def test_two_multiruns_never_work_in_one_directory(tmp_path, stub):
    assert multirun(tmp_path, "seed=1,2").code == 0
    before = snapshot(tmp_path)
    with at_work(tmp_path):
        done = multirun(tmp_path, "seed=1,2,3")
    refused = f"elslightning: error: another run is at work in {tmp_path}: wait, or choose another one\n"
    assert (done.code, done.err, stub) == (2, refused, [1, 2])
    after = snapshot(tmp_path)
    after.pop(NAME, None)  # whoever was at work leaves it
    assert after == before


@pytest.mark.reliability
def test_a_job_whose_directory_another_run_works_in_is_left_to_it(tmp_path, stub):
    multirun(tmp_path, "seed=1,14,2")
    before, named = snapshot(tmp_path / "1"), f"another run is at work in {tmp_path / '1'}"
    stub.clear()
    with at_work(tmp_path / "1"):
        done = multirun(tmp_path, "seed=1,15,3")
    assert (done.code, stub) == (1, [3])
    assert [line for line in done.err.splitlines() if named in line]
    after = snapshot(tmp_path / "1")
    after.pop(NAME, None)
    assert after == before
    assert not list(tmp_path.rglob(NAME))[1:]


@pytest.mark.reliability
def test_a_job_at_work_has_its_directory_to_itself(tmp_path, monkeypatch):
    def run(cfg, directory):
        with pytest.raises(Timeout):
            FileLock(directory / NAME, timeout=0).acquire()

    monkeypatch.setattr(runs, "run", run)
    assert multirun(tmp_path, "seed=1,2").code == 0
    assert [row["status"] for row in rows(tmp_path)] == ["finished"] * 2
    assert not list(tmp_path.rglob(NAME))


@pytest.mark.reliability
def test_finished_jobs_keep_the_configuration_that_they_ran_with(tmp_path, stub):
    """A later version, or a changed file, may compose another one of the same words."""
    multirun(tmp_path, "seed=1,2")
    config = tmp_path / "0" / ".hydra" / "config.yaml"
    config.write_text("of: before\n")
    (tmp_path / "1" / "job.json").unlink()
    assert multirun(tmp_path, "seed=1,2").code == 0
    assert stub == [1, 2, 2]
    assert config.read_text() == "of: before\n"


def test_other_overrides_in_the_same_directory_are_other_jobs(tmp_path, stub):
    multirun(tmp_path, "seed=1,2")
    stub.clear()
    assert multirun(tmp_path, "seed=1,3").code == 0
    assert stub == [3]
    multirun(tmp_path, "seed=1,3", "denoiser.width=32")
    assert stub == [3, 1, 3]


def test_a_key_that_does_not_compose_starts_nothing(tmp_path, stub):
    done = multirun(tmp_path, "denoiser.depth=1,2")
    assert (done.code, len(done.err.splitlines()), stub) == (2, 1, [])


def test_a_sweep_needs_no_flag_and_the_command_line_wins(tmp_path, stub):
    options = ["seed=5", "experiment=digits_circular", "denoiser.width=16", "data.train_size=50"]
    done = cli("train", "+sweep=data_size", *options, f"hydra.sweep.dir={tmp_path}")
    assert done.code == 0, done.err
    assert stub == [5]
    config = OmegaConf.load(tmp_path / "0" / ".hydra" / "config.yaml")
    assert (config.trainer.max_steps, config.denoiser.padding_mode) == (2400, "circular")
    assert (config.data.train_size, config.denoiser.width) == (50, 16)


def test_a_sweep_that_there_is_not_is_refused_with_the_known_ones(tmp_path):
    done = multirun(tmp_path, "+sweep=everything")
    assert done.code == 2
    for name in HYDRA:
        assert name in done.err


DYING = """
import os, signal
from elslightning.cli import verbs

work = verbs.run

def run(cfg, directory):
    if directory.name == "2":
        os.kill(os.getpid(), signal.SIGKILL)
    return work(cfg, directory)

verbs.run = run
"""


def test_a_sweep_that_is_killed_goes_on_where_it_was(tmp_path, monkeypatch):
    undrawn(monkeypatch)
    tiny = [override for override in TRAIN if "num_layers" not in override]
    command = [
        "train",
        "+sweep=receptive_field",
        "denoiser.num_layers=0,1",
        "seed=0",
        *tiny,
        f"hydra.sweep.dir={tmp_path}",
    ]
    log = tmp_path.with_suffix(".log")
    died = victims.finish(*command, output=log, before=functools.partial(exec, DYING, {}))
    assert died == -signal.SIGKILL, log.read_text()
    before = ended(tmp_path)
    assert set(before) == {"0", "1"}
    assert not (tmp_path / "sweep.csv").exists()

    done = cli(*command)
    assert done.code == 0, done.err
    after = ended(tmp_path)
    assert set(after) == {"0", "1", "2", "3"}
    assert {name: after[name] for name in before} == before
    found = rows(tmp_path)
    assert [row["status"] for row in found] == ["finished"] * 4
    assert [(row["denoiser.padding_mode"], row["receptive_field"]) for row in found] == [
        ("zeros", "5"),
        ("zeros", "7"),
        ("circular", "5"),
        ("circular", "7"),
    ]
    for row in found:
        first = ["bbels", "soft_bbels"] if row["denoiser.padding_mode"] == "zeros" else ["els", "soft_els", "bbels"]
        machines = [*first, "ls", "is", "wiener", "mean"]
        summary = json.loads((tmp_path / row["job"] / "summary.json").read_text())["machines"]
        assert list(summary) == machines
        for name in machines:
            assert float(row[f"val/{name}/pearson_r_median"]) == summary[name]["2"]["pearson_r"]["median"]
            assert name in ("is", "wiener", "mean") or set(row[f"val/{name}/patch_sizes"].split()) <= {"3", "5"}
    with Image.open(tmp_path / "figures" / "sweep.png") as image:
        assert min(image.size) > 100


def test_a_training_is_followed_in_time(tmp_path, monkeypatch):
    drawn = []
    undrawn(monkeypatch)
    monkeypatch.setattr(sweep_report, "sweep", lambda points, x, **options: drawn.append([run[x] for run in points]))
    options = [*TRAIN, "seed=0", "comparison.every_n_epochs=2", "trainer.max_epochs=4"]
    done = cli("train", "+sweep=training_time", *options, f"hydra.sweep.dir={tmp_path}")
    assert done.code == 0, done.err
    assert drawn == [[3, 7]]  # of 40 images in batches of 20, after two and after four epochs, counted from 0


def test_little_data_is_trained_on_for_as_many_steps_as_much(tmp_path, monkeypatch):
    undrawn(monkeypatch)
    tiny = [override for override in TRAIN if "max_epochs" not in override and "train_size" not in override]
    options = [*tiny, "data.train_size=10,40", "trainer.max_steps=6", "trainer.val_check_interval=3", "compare=false"]
    done = cli("train", "+sweep=data_size", *options, f"hydra.sweep.dir={tmp_path}")
    assert done.code == 0, done.err
    for job in ("0", "1"):
        assert read_checkpoint(tmp_path / job)["global_step"] == 6


def test_a_trained_network_is_calibrated_in_many_ways(tmp_path, monkeypatch):
    undrawn(monkeypatch)
    run = train(tmp_path / "run", "compare=false")
    grid = ["calibration.patch_sizes=[3,5]", "calibration.objective=cosine,heldout", "calibration.num_samples=2"]
    grid += ["report=false"]
    done = cli("compare", "+sweep=calibration", f"checkpoint={run}", *grid, f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert done.code == 0, done.err
    assert [row["calibration.objective"] for row in rows(tmp_path / "sweep")] == ["cosine", "heldout"]
    assert all(row["val/bbels/patch_sizes"] for row in rows(tmp_path / "sweep"))


# Launchers, which are plugins.


def forked_workers() -> None:
    """Has joblib's executor fork its workers, and end them with the process: one of multiprocessing waits for them.
    Those of submitit begin anew, but for the large packages that all of them import."""
    forks()
    set_start_method("fork")
    atexit.register(_python_exit)


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_jobs_are_launched_at_once(tmp_path, launcher):
    sweep = tmp_path / "sweep"
    options = ["source=is", "data.train_size=5", "num_samples=0,2", "steps=1", f"hydra.sweep.dir={sweep}"]
    command = ["sample", "--multirun", *options, f"hydra/launcher={launcher}"]
    # A process of its own, for checked signatures cannot be pickled.
    done = victims.run(*command, folder=tmp_path, before=forked_workers)
    assert done.code == 2, done.err
    assert "1 of 2 jobs did not finish: 0 (num_samples=0): num_samples must be a whole number" in done.err
    assert [row["status"] for row in rows(sweep)] == ["failed", "finished"]
    assert (sweep / "1" / "samples.npz").is_file()


def test_a_slurm_cluster_takes_what_the_readme_says(tmp_path):
    options = ["hydra.launcher.timeout_min=240", "hydra.launcher.gpus_per_node=1", "trainer=gpu"]
    overrides = ["+sweep=data_size", "hydra/launcher=submitit_slurm", *options]
    launcher = compose_config("train", tmp_path, overrides, hydra=True).hydra.launcher
    assert (launcher.timeout_min, launcher.gpus_per_node) == (240, 1)
    assert all(option in (sweeps_dir() / "README.md").read_text("utf-8") for option in options)
