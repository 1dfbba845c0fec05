"""Two processes measure and train what one does, and stop together."""

import contextlib
import csv
import faulthandler
import functools
import os
import random
import socket
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import psutil
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import victims
from afresh import forks
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from tiny import MEASUREMENT, TRAIN, cli, digits, network, trainer, undrawn

from elslightning.cli.together import problems
from elslightning.data.module import ImageDataModule
from elslightning.data.request import Split
from elslightning.machines import BoundaryBrokenScoreMachine, IdealScoreMachine
from elslightning.measurement.measurement import Measurement
from elslightning.measurement.settings import CalibrationSettings, ComparisonSettings
from elslightning.runs.checkpoints import open_network
from elslightning.runs.writing import write
from elslightning.system.errors import InputError, LostProcessError
from elslightning.system.processes import Processes, all_or_none, meet
from elslightning.training.comparing import ELSComparison
from elslightning.training.launch import lost_named
from elslightning.training.task import DenoisingTask

pytestmark = pytest.mark.usefixtures("no_drawing")

MEDIAN = "val/bbels/pearson_r_median"
SECONDS = 300
"""After which processes that wait for each other are ended, saying where they wait."""


def measurement(kind: type[Measurement] = Measurement, pairs: int = 3, samples: int = 3, **options: Any) -> Measurement:
    """A measurement of two machines that the number of pairs does not make longer."""
    settings = {
        "machines": {"bbels": BoundaryBrokenScoreMachine, "is": IdealScoreMachine},
        "calibration": CalibrationSettings(steps=2, patch_sizes=(3, 5), num_samples=samples, gradient_samples=3),
        "comparison": ComparisonSettings(steps=2, network_steps=(2, 3), num_pairs=pairs, batch_size=2),
        "seed": 5,
    }
    return kind(**(settings | options))


def measure(conditional: bool = False, **options: Any) -> dict[str, Any]:
    """What a measurement finds, of all processes together or of one alone."""
    torch.manual_seed(0)
    data, denoiser = digits(), network(conditional=conditional).eval()
    if options.pop("heldout", False):
        options["heldout"] = Split(data.val_images, data.val_labels)
        options["calibration"] = CalibrationSettings(
            steps=2, patch_sizes=(3, 5), num_samples=5, objective="heldout", gradient_samples=0
        )
    found = measurement(**options).run(
        denoiser, data.train_images, data.train_labels, denoiser.schedule, processes=Processes.world()
    )
    return {
        "rows": found.comparison.rows,
        "consistency": found.comparison.consistency,
        "samples": {"network": found.comparison.network, **found.comparison.machines},
        "agreement": {name: calibration.agreement for name, calibration in found.calibrations.items()},
        "scales": {name: table.to_dict() for name, table in found.scales.items()},
        "gradients": None if found.gradients is None else found.gradients.x0_gradient,
        "scalars": found.scalars(),
    }


MEASURED: dict[str, dict[str, Any]] = {
    "even pairs": {"pairs": 4, "samples": 2},
    "odd pairs": {"pairs": 3},
    "more processes than pairs": {"pairs": 1, "samples": 1},
    # Labels 0, 1 | 2, 0: neither share has all of them.
    "labels": {"pairs": 3, "conditional": True},
    "held out": {"heldout": True, "conditional": True},
    "sharded": {"shard_bank": True},
    "sharded, labels": {"shard_bank": True, "conditional": True},
    "sharded, more processes than pairs": {"shard_bank": True, "pairs": 1, "samples": 1},
}
"""Options of `measure`, by what they are about."""


class Broken(IdealScoreMachine):
    """Fails in one process."""

    def _partials(self, *arguments: Any) -> Any:
        if dist.get_rank() == 1:
            raise RuntimeError("out of memory")
        return super()._partials(*arguments)


class BrokenNetwork(torch.nn.Module):
    """Fails in the first process, in the second step of calibration."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, *arguments: Any) -> Any:
        self.calls += 1
        if dist.get_rank() == 0 and self.calls > 2:
            raise InputError("the network has had enough")
        return self.inner(*arguments)


def broken_machine(shard_bank: bool) -> None:
    measure(machines={"bbels": BoundaryBrokenScoreMachine, "is": Broken}, shard_bank=shard_bank)


def broken_network(shard_bank: bool) -> None:
    data, denoiser = digits(), network()
    denoiser.backbone = BrokenNetwork(denoiser.backbone)
    with all_or_none(Processes.world().group):
        measurement(shard_bank=shard_bank).run(
            denoiser, data.train_images, data.train_labels, denoiser.schedule, processes=Processes.world()
        )


def broken_between() -> None:
    """One fails outside of what the other is in."""
    with all_or_none(dist.group.WORLD):
        if dist.get_rank() == 1:
            raise KeyError("where")
        meet(dist.group.WORLD)


def broken_fit(folder: Path) -> None:
    class Failing(Measurement):
        def run(self, *arguments: Any, **options: Any) -> Any:
            if dist.get_rank() == 1:
                raise InputError("no such pair")
            return super().run(*arguments, **options)

    callback = ELSComparison(measurement(Failing), folder / "broken", show_progress=False)
    trainer(folder, devices=2, strategy="ddp", callbacks=[callback]).fit(DenoisingTask(network()), digits())


FAILING: dict[str, tuple[Callable[..., None], tuple[Any, ...]]] = {
    "machine": (broken_machine, (False,)),
    "machine, sharded": (broken_machine, (True,)),
    "network": (broken_network, (False,)),
    "network, sharded": (broken_network, (True,)),
    "between": (broken_between, ()),
}


class Watched(DenoisingTask):
    """Remembers what it was trained on."""

    seen: list[tuple[int, list[int]]]
    times: list[torch.Tensor]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, batch.indices.tolist()))
        return super().training_step(batch, batch_idx)

    def _predict(self, batch: Any, t: torch.Tensor, noise: torch.Tensor) -> Any:
        if self.training:
            self.times.append(t)
        return super()._predict(batch, t, noise)


class Counted(Measurement):
    """Remembers how often it was asked."""

    times = 0

    def run(self, *arguments: Any, **options: Any) -> Any:
        self.times += 1
        return super().run(*arguments, **options)


def fit(folder: Path) -> dict[str, Any]:
    """Two epochs, with averaged weights, a comparison after each, and a checkpoint of the best."""
    torch.manual_seed(0)
    denoiser = network()
    task = Watched(denoiser, denoiser.schedule, optimizer=functools.partial(torch.optim.Adam, lr=0.02))
    task.config = {
        "denoiser": {"_target_": "elslightning.ResNet", "channels": 1, "width": 16, "num_layers": 1},
        "schedule": {"_target_": "elslightning.CosineSchedule"},
    }
    task.seen, task.times = [], []
    settings = ComparisonSettings(steps=2, network_steps=2, num_pairs=3, every_n_epochs=1)
    measured = measurement(Counted, comparison=settings)
    callback = ELSComparison(measured, folder, show_progress=False)
    last = ModelCheckpoint(folder / "checkpoints", save_last=True, save_top_k=1, save_on_train_epoch_end=True)
    best = ModelCheckpoint(folder, filename="best", monitor=MEDIAN, mode="max", save_top_k=1)
    fitter = trainer(
        folder,
        devices=2,
        strategy="ddp",
        max_epochs=2,
        num_sanity_val_steps=1,
        callbacks=[callback, EMAWeightAveraging(decay=0.8, use_buffers=False), last, best],
        enable_checkpointing=True,
        logger=CSVLogger(folder, name="", version=""),
    )
    fitter.fit(task, digits(batch_size=10))
    return {
        "seen": task.seen,
        "times": task.times,
        "metrics": {name: float(value) for name, value in fitter.callback_metrics.items()},
        "best": (str(best.best_model_path), float(best.best_model_score)),
        "scalars": callback.result.scalars(),
        "measured": measured.times,
    }


def work(rank: int, folder: str) -> None:
    """What one of two processes finds, saved for the tests to look at."""
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    torch.set_num_threads(1)
    undrawn(pytest.MonkeyPatch())
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    # Through a file: a port that is free now may be taken when it is wanted.
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    found: dict[str, Any] = {name: measure(**options) for name, options in MEASURED.items()}
    for name, (fail, arguments) in FAILING.items():
        with pytest.raises((InputError, RuntimeError, KeyError)) as refused:
            fail(*arguments)
        found[f"failing {name}"] = f"{type(refused.value).__name__}: {refused.value}"
    found["fit"] = fit(Path(folder) / "fit")
    with pytest.raises(InputError) as stopped:
        broken_fit(Path(folder))
    found["failing fit"] = f"{type(stopped.value).__name__}: {stopped.value}"
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    victims.context()
    mp.start_processes(work, args=(str(folder),), nprocs=2, start_method="forkserver")
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


# The measurement.


def assert_close(found: Any, expected: Any) -> None:
    """Equal, tensors and numbers to 1e-5, absolutely or relatively, whatever they lie in."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_close(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    elif isinstance(expected, torch.Tensor):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    else:
        assert found == (pytest.approx(expected, rel=1e-5, abs=1e-5) if isinstance(expected, float) else expected)


@pytest.mark.parametrize("name", MEASURED)
def test_two_processes_find_what_one_finds(found: list[dict[str, Any]], name: str) -> None:
    expected = measure(**MEASURED[name])
    for of_process in found:
        assert_close(of_process[name], expected)


@pytest.mark.parametrize("name", MEASURED)
def test_every_process_has_the_same_result(found: list[dict[str, Any]], name: str) -> None:
    first, second = (of_process[name] for of_process in found)
    assert first["rows"] == second["rows"]
    assert first["scalars"] == second["scalars"]
    assert first["scales"] == second["scales"]


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("machine", "RuntimeError: process 1 failed: out of memory", "RuntimeError: out of memory"),
        ("machine, sharded", "RuntimeError: process 1 failed: out of memory", "RuntimeError: out of memory"),
        ("network", *["InputError: the network has had enough"] * 2),
        ("network, sharded", *["InputError: the network has had enough"] * 2),
        ("between", "RuntimeError: process 1 failed: 'where'", "KeyError: 'where'"),
        ("fit", *["InputError: no such pair"] * 2),
    ],
)
def test_if_one_process_fails_all_stop_and_say_why(
    found: list[dict[str, Any]], name: str, first: str, second: str
) -> None:
    assert [of_process[f"failing {name}"] for of_process in found] == [first, second]


@pytest.mark.parametrize("samples", [1, 2, 3, 7, 8, 9])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shares_have_one_size_and_make_the_whole(samples: int, count: int) -> None:
    whole = torch.arange(samples)
    shares = [Processes(rank, count).share(whole) for rank in range(count)]
    assert len({len(share) for share in shares}) == 1
    assert torch.equal(torch.cat(shares)[:samples], whole)


def test_a_process_alone_has_all_and_waits_for_nobody() -> None:
    alone = Processes.world()
    assert (alone.rank, alone.count, alone.group) == (0, 1, None)
    whole = torch.arange(3)
    assert alone.join(alone.share(whole), 3) is whole
    with pytest.raises(KeyError), all_or_none(alone.group):
        raise KeyError


# Training.


def test_every_process_trains_on_its_own_images_in_an_order_of_its_own(found: list[dict[str, Any]]) -> None:
    for epoch in (0, 1):
        parts = [
            [index for at, indices in of_process["fit"]["seen"] if at == epoch for index in indices]
            for of_process in found
        ]
        assert sorted(parts[0] + parts[1]) == list(range(40))
    first, second = ([indices for at, indices in found[0]["fit"]["seen"] if at == epoch] for epoch in (0, 1))
    assert first != second


def test_every_process_draws_times_and_noise_of_its_own(found: list[dict[str, Any]]) -> None:
    times = torch.cat([t for of_process in found for t in of_process["fit"]["times"]])
    assert len(times.unique()) == len(times) == 2 * 40


def test_every_process_logs_the_same_and_a_checkpoint_monitors_it(folder: Path, found: list[dict[str, Any]]) -> None:
    first, second = (of_process["fit"] for of_process in found)
    assert first["metrics"] == second["metrics"]
    assert first["scalars"] == second["scalars"]
    assert first["metrics"][MEDIAN] == pytest.approx(first["scalars"][MEDIAN], abs=1e-6)
    assert first["best"] == second["best"]
    with (folder / "fit" / "metrics.csv").open(newline="") as file:
        logged = [float(row[MEDIAN]) for row in csv.DictReader(file) if row[MEDIAN]]
    assert len(logged) == first["measured"] == second["measured"] == 2  # none while sanity checking
    assert first["best"] == (str(folder / "fit" / "best.ckpt"), pytest.approx(max(logged), abs=1e-6))


def rows(path: Path) -> list[dict[str, Any]]:
    """A CSV file, with numbers as such."""
    with path.open(newline="") as file:
        return [
            {key: float(value) if "." in value else value for key, value in row.items()} for row in csv.DictReader(file)
        ]


def test_the_averaged_weights_are_compared_and_one_process_finds_the_same_of_them(folder: Path, tmp_path: Path) -> None:
    checkpoint = folder / "fit" / "checkpoints" / "last.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    averaged, raw = content["state_dict"], content["current_model_state"]
    assert max(float((averaged[name] - raw[name]).abs().max()) for name in averaged) > 0.01
    denoiser, _ = open_network(checkpoint)
    data = digits()
    settings = ComparisonSettings(steps=2, network_steps=2, num_pairs=3)
    alone = measurement(comparison=settings).run(denoiser, data.train_images, data.train_labels, denoiser.schedule)
    write(alone, tmp_path)
    for name in ("comparison.csv", "consistency.csv", "calibration.csv"):
        assert_close(rows(folder / "fit" / name), rows(tmp_path / name))


# The command line.

TWO = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": os.pathsep.join(sys.path)}
"""Of processes that start others."""


def test_the_command_starts_its_processes_and_they_share_a_directory(tmp_path: Path) -> None:
    command = Path(sysconfig.get_path("scripts")) / "elslightning"
    overrides = [*TRAIN, *TWO, "shard_bank=true", "machines=[bbels]"]
    (tmp_path / "log").mkdir()
    (tmp_path / "there").mkdir()
    places = {"folder": tmp_path / "log", "directory": tmp_path / "there"}
    done = victims.run("train", *overrides, program=command, environment=ENVIRONMENT, before=forks, **places)
    assert done.code == 0, done.err
    (run,) = (tmp_path / "there" / "outputs" / "train").iterdir()
    assert {path.name for path in (tmp_path / "there").iterdir()} == {"outputs"}
    assert (run / ".hydra" / "config.yaml").is_file()
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert len(rows(run / "comparison.csv")) == 3
    assert done.out.count("median r") == 1
    assert done.out.count("files: ") == 1
    assert "Initializing" not in done.err
    overrides = (run / ".hydra" / "overrides.yaml").read_text()
    assert "trainer=ddp" in overrides


class Ended:
    """A process that was started, as subprocess shows it."""

    def __init__(self, code: int | None) -> None:
        self.poll = lambda: code


@pytest.mark.reliability
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("codes", "said"),
    [
        ([None, -9], "process 2 of this run was ended by SIGKILL; go on"),
        ([1], "process 1 of this run ended with exit code 1; go on"),
        ([], "one of the other 2 processes of this run ended; go on"),
    ],
)
def test_a_process_that_is_lost_is_named_and_how_to_go_on(codes: list[int | None], said: str) -> None:
    launcher = SimpleNamespace(procs=[Ended(code) for code in codes])
    three = cast(Any, SimpleNamespace(world_size=3, strategy=SimpleNamespace(launcher=launcher)))
    words = "[../third_party/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4242"
    with pytest.raises(LostProcessError, match=said), lost_named(three, lambda: "go on"):
        raise RuntimeError(words)


@pytest.mark.reliability
def test_a_training_of_which_a_process_is_killed_says_which_and_how_to_go_on(tmp_path: Path) -> None:
    command = ["train", *TRAIN, *TWO, "compare=false", "callbacks=[checkpoint]", "trainer.max_epochs=100000"]
    options = ["logger=[]", f"hydra.run.dir={tmp_path / 'run'}"]
    places = {"output": tmp_path / "log", "directory": tmp_path, "environment": ENVIRONMENT}
    first = victims.start(*command, *options, program="elslightning", before=forks, **places)
    try:
        deadline = time.monotonic() + SECONDS
        while not (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file():
            assert first.is_alive(), (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        (second,) = psutil.Process(first.pid).children()
        second.kill()
        first.join(60)
        assert first.exitcode == 1
    finally:
        first.kill()
    said = "elslightning: error: process 1 of this run was ended by SIGKILL; go on with: elslightning train resume="
    assert f"{said}{tmp_path / 'run'}" in (tmp_path / "log").read_text()


def refused(*arguments: str) -> str:
    done = cli("train", *TRAIN, *arguments)
    assert done.code == 2, done.err
    (line,) = done.err.splitlines()
    return line.removeprefix("elslightning: error: ")


def test_a_multirun_of_several_processes_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageDataModule, "setup", lambda self, stage=None: pytest.fail("work has begun"))
    said = refused(*TWO, "--multirun", "seed=0,1", f"hydra.sweep.dir={tmp_path}")
    assert said.startswith("--multirun cannot start 2 processes per job")
    assert "srun, torchrun or hydra/launcher=submitit_slurm" in said


@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir"])
def test_processes_that_others_started_need_a_directory_in_common(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "GROUP_RANK": 0, "WORLD_SIZE": 2, "TORCHELASTIC_RUN_ID": 7}.items():
        monkeypatch.setenv(name, str(value))
    several = ["--multirun", "seed=0,1"] if key == "hydra.sweep.dir" else []
    assert f"give {key}=DIRECTORY to all of them" in refused(*TWO, *several)
    # With one, it would go on, to an unknown data set.
    done = cli("train", *TRAIN, *TWO, *several, f"{key}={tmp_path / 'run'}", "data.dataset=none")
    assert "data.dataset must be one of" in done.err


def test_devices_that_do_not_fit_what_was_started_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "GROUP_RANK": 0, "WORLD_SIZE": 4, "TORCHELASTIC_RUN_ID": 7}.items():
        monkeypatch.setenv(name, str(value))
    said = refused(*TWO, f"hydra.run.dir={tmp_path}")
    assert said.startswith("trainer.devices and trainer.num_nodes: You set `devices=2`")


def test_other_processes_leave_the_configuration_to_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "1")
    done = cli(
        "sample", "source=els", "scales=3", "machines=[els]", "num_samples=1", "steps=1", f"hydra.run.dir={tmp_path}"
    )
    assert (done.code, done.out) == (0, "")
    assert not (tmp_path / ".hydra").exists()


# The other verbs.


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "machines=[bbels,is]", *MEASUREMENT],
        ["calibrate", "machines=[bbels]", "shard_bank=true", *(word for word in MEASUREMENT if "report" not in word)],
        ["sample", "source=bbels", "num_samples=3", "steps=2"],
        ["sample", "source=bbels", "num_samples=3", "steps=2", "data.train_size=200", "machines.bbels.accuracy=0.3"],
    ],
    ids=["compare", "calibrate", "sample", "draws"],
)
def test_two_processes_that_torchrun_started_find_what_one_does(words, trained_once: Path, tmp_path: Path) -> None:
    words, drawn = [*words, f"checkpoint={trained_once}"], any("accuracy" in word for word in words)
    indices = tmp_path / "indices"
    alone = cli(*words, f"machines.bbels.index={indices / 'alone'}", f"hydra.run.dir={tmp_path / 'alone'}")
    assert alone.code == 0, alone.err
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "7", "GROUP_RANK": "0"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        victims.start(
            *words,
            "devices=2",
            "device=cpu",
            f"machines.bbels.index={indices / 'together'}",
            f"hydra.run.dir={tmp_path / 'together'}",
            output=tmp_path / f"{rank}.out",
            errors=tmp_path / f"{rank}.err",
            environment=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in (0, 1)
    ]
    for rank, process in enumerate(processes):
        process.join(120)
        assert process.exitcode == 0, (tmp_path / f"{rank}.err").read_text()
    assert (tmp_path / "1.out").read_text() == (tmp_path / "1.err").read_text() == ""
    assert (tmp_path / "0.out").read_text().replace("together", "alone") == alone.out
    assert {path.name for path in (tmp_path / "together").iterdir()} == {
        path.name for path in (tmp_path / "alone").iterdir()
    }
    kept = [sorted(path.name for path in (indices / run).glob("*")) for run in ("alone", "together")]
    assert kept[0] == kept[1]
    assert bool(kept[0]) == drawn
    for name in ("comparison.csv", "consistency.csv", "calibration.csv", "samples.npz"):
        one, two = (tmp_path / run / name for run in ("alone", "together"))
        assert one.is_file() == two.is_file()
        if not one.is_file():
            continue
        if name.endswith("npz"):
            with np.load(one) as expected, np.load(two) as found:
                assert found.files == expected.files
                for array in found.files:
                    np.testing.assert_allclose(found[array], expected[array], rtol=1e-4, atol=1e-5)
            continue
        expected, found = (list(csv.DictReader(path.read_text().splitlines())) for path in (one, two))
        for a, b in zip(found, expected, strict=True):
            for column, text in b.items():
                assert a[column] == text or float(a[column]) == pytest.approx(float(text), rel=1e-4, abs=1e-5)


def free_port() -> int:
    """A port that nobody has, below those that the system gives to whoever asks for any."""
    for port in random.sample(range(20_000, 30_000), 100):
        with contextlib.suppress(OSError), socket.socket() as place:
            place.bind(("127.0.0.1", port))
            return port
    pytest.fail("no port is free")


def test_devices_that_there_are_not_are_refused(trained_once: Path, tmp_path: Path) -> None:
    def said(*words: str) -> str:
        done = cli("compare", f"checkpoint={trained_once}", *words, f"hydra.run.dir={tmp_path}")
        assert done.code == 2, done.err
        return done.err

    assert "devices must be a whole number, at least 1, not 0" in said("devices=0")
    assert "num_nodes must be a whole number, at least 1, not 'few'" in said("num_nodes=few")
    assert list(problems(2, 1, torch.device("cuda:1"))) == [
        "device=cuda:1 names one device: devices=2 goes with device=cuda",
        *(
            []
            if torch.cuda.device_count() > 1
            else [f"devices=2, but there are {torch.cuda.device_count()} GPUs on this machine"]
        ),
    ]
    assert "cpu or cuda, not mps" in " ".join(problems(2, 1, torch.device("mps")))
    assert not list(problems(4, 2, torch.device("cpu")))
