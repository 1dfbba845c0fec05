"""What is wrong with a configuration is said before any work, all at once."""

from collections import Counter

import pytest
import torch
from refusals import all_problems, assert_refused, problems, rounds
from safetensors.torch import save_file
from tiny import cli, compose_config, train

from elslightning.cli.preflight import doubtful
from elslightning.data.module import ImageDataModule
from elslightning.diffusion.schedules import SCHEDULES
from elslightning.machines import machine, patches
from elslightning.machines.doorway import check_bank
from elslightning.networks.adapter import NetworkDenoiser
from elslightning.networks.resnet import ResNet
from elslightning.runs import targets
from elslightning.runs.configuration import primitives
from elslightning.system.checks import flag, is_whole, one_of, raise_for, whole
from elslightning.system.errors import InputError

pytestmark = [pytest.mark.reliability, pytest.mark.usefixtures("unchecked", "no_drawing")]


@pytest.fixture
def _no_work(monkeypatch):
    """No data: what is refused is refused before it is loaded."""
    monkeypatch.setattr(ImageDataModule, "setup", lambda self, stage=None: pytest.fail("work has begun"))


@pytest.mark.usefixtures("_no_work")
def test_everything_that_is_wrong_is_said_at_once(tmp_path):
    wrong = {
        "seed": "-1",
        "compare": "maybe",
        "shard_bank": "3",
        "data.train_size": "0",
        "data.batch_size": "many",
        "denoiser.width": "7",
        "denoiser.num_layers": "-1",
        "denoiser.padding_mode": "mirror",
        "denoiser.conditional": "perhaps",
        "denoiser.time_embedding": "none",
        "schedule.stretch": "long",
        "calibration.steps": "0",
        "calibration.patch_sizes": "[2,4]",
        "calibration.objective": "dot",
        "comparison.steps": "1.5",
        "comparison.network_steps": "few",
        "comparison.num_pairs": "0",
        "trainer.max_epochs": "-2",
        "trainer.devices": "0",
        "trainer.precision": "half",
    }
    words = {key: f"{key}={value}" for key, value in wrong.items()}
    found = all_problems("train", f"hydra.run.dir={tmp_path}", words=words)
    assert len(found) == len(wrong)
    for key, value in wrong.items():
        (line,) = [line for line in found if key in line]
        assert value.strip("[]").split(",")[0] in line
        assert any(word in line for word in ("must", "choose"))
    assert [path.name for path in tmp_path.iterdir()] == [".hydra"]


REFUSED = {
    "empty patch sizes": (["train", "calibration.patch_sizes=[]"], "calibration.patch_sizes must be odd"),
    "one patch size": (["train", "calibration.patch_sizes=5"], "increasing, not 5"),
    "unknown key": (["train", "+denoiser.depth=3"], "there is no key denoiser.depth: choose from channels, width"),
    "unknown key of the data": (["train", "+data.size=3"], "there is no key data.size: choose from dataset, root"),
    "unknown key of a callback": (["train", "+callbacks.progress.bar=1"], "there is no key callbacks.progress.bar"),
    "no decay": (["train", "callbacks.checkpoint.every_n_epochs=-5"], "every_n_epochs"),
    "learning rate": (["train", "optimizer.lr=-1"], "optimizer: Invalid learning rate: -1"),
    "text for the learning rate": (["train", "optimizer.lr=fast"], "optimizer: "),
    "scheduler without an end": (
        ["train", "scheduler=one_cycle", "trainer.max_epochs=-1"],
        "scheduler=one_cycle needs an end of the training",
    ),
    "unknown key of the scheduler": (["train", "+scheduler.speed=1"], "there is no key scheduler.speed"),
    "accelerator": (["train", "trainer.accelerator=abacus"], "abacus"),
    "nodes": (["train", "trainer.num_nodes=0"], "trainer.num_nodes must be a whole number, at least 1, not 0"),
    "validation": (["train", "trainer.check_val_every_n_epoch=0"], "trainer.check_val_every_n_epoch must be"),
    "logger": (["train", "logger=wandb", "logger.wandb.mode=on"], "logger.wandb.mode must be one of offline,"),
    "condition without labels": (
        ["train", "data=photos", "denoiser.conditional=true"],
        "denoiser.conditional=true needs a data set with labels",
    ),
    "patches beyond the image": (
        ["train", "machines=[els]", "denoiser.padding_mode=circular", "calibration.patch_sizes=[3,9]"],
        "patch size 9 is too large: on images of 8 x 8 pixels",
    ),
    "patches beyond the resized image": (
        ["train", "machines=[els]", "denoiser.padding_mode=circular", "data.image_size=16"],
        "patch size 17 is too large: on images of 16 x 16 pixels",
    ),
    "images that cannot be halved": (
        ["train", "denoiser=unet", "data.image_size=10"],
        "multiples of 4, not 10 x 10",
    ),
    "label": (["sample", "source=is", "label=3"], "label=3, but is is unconditional"),
    "text for a label": (["sample", "source=is", "conditional=true", "label=cat"], "label must be a whole number"),
    "scales": (["compare", "checkpoint=x", "scales=missing.json"], "/missing.json: there is no file"),
    "interpolation": (["train", "denoiser.width=${data.depth}"], "depth"),
    "unknown grid": (["train", "comparison.grid=straight"], "comparison.grid must be one of cosine, "),
    "more steps of the network than its schedule has": (
        ["train", "schedule=linear", "comparison.network_steps=[20,1001]"],
        "a schedule of 1000 levels has no reverse process of 1001 steps",
    ),
    "more steps of the network than the grid has": (
        ["train", "comparison.grid=linear", "comparison.network_steps=1001"],
        "a schedule of 1000 levels has no reverse process of 1001 steps",
    ),
    "unknown machine": (["train", "+machines.x._target_=elslightning.Other"], "elslightning.Other"),
}


TOGETHER = [
    (
        *("empty patch sizes", "unknown key", "unknown key of the data", "unknown key of a callback", "learning rate"),
        *("nodes", "logger"),
    ),
    ("one patch size", "text for the learning rate", "unknown grid"),
    ("unknown key of the scheduler", "accelerator", "more steps of the network than its schedule has"),
    ("validation", "more steps of the network than the grid has"),
    ("scheduler without an end", "condition without labels"),
]


@pytest.mark.usefixtures("_no_work")
@pytest.mark.parametrize("names", rounds(REFUSED, TOGETHER), ids=", ".join)
def test_it_is_refused_before_any_work(tmp_path, monkeypatch, names):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").touch()
    assert_refused(REFUSED, names, f"hydra.run.dir={tmp_path / 'run'}")


@pytest.mark.usefixtures("_no_work")
def test_patches_may_reach_beyond_the_border_where_it_is_zeros(tmp_path):
    found = problems("train", "calibration.patch_sizes=[3,17]", "seed=-1", f"hydra.run.dir={tmp_path}")
    assert found == ["seed must be a whole number, at least 0, not -1"]


@pytest.mark.usefixtures("_no_work")
@pytest.mark.parametrize("side", [7, 8])
def test_crops_are_held_against_the_size_of_the_data(tmp_path, side):
    crops = tmp_path / "crops.safetensors"
    save_file({"crops": torch.ones(3, side, side, dtype=torch.bool)}, crops)
    words = ["machines=[pspc_flex,els]", f"machines.pspc_flex.crops={crops}", "denoiser.padding_mode=circular"]
    found = problems("train", *words, "calibration.patch_sizes=[3,17]", f"hydra.run.dir={tmp_path / 'run'}")
    assert ["over 8 x 8 pixels" in line for line in found] == [True, False][side - 7 :]


@pytest.mark.usefixtures("_no_work")
def test_several_places_are_named_together(tmp_path):
    missing, empty = tmp_path / "missing", tmp_path / "empty.ckpt"
    missing.mkdir()
    empty.touch()
    words = ["device=abacus", "comparison.num_pairs=0", f"hydra.run.dir={tmp_path}"]
    (line,) = problems("compare", f"checkpoint={missing}", *words)
    assert f"checkpoint={missing}" in line
    found = problems("compare", f"checkpoint={empty}", *words)
    assert len(found) == 2
    for text in ("device=abacus", "comparison.num_pairs"):
        assert any(text in line for line in found)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with a circular network, and without a comparison."""
    directory = tmp_path_factory.mktemp("configuration") / "run"
    return train(directory, "denoiser.padding_mode=circular", "compare=false", "callbacks=[checkpoint]")


@pytest.mark.usefixtures("_no_work")
def test_with_a_checkpoint_its_own_sections_count(trained, tmp_path):
    # 17 pixels do not wrap around digits, and would around the default's data of another run.
    options = ["machines=[els]", "calibration.patch_sizes=[3,17]", "device=cpu", f"hydra.run.dir={tmp_path}"]
    (line,) = problems("calibrate", f"checkpoint={trained}", *options)
    assert "patch size 17 is too large: on images of 8 x 8 pixels" in line
    (line,) = problems("sample", f"checkpoint={trained}", "source=is", "label=3", f"hydra.run.dir={tmp_path}")
    assert line == "label=3, but is is unconditional"


def test_warnings_are_said_and_the_run_goes_on(trained, tmp_path):
    options = ["machines=[bbels,is]", "denoiser.width=24", "calibration.gradient_samples=0", "report=false"]
    done = cli("calibrate", f"checkpoint={trained}", *options, f"hydra.run.dir={tmp_path}")
    assert done.code == 0, done.err
    said = [line for line in done.err.splitlines() if line.startswith("elslightning: warning: ")]
    assert said[0] == (
        "elslightning: warning: denoiser.padding_mode=circular, but machines=[bbels,is]: the theory of such a network "
        "is els; bbels is a control only"
    )
    assert said[1].startswith("elslightning: warning: denoiser.width: without effect")


@pytest.mark.parametrize(
    ("padding", "machines", "count"),
    [
        ("circular", "bbels", 1),
        ("circular", "bbels,ls,is", 1),
        ("circular", "els,bbels", 0),
        ("circular", "ls,is", 0),
        ("zeros", "bbels", 0),
        ("zeros", "els", 1),
        ("zeros", "els,bbels", 0),
        ("zeros", "is", 0),
    ],
)
def test_a_machine_for_another_border_alone_is_doubtful(tmp_path, padding, machines, count):
    cfg = compose_config("train", tmp_path, [f"denoiser.padding_mode={padding}", f"machines=[{machines}]"])
    network = torch.nn.Identity()
    assert len(doubtful(primitives(cfg), network)) == count
    assert doubtful(primitives(cfg), None) == []


@pytest.mark.parametrize(
    ("schedule", "grid", "count"),
    [
        ("cosine", "linear", 1),
        ("cosine", "squaredcos", 1),
        ("linear", "cosine", 0),
        ("cosine", "cosine", 0),
        ("cosine", "null", 0),
    ],
)
def test_a_grid_beyond_the_networks_own_noise_levels_is_doubtful(tmp_path, schedule, grid, count):
    config = primitives(compose_config("train", tmp_path, [f"schedule={schedule}", f"comparison.grid={grid}"]))
    found = doubtful(config, NetworkDenoiser(ResNet(1, width=16, num_layers=1), SCHEDULES[schedule]()))
    assert len(found) == count
    for line in found:
        assert line.startswith(f"comparison.grid={grid} goes to alpha_bar = ")
        assert line.endswith(" only: beyond, it is asked at its last time")


def test_a_configuration_is_checked_once_before_the_data_and_once_with_them(tmp_path, monkeypatch):
    counts = Counter()

    def counted(place, name):
        function = getattr(place, name)

        def wrapper(*arguments, **options):
            counts[name] += 1
            return function(*arguments, **options)

        monkeypatch.setattr(place, name, wrapper)

    def bank(images, *arguments, **options):
        counts["banks"] += len(images) > 1
        check_bank(images, *arguments, **options)

    counted(patches, "check_patch_size")
    counted(targets, "instantiate")
    monkeypatch.setattr(machine, "check_bank", bank)
    train(tmp_path, "machines=[bbels,ls,is]")  # and 2 patch sizes and 2 steps
    local, sizes, steps = 2, 2, 2
    checks = 2 * local * sizes  # before the data and with them
    sweeps = local * steps * sizes  # of the calibration
    nearest = local * steps  # of the consistency
    tables = local + local * min(sizes, steps)  # of the machines: a size to begin with, and those of the calibration
    assert counts["check_patch_size"] <= checks + sweeps + nearest + tables
    assert counts["banks"] == local + (local + 1)  # to calibrate, and to compare
    # Trainer and network twice: to be checked, and, once the seed is set, to train. Once: data, schedule, calibration,
    # comparison, optimizer, scheduler, 3 machines, 3 callbacks and a logger.
    assert counts["instantiate"] <= 2 * 2 + 13


def test_checking_draws_no_random_numbers_and_changes_nothing(tmp_path):
    weights = []
    for name in ("a", "b"):
        torch.manual_seed(int(name == "b"))
        run = train(tmp_path / name, "compare=false", "callbacks=[checkpoint]", "trainer.max_epochs=1")
        weights.append(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    torch.testing.assert_close(*weights, rtol=0, atol=0)


# What constructors ask.


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "1", None])
def test_a_whole_number_is_one(value):
    assert not is_whole(value, 1)
    assert whole("key", value, 1) == [f"key must be a whole number, at least 1, not {value!r}"]
    assert whole("key", 1, 1) == []


def test_flags_and_choices():
    assert flag("key", True) == flag("key", False) == one_of("key", "a", "ab") == []
    assert flag("key", "yes") == ["key must be true or false, not 'yes'"]
    for value in ("c", None, ["a"], 1):
        assert one_of("key", value, ("a", "b")) == [f"key must be one of a, b, not {value!r}"]


def test_one_problem_is_a_line_and_more_are_a_list():
    raise_for()
    with pytest.raises(InputError) as caught:
        raise_for("a")
    assert (str(caught.value), caught.value.problems) == ("a", ("a",))
    with pytest.raises(InputError) as caught:
        raise_for("a", "b")
    assert str(caught.value) == "there are 2 problems:\n  a\n  b"
    assert caught.value.problems == ("a", "b")
