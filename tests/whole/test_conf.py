"""Every file of conf/ is composed and instantiated; every experiment is run, small."""

import csv
import functools
import inspect
import json
import re
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import pytest
import wandb
from files import write_cifar10, write_fashion_mnist, write_images
from hydra.utils import get_object
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from tiny import PAIRS, TRAIN, cli, compose_config, undrawn

from elslightning.cli.composing import conf_dir
from elslightning.cli.main import VERBS
from elslightning.machines.scales import load_scales
from elslightning.runs.checkpoints import open_network
from elslightning.runs.targets import build

pytestmark = pytest.mark.usefixtures("no_layout")

MEASURES = ["pearson_r", "pearson_r2", "r2_score", "cosine", "mse"]
FURTHER = ["beyond_trivial", "nearest_ratio", "network_nearest_ratio", "network_outside"]
COLUMNS = ["pair", "label", "machine", "steps", "network_steps", *MEASURES, *FURTHER]


@functools.cache
def groups(verb: str) -> dict[str, Any]:
    """The config groups that a root configuration chooses from, and what it chooses."""
    chosen: dict[str, Any] = {}
    for entry in OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{verb}.yaml"))["defaults"]:
        chosen |= entry if isinstance(entry, dict) else {}
    return chosen


ELSEWHERE = {("denoiser", "registered")}
"""Options that name what only another distribution has; `test_brought_networks.py` makes one."""


def options(group: str) -> list[str]:
    names = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
    return [name for name in names if (group, name) not in ELSEWHERE]


def rounds(verb: str) -> list[dict[str, list[str]]]:
    """Every option of every group but the experiments, in as few configurations as possible: of some groups several
    can be chosen at once."""
    chosen = {group: options(group) for group in groups(verb) if group != "experiment"}
    several = {group for group, default in groups(verb).items() if isinstance(default, list)}
    longest = max(len(names) for group, names in chosen.items() if group not in several)
    return [
        {group: (group in several and names[n::longest]) or [names[n % len(names)]] for group, names in chosen.items()}
        for n in range(longest)
    ]


ROUNDS = {f"{verb}-{n}": (verb, chosen) for verb in VERBS for n, chosen in enumerate(rounds(verb))}
# The verb of every experiment: that which its file names, or train.
EXPERIMENTS = {
    path.relative_to(conf_dir() / "experiment").with_suffix("").as_posix(): OmegaConf.load(path).get("verb", "train")
    for path in sorted((conf_dir() / "experiment").rglob("*.yaml"))
}
PAPER = [name for name in EXPERIMENTS if name.startswith("paper/") and name != "paper/settings"]
# Those that a laptop can run.
TRAINED = [name for name, verb in EXPERIMENTS.items() if verb == "train" and not name.startswith("paper/")]
DRAWN = "cifar10_small"
"""The one whose figures are drawn, of two numbers of network steps; drawing takes longer than all else."""
SIDE = 8
"""Of the images of all of them, to be quick."""
SAMPLED = [name for name, verb in EXPERIMENTS.items() if verb == "sample"]


def parts(node: Any) -> Iterator[DictConfig]:
    """Everything below a node that names a `_target_`."""
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield node
        else:
            for key in node:
                yield from parts(node[key])


def assert_instantiates(part: DictConfig) -> None:
    target = get_object(part["_target_"])
    if target is TensorBoardLogger:  # it needs a package that is not among the dependencies
        arguments = {key: value for key, value in part.items() if key != "_target_"}
        assert inspect.signature(target).bind(**arguments).arguments.keys() == arguments.keys()
    elif part.get("_partial_"):
        assert build(part).func is target
    else:
        # A trainer for a device that this machine may lack has the same arguments as one for the CPU.
        built = build(part, accelerator="cpu") if target is pl.Trainer else build(part)
        assert isinstance(built, target)


def test_every_verb_has_a_root_configuration_and_none_is_left_over():
    assert {path.stem for path in conf_dir().glob("*.yaml")} == set(VERBS)


def test_every_file_is_an_option_of_some_verb():
    reached = {
        f"{group}/{option}.yaml" for _, chosen in ROUNDS.values() for group, names in chosen.items() for option in names
    }
    reached |= {f"experiment/{name}.yaml" for name, verb in EXPERIMENTS.items() if "experiment" in groups(verb)}
    reached |= {f"{verb}.yaml" for verb in VERBS} | {f"{group}/{name}.yaml" for group, name in ELSEWHERE}
    assert {path.relative_to(conf_dir()).as_posix() for path in conf_dir().rglob("*.yaml")} == reached


@pytest.mark.parametrize("verb", VERBS)
def test_everything_a_verb_composes_by_default_instantiates(verb, tmp_path):
    cfg = compose_config(verb, tmp_path)
    assert cfg.verb == verb
    assert len([assert_instantiates(part) for part in parts(cfg)]) >= 7


@pytest.mark.parametrize("name", ROUNDS)
def test_every_option_of_every_group_can_be_chosen_and_instantiates(name, tmp_path):
    verb, chosen = ROUNDS[name]
    several = {group for group, default in groups(verb).items() if isinstance(default, list)}
    words = {group: ",".join(names) for group, names in chosen.items()}
    overrides = [f"{group}=[{word}]" if group in several else f"{group}={word}" for group, word in words.items()]
    cfg = compose_config(verb, tmp_path, overrides, hydra=True)
    for group, names in chosen.items():
        if group in several:
            assert list(cfg[group]) == names
        else:
            assert [cfg.hydra.runtime.choices[group]] == names
    for group in chosen.keys() - {"paths", "hydra"}:
        assert [assert_instantiates(part) for part in parts(cfg[group])], f"{group} names nothing"
    assert [assert_instantiates(part) for part in parts(cfg.hydra.callbacks)]
    assert wandb.run is None


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_instantiates(name, tmp_path):
    cfg = compose_config(EXPERIMENTS[name], tmp_path, [f"experiment={name}"])
    assert cfg.verb == EXPERIMENTS[name]
    assert len([assert_instantiates(part) for part in parts(cfg)]) >= 6


@pytest.mark.parametrize(
    "path", sorted(conf_dir().rglob("*/*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_one_file_names_at_most_one_target(path):
    content = path.read_text(encoding="utf-8")
    assert content.count("_target_:") <= 1


def test_the_gpu_trainer_is_the_cpu_trainer_on_another_device(tmp_path):
    cpu, gpu = (compose_config("train", tmp_path, [f"trainer={name}"]).trainer for name in ("cpu", "gpu"))
    assert {key for key in cpu if cpu[key] != gpu[key]} == {"accelerator"}


def test_paths_follow_the_run_directory():
    assert OmegaConf.load(conf_dir() / "paths" / "default.yaml")._get_node("run_dir")._value() == (
        "${hydra:runtime.output_dir}"
    )


class Run(NamedTuple):
    """A finished run of an experiment, and what its configuration says."""

    directory: Path
    config: DictConfig

    def rows(self, name: str) -> list[dict[str, str]]:
        with (self.directory / name).open(newline="") as file:
            return list(csv.DictReader(file))

    @property
    def machines(self) -> list[str]:
        return list(self.config.machines)

    @property
    def network_steps(self) -> list[int]:
        steps = self.config.comparison.network_steps
        return [steps] if isinstance(steps, int) else list(steps)

    def summary(self) -> dict[str, Any]:
        return json.loads((self.directory / "summary.json").read_text())


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_experiments_have_its_settings(name, tmp_path):
    cfg = compose_config("train", tmp_path, [f"experiment={name}"])
    data, network, padding = re.fullmatch(r"paper/(.*)_(unet|resnet)_(\w+)", name).groups()
    assert (cfg.data.dataset, cfg.data.image_size, cfg.data.batch_size) == (data, 32, 128)
    assert cfg.denoiser._target_.lower().endswith(network)
    assert cfg.denoiser.padding_mode == ("zeros" if padding == "attention" else padding)
    assert cfg.denoiser.conditional == (data in ("cifar10", "fashion_mnist"))
    assert list(cfg.machines) == [{"circular": "els"}.get(padding, "bbels"), "ls", "is"]
    assert cfg.denoiser.prediction == "eps"
    assert (cfg.optimizer.lr, cfg.scheduler.gamma, cfg.trainer.max_epochs) == (1e-4, 0.999965, 300)
    assert (list(cfg.comparison.network_steps), cfg.comparison.steps, cfg.comparison.num_pairs) == ([150, 20], 20, 100)
    assert list(cfg.calibration.patch_sizes) == list(range(3, 28 if network == "unet" else 18, 2))
    assert "ema" not in cfg.callbacks
    field = build(cfg.denoiser).receptive_field
    assert field == {"resnet": 17, "unet": 49}[network] if padding != "attention" else field is None


def test_there_is_an_experiment_for_every_row_of_the_papers_tables():
    assert len(PAPER) == 11


@pytest.mark.parametrize("name", SAMPLED)
def test_an_experiment_without_training_leaves_samples_and_their_consistency(name, tmp_path):
    done = cli("sample", f"experiment={name}", "num_samples=3", "steps=2", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.code == 0, done.err
    names = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    written = {"run.json", "samples.npz", "summary.json", "figures/samples.png"}
    assert names == written | {f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")}


def test_black_white_is_the_papers_figure(tmp_path):
    cfg = compose_config("sample", tmp_path, ["experiment=black_white"])
    assert (cfg.source, cfg.scales, cfg.num_samples, cfg.steps) == ("els", 3, 64, 100)
    assert (list(cfg.machines), cfg.data.dataset, cfg.data.image_size) == (["els"], "black_white", 16)


def write_faces(root: Path) -> list[str]:
    write_images(root, [f"{n:02}.png" for n in range(100)], size=(178, 218))
    return [f"data.root={root}"]


def write_batches(root: Path) -> list[str]:
    write_cifar10(root)
    return [f"data.root={root}", "data.train_size=8", "data.val_size=2"]


def write_classes(root: Path) -> list[str]:
    write_images(root, [f"{name}/{n:02}.png" for name in ("ant", "bee", "cow") for n in range(40)], size=(9, 8))
    return [f"data.root={root}"]


# Writes files in the formats of a data set, and says where they are.
DATA = {
    "fashion_mnist": lambda root: [f"data.root={write_fashion_mnist(root)}"],
    "mnist": lambda root: [f"data.root={write_fashion_mnist(root)}"],
    "celeba": write_faces,
    "folder": write_classes,
    "cifar10": write_batches,
}


@pytest.fixture(scope="module", params=TRAINED)
def run(request, tmp_path_factory):
    """An experiment, made small, through the command line."""
    root = tmp_path_factory.mktemp(request.param.replace("/", "_"))
    usual = compose_config("train", root, [f"experiment={request.param}"])
    several = not isinstance(usual.comparison.network_steps, int)
    directory = root / "run"
    small = [override for override in TRAIN if "num_layers" not in override or "num_layers" in usual.denoiser]
    with pytest.MonkeyPatch.context() as patch:
        if request.param != DRAWN:
            undrawn(patch)
        done = cli(
            "train",
            f"experiment={request.param}",
            *small,
            *DATA.get(usual.data.dataset, lambda root: [])(root / "data"),
            *([] if usual.data.dataset == "digits" else [f"data.image_size={SIDE}"]),
            f"comparison.network_steps={'[2,3]' if several else 2}",
            f"hydra.run.dir={directory}",
        )
    assert done.code == 0, done.err
    return Run(directory, OmegaConf.load(directory / ".hydra" / "config.yaml"))


def test_one_experiment_compares_with_several_numbers_of_network_steps(tmp_path):
    found = (compose_config("train", tmp_path, [f"experiment={name}"]) for name in TRAINED)
    assert any(not isinstance(cfg.comparison.network_steps, int) for cfg in found)


def test_an_experiment_leaves_every_file_of_a_run(run):
    names = {str(path.relative_to(run.directory)) for path in run.directory.rglob("*") if path.is_file()}
    assert names == {
        *(f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")),
        *(f"figures/{name}.png" for name in ("scales", "receptive_field", "pairs", "ranking", "scatter", "training")),
        *("run.json", "scales.json", "calibration.csv", "receptive_field.csv", "receptive_field.npz"),
        *("comparison.csv", "consistency.csv", "summary.json", "metrics.csv", "samples.npz"),
        "checkpoints/last.ckpt",
        *(("handover.csv", "figures/handover.png") if run.config.comparison.handover else ()),
        *(("stepwise.csv", "figures/stepwise.png") if run.config.comparison.stepwise else ()),
    }


def test_the_comparison_has_a_row_per_pair_machine_and_number_of_network_steps(run):
    rows = run.rows("comparison.csv")
    assert list(rows[0]) == COLUMNS
    keys = Counter((int(row["pair"]), row["machine"], int(row["network_steps"])) for row in rows)
    expected = {(pair, name, steps) for pair in range(PAIRS) for name in run.machines for steps in run.network_steps}
    assert set(keys) == expected
    assert set(keys.values()) == {1}


def test_labels_are_written_exactly_when_the_denoiser_is_conditional(run):
    labels = [row["label"] for row in run.rows("comparison.csv")[:PAIRS]]
    assert labels == (["0", "1", "2"] if run.config.denoiser.conditional else [""] * PAIRS)


def test_the_medians_of_the_summary_are_those_of_the_rows(run):
    summary = run.summary()
    assert summary["pairs"] == PAIRS
    for name in run.machines:
        for steps in run.network_steps:
            rows = [
                row
                for row in run.rows("comparison.csv")
                if row["machine"] == name and row["network_steps"] == str(steps)
            ]
            entry = summary["machines"][name][str(steps)]
            for measure in MEASURES:
                median = statistics.median(float(row[measure]) for row in rows)
                assert entry[measure]["median"] == pytest.approx(median, rel=1e-12, abs=1e-15)
                assert entry[measure]["low"] <= median <= entry[measure]["high"]


def test_the_share_that_beats_is_is_that_of_the_rows(run):
    for steps in run.network_steps:
        r = {
            name: [
                float(row["pearson_r"])
                for row in run.rows("comparison.csv")
                if row["machine"] == name and row["network_steps"] == str(steps)
            ]
            for name in run.machines
        }
        for name in run.machines:
            share = run.summary()["machines"][name][str(steps)]["beats_is"]
            better = statistics.mean(a > b for a, b in zip(r[name], r["is"], strict=True))
            assert share == (None if name == "is" else pytest.approx(better))


def test_scales_cover_the_calibrated_steps_with_sizes_that_were_tried(run):
    tables = load_scales(run.directory / "scales.json")
    assert list(tables) == [name for name in run.machines if name not in ("is", "wiener", "mean")]
    for table in tables.values():
        assert len(table) == run.config.calibration.steps
        assert set(table.patch_size.tolist()) <= set(run.config.calibration.patch_sizes)


def test_scales_are_the_lower_medians_of_the_best_sizes_in_the_evidence(run):
    rows, tables = run.rows("calibration.csv"), load_scales(run.directory / "scales.json")
    settings = run.config.calibration
    further = {name for table in tables.values() for name in table.columns} - {"patch_size"}
    named = ["machine", "step", "alpha_bar", "patch_size", "sample", "agreement"]
    assert list(rows[0]) == [*named, *(name for name in ("softness", "response") if name in further)]
    hard = {name: table for name, table in tables.items() if set(table.columns) == {"patch_size"}}
    tried = Counter(row["machine"] for row in rows)
    assert {tried[name] for name in hard} == {settings.steps * len(settings.patch_sizes) * settings.num_samples}
    for name, table in tables.items():
        sizes = {(row["step"], row["patch_size"]) for row in rows if row["machine"] == name}
        assert {(str(step), str(size)) for step, size in enumerate(table.patch_size.tolist(), start=1)} <= sizes
    for name, table in hard.items():
        for step, size in enumerate(table.patch_size.tolist(), start=1):  # from low noise to high
            best = []
            for sample in range(settings.num_samples):
                tried = {
                    int(row["patch_size"]): float(row["agreement"])
                    for row in rows
                    if (row["machine"], row["step"], row["sample"]) == (name, str(step), str(sample))
                }
                best.append(max(tried, key=tried.__getitem__))
            assert size == statistics.median_low(best)


def test_the_checkpoint_holds_the_network_of_the_configuration(run):
    network, config = open_network(run.directory)
    assert config["denoiser"]["width"] == run.config.denoiser.width
    assert network.conditional == run.config.denoiser.conditional
    assert config["data"]["dataset"] == run.config.data.dataset


def test_metrics_hold_the_losses_and_the_scalars(run):
    rows = run.rows("metrics.csv")
    assert any(row["train/loss"] for row in rows)
    for name in run.machines:
        logged = [float(row[f"val/{name}/pearson_r_median"]) for row in rows if row[f"val/{name}/pearson_r_median"]]
        first = run.summary()["machines"][name][str(run.network_steps[0])]
        assert logged[-1] == pytest.approx(first["pearson_r"]["median"])


def test_samples_have_the_shape_of_the_data(run):
    with np.load(run.directory / "samples.npz") as arrays:
        assert set(arrays) == {*run.machines, *(f"network_{steps}" for steps in run.network_steps)}
        assert {array.shape for array in arrays.values()} == {(PAIRS, run.config.data.channels, SIDE, SIDE)}


@pytest.mark.parametrize("run", [DRAWN], indirect=True)
def test_figures_are_readable(run):
    for path in (run.directory / "figures").glob("*.png"):
        with Image.open(path) as image:
            image.load()
            assert min(image.size) > 100
