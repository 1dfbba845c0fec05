"""Loggers: what an offline W&B run holds, that every job has its own, and that others get the same."""

import csv
import io
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import offline
import pytest
import wandb
from lightning.fabric.loggers import tensorboard
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from measured import Plain, comparison, fit, real
from PIL import Image
from tiny import PAIRS, TRAIN, cli, train

from elslightning.machines.scales import load_scales
from elslightning.measurement.agreement import MEASURES
from elslightning.runs.metrics import CHECK
from elslightning.training.loggers import build_loggers, log_config, log_file, log_lines, log_table, mode_problems

pytestmark = pytest.mark.usefixtures("no_layout")

WANDB = ["logger=wandb", "machines=[bbels,is]"]
SHORT = [*TRAIN, "compare=false", "logger=wandb"]


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    """No reports of errors to W&B, and no user's settings."""
    with pytest.MonkeyPatch.context() as patch:
        offline.looked_once(patch)
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        for name in ("WANDB_SILENT", "WANDB_QUIET"):
            patch.delenv(name, raising=False)
        for name in ("WANDB_RUN_ID", "WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_SWEEP_ID", "WANDB_DATA_DIR"):
            patch.delenv(name, raising=False)
        yield
    wandb.finish()


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    """The directory of a finished training that W&B watched, offline."""
    return train(tmp_path_factory.mktemp("wandb") / "watched", *WANDB)


@pytest.fixture(scope="module")
def run(directory) -> offline.Offline:
    (found,) = offline.runs(directory)
    return found


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def names(directory: Path) -> set[str]:
    return {path.stem for path in (directory / "figures").glob("*.png")}


def test_the_scalars_of_metrics_csv_are_in_the_run(directory, run):
    wanted: dict[str, list[float]] = {}
    for row in rows(directory / "metrics.csv"):
        for key, value in row.items():
            if value and key not in ("step", "epoch", CHECK):
                wanted.setdefault(key, []).append(float(value))
    assert {"train/loss", "val/loss", "val/bbels/pearson_r_median", "val/is/pearson_r_high"} <= wanted.keys()
    assert {key: run.values(key) for key in wanted} == wanted


def test_the_medians_have_their_intervals(directory, run):
    summary = json.loads((directory / "summary.json").read_text())
    for machine in ("bbels", "is"):
        for name, value in summary["machines"][machine]["2"]["pearson_r"].items():
            assert run.values(f"val/{machine}/pearson_r_{name}") == [value]


def test_every_figure_is_an_image_of_the_run(directory, run):
    for name in names(directory):
        (logged,) = run.values(name)
        assert logged["_type"] == "images/separated"
        assert run.media(name).startswith(b"\x89PNG")
    assert {"pairs", "scales", "training"} <= names(directory)


def test_the_calibrated_patch_sizes_are_a_line_plot(directory, run):
    table = json.loads(run.media("patch_size_table"))
    sizes = load_scales(directory / "scales.json")["bbels"].patch_size.tolist()
    assert table["columns"] == ["step", "lineKey", "lineVal"]
    assert table["data"] == [[step, "bbels", size] for step, size in enumerate(sizes, start=1)]
    assert run.config["_wandb"]["visualize"]["patch_size"]["panel_config"]["panelDefId"] == "wandb/lineseries/v0"


def pair_table(run: offline.Offline) -> tuple[dict, dict[str, bytes]]:
    """The table, and its files by their paths: both are in its artifact, as W&B shows it."""
    (files,) = [files for name, files in run.artifacts.items() if "pair_table" in name]
    return json.loads(files["pair_table.table.json"]), files


def test_the_pair_table_has_every_pair_with_its_images_and_measures(directory, run):
    assert run.values("pair_table")[-1]["nrows"] == PAIRS
    table, files = pair_table(run)
    measures = {f"{name}/{measure}" for name in ("bbels", "is") for measure in MEASURES}
    assert table["columns"][:5] == ["pair", "noise_seed", "label", "network_steps", "network"]
    assert set(table["columns"][5:]) == {"bbels", "is"} | measures
    pairs = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [pair["pair"] for pair in pairs] == list(range(PAIRS))
    for row in rows(directory / "comparison.csv"):
        pair = pairs[int(row["pair"])]
        assert (pair["noise_seed"], pair["label"], pair["network_steps"]) == (0, None, 2)
        for measure in MEASURES:
            assert pair[f"{row['machine']}/{measure}"] == pytest.approx(float(row[measure]))
    for pair in pairs:
        for source in ("network", "bbels", "is"):
            assert files[pair[source]["path"]].startswith(b"\x89PNG")


@pytest.mark.parametrize(("source", "array"), [("bbels", "bbels"), ("network", "network_2")])
def test_the_images_of_the_pair_table_are_the_samples(directory, run, source, array):
    table, files = pair_table(run)
    content = files[table["data"][-1][table["columns"].index(source)]["path"]]
    with np.load(directory / "samples.npz") as arrays, Image.open(io.BytesIO(content)) as image:
        sample = np.clip((arrays[array][-1, 0] + 1) * 127.5, 0, 255)
        assert np.abs(np.asarray(image.convert("L")) - sample).max() <= 0.51


def test_scales_and_checkpoint_are_artifacts_and_stay_in_the_run_directory(directory, run):
    assert run.artifacts[f"scales-{run.id}"] == {"scales.json": (directory / "scales.json").read_bytes()}
    assert run.artifacts[f"model-{run.id}"] == {"model.ckpt": (directory / "checkpoints" / "last.ckpt").read_bytes()}
    assert len(list((directory / "wandb" / "artifacts" / "staging").iterdir())) >= 2


def test_the_run_has_the_resolved_configuration(directory, run):
    assert run.config["data"]["train_size"] == 40
    assert run.config["callbacks"]["checkpoint"]["dirpath"] == str(directory / "checkpoints")


def test_the_run_can_be_found_from_run_json(directory, run):
    known = json.loads((directory / "run.json").read_text())["wandb"]
    # Too many overrides for a name.
    assert known == {"id": run.id, "name": run.name, "group": None}
    assert run.name == "watched"
    assert run.exit_code == 0


def test_offline_one_line_says_how_to_upload_the_run(tmp_path, capfd):
    done = cli("train", *SHORT, f"hydra.run.dir={tmp_path / 'run'}")
    (kept,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    said = [line for line in (done.err + capfd.readouterr().err).splitlines() if "wandb" in line.lower()]
    assert said == [f"elslightning: W&B has this run offline: wandb sync {kept} uploads it"]
    assert not {"WANDB_SILENT", "WANDB_QUIET"} & {*os.environ}


@pytest.mark.parametrize("mode", ["disabled", "sideways"])
def test_a_disabled_run_writes_nothing_and_an_unknown_mode_is_refused(tmp_path, mode):
    done = cli("train", *SHORT, f"logger.wandb.mode={mode}", f"hydra.run.dir={tmp_path / 'run'}")
    assert not list(tmp_path.rglob("*wandb*"))
    if mode == "disabled":
        assert done.code == 0, done.err
        assert not (tmp_path / "run" / "wandb").exists()
        assert json.loads((tmp_path / "run" / "run.json").read_text())["wandb"] is None
    else:
        assert done.code == 2
        assert "logger.wandb.mode must be one of offline, online, disabled, not 'sideways'" in done.err
    assert wandb.run is None


def test_every_job_of_a_multirun_has_a_run_even_after_one_that_raised(tmp_path):
    sweep = tmp_path / "multirun" / "which" / "one"
    monitor = ["callbacks=[checkpoint,best]", "callbacks.best.monitor=nothing,val/loss"]
    done = cli("train", "--multirun", *SHORT, *monitor, f"hydra.sweep.dir={sweep}")
    assert done.code == 1
    assert "could not find the monitored key" in done.err
    (failed,), (finished,) = offline.runs(sweep / "0"), offline.runs(sweep / "1")
    assert failed.id != finished.id
    assert (failed.name, finished.name) == tuple(f"callbacks.best.monitor={name}" for name in ("nothing", "val/loss"))
    assert failed.group == finished.group == "which/one"
    assert (failed.exit_code, finished.exit_code) == (1, 0)
    assert finished.config["callbacks"]["best"]["monitor"] == "val/loss"
    assert len(finished.values("val/loss")) == 1
    checkpoints = sweep / "1" / "checkpoints"
    assert {path.name for path in checkpoints.iterdir()} == {"last.ckpt", "best.ckpt"}
    assert finished.artifacts[f"model-{finished.id}"] == {"model.ckpt": (checkpoints / "best.ckpt").read_bytes()}
    assert wandb.run is None


class Writer:
    """What TensorBoard's SummaryWriter takes; keeps it."""

    def __init__(self, log_dir, **options):
        self.scalars, self.images = [], {}

    def add_scalar(self, tag, value, step):
        self.scalars.append((step, tag, float(value)))

    def add_image(self, tag, img_tensor, global_step=None, walltime=None, dataformats="CHW"):
        assert (dataformats, img_tensor.dtype, img_tensor.shape[2]) == ("HWC", np.uint8, 3)
        self.images[tag] = global_step

    def flush(self):
        pass

    close = flush


def test_tensorboard_gets_the_scalars_of_metrics_csv_and_the_images(tmp_path, monkeypatch):
    package = ModuleType("tensorboardX")
    package.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "tensorboardX", package)
    monkeypatch.setattr(tensorboard, "_TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr(tensorboard, "_TENSORBOARDX_AVAILABLE", True)
    board = TensorBoardLogger(tmp_path / "board", name="", version="")
    table = CSVLogger(tmp_path, name="", version="")
    fit(tmp_path, [comparison(real(), tmp_path)], logger=[board, table])
    written = [
        (int(row["step"]), key, float(value))
        for row in rows(tmp_path / "metrics.csv")
        for key, value in row.items()
        if value and key not in ("step", "epoch")
    ]
    assert sorted(entry for entry in board.experiment.scalars if entry[1] not in ("epoch", "hp_metric")) == sorted(
        written
    )
    assert set(board.experiment.images) == names(tmp_path)


def test_a_logger_of_scalars_is_not_asked_for_more(tmp_path):
    logger = Plain()
    log_table(logger, "table", [{"a": 1}], 0)
    log_lines(logger, "lines", {"a": [(1, 2)]}, "x", 0)
    log_file(logger, tmp_path / "none", "file")
    log_config(logger, {"a": 1})
    assert logger.scalars == []


@pytest.mark.reliability
def test_the_project_and_the_mode_are_those_of_wandbs_variables_where_nothing_is_said(tmp_path, monkeypatch):
    part = {"_target_": "lightning.pytorch.loggers.WandbLogger", "project": None, "mode": None, "name": None}
    part |= {"save_dir": str(tmp_path), "id": None, "group": None}

    def chosen(**given):
        logger = build_loggers({"wandb": part | given}, tmp_path, {"id": "a", "name": "b", "group": None})[0]
        return logger._wandb_init["project"], logger._wandb_init["mode"]

    for name in ("WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    assert chosen() == ("elslightning", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    assert chosen() == ("mine", "offline")
    assert chosen(project="yours") == ("yours", "offline")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert build_loggers({"wandb": part}, tmp_path, {}) == []
    assert chosen(mode="offline") == ("mine", "offline")
    monkeypatch.setenv("WANDB_MODE", "sideways")
    assert mode_problems({"wandb": part}) == ["WANDB_MODE must be one of offline, online, disabled, not 'sideways'"]
    assert mode_problems({"wandb": part | {"mode": "offline"}}) == []


@pytest.mark.reliability
def test_a_trial_leaves_nothing_of_wandb_and_a_bar_can_be_left_out(tmp_path, capsys):
    options = [*SHORT, "+trainer.fast_dev_run=true", "+trainer.enable_progress_bar=false"]
    done = cli("train", *options, f"hydra.run.dir={tmp_path / 'run'}")
    assert done.code == 0, done.err
    assert not (tmp_path / "run" / "wandb").exists()
    assert "training:" not in done.err
