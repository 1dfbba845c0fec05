"""What makes every run small, and ways to start one without a new process."""

import contextlib
import functools
import inspect
import io
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from markupsafe import escape
from matplotlib.artist import Artist
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from omegaconf import DictConfig

from elslightning.cli import creating
from elslightning.cli.composing import conf_dir
from elslightning.cli.main import main
from elslightning.data.module import ImageDataModule
from elslightning.diffusion.schedule import CosineSchedule
from elslightning.networks.adapter import EpsDenoiser
from elslightning.networks.resnet import ResNet
from elslightning.report import figures

PAIRS = 3
MEASUREMENT = [
    "calibration.patch_sizes=[3,5]",
    "calibration.steps=2",
    "calibration.num_samples=2",
    f"comparison.num_pairs={PAIRS}",
    "comparison.steps=2",
    "comparison.network_steps=2",
    "report=false",
    "estimate=false",
]
TRAIN = [
    "data.train_size=40",
    "data.val_size=10",
    "data.batch_size=20",
    "denoiser.width=16",
    "denoiser.num_layers=1",
    "trainer.max_epochs=1",
    *MEASUREMENT,
]

CONFIG = {
    "seed": 0,
    "data": {
        "_target_": "elslightning.ImageDataModule",
        "dataset": "digits",
        "channels": 1,
        "num_classes": 10,
        "train_size": 40,
        "val_size": 10,
    },
    "denoiser": {"_target_": "elslightning.ResNet", "channels": 1, "width": 16, "num_layers": 1},
    "schedule": {"_target_": "elslightning.CosineSchedule", "stretch": 1.008},
    "machines": {"is": {"_target_": "elslightning.IdealScoreMachine", "_partial_": True}},
    "calibration": {"_target_": "elslightning.CalibrationSettings"},
    "comparison": {
        "_target_": "elslightning.ComparisonSettings",
        "steps": 1,
        "network_steps": 1,
        "num_pairs": 1,
    },
}
"""The configuration of a run of digits, as checkpoints hold it."""


class Done(NamedTuple):
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


def cli(*arguments: str) -> Done:
    """`elslightning ARGUMENTS`, in this process."""
    out, err = io.StringIO(), io.StringIO()
    arguments_before, handlers, level = sys.argv, logging.root.handlers[:], logging.root.level
    sys.argv = ["elslightning", *arguments]
    code: int | str | None = 0
    try:
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            # Hydra composes all once more, only to see whether a configuration names a mode; only our sweeps do.
            if not any(word.startswith("+sweep=") for word in arguments):
                patch.setattr(Hydra, "get_mode", lambda *arguments, **options: None)
            main()
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.argv = arguments_before
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
        GlobalHydra.instance().clear()
    return Done(code if isinstance(code, int) else int(code is not None), out.getvalue(), err.getvalue())


def undrawn(patch: pytest.MonkeyPatch) -> None:
    """Has runs draw no figures, and leave empty files in their place: only reports, papers and sweeps draw, whatever
    way that lies."""
    unlaid(patch)

    def save(figure: Figure, path: Path) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
        if figure.axes:
            keep(figure, path)

    keep = figures.save

    def blank(draw: Callable[..., Figure]) -> Callable[..., Figure]:
        @functools.wraps(draw)
        def drawn(*arguments: Any, **options: Any) -> Figure:
            return Figure() if options.get("style", figures.SCREEN) is figures.SCREEN else draw(*arguments, **options)

        return drawn

    patch.setattr(figures, "save", save)
    for name in figures.__all__:
        draw = getattr(figures, name)
        if callable(draw) and "style" in inspect.signature(draw).parameters:
            patch.setattr(figures, name, blank(draw))
    patch.setattr(creating, "creativity_map", blank(creating.creativity_map))


def unlaid(patch: pytest.MonkeyPatch) -> None:
    """Has the parts of figures lie anywhere: to find room for each takes half as long as all drawing."""
    patch.setattr(ConstrainedLayoutEngine, "execute", lambda engine, figure: None)


def unrendered(patch: pytest.MonkeyPatch) -> None:
    """Has pages hold the words of their charts only: each is made with all that is in it, and none is drawn."""

    def svg(draw: Callable[..., Figure], *arguments: Any, **options: Any) -> str:
        figure = draw(*arguments, style=figures.PAGE, **options)
        words = {escape(text.get_text()) for text in figure.findobj(Text)}
        return f"<svg>{' '.join(sorted(words))}</svg>"

    def known(axis: Axis) -> list[Artist]:
        ticks = [tick for kind in ("majorTicks", "minorTicks") for tick in vars(axis).get(kind, ())]
        return [axis.label, axis.offsetText, *ticks]

    patch.setattr(figures, "svg", svg)
    # Ticks that nobody has named are made when they are drawn or asked for, which takes as long as all else.
    patch.setattr(Axis, "get_children", known)


def train(directory: Path, *overrides: str) -> Path:
    """A tiny training run through the command line; returns its directory."""
    done = cli("train", *TRAIN, *overrides, f"hydra.run.dir={directory}")
    assert done.code == 0, done.err
    return directory


def compose_config(verb: str, directory: Path, overrides: Sequence[str] = (), *, hydra: bool = False) -> DictConfig:
    """The configuration of a verb, as the command line composes it, for a run in `directory`."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(verb, [f"paths.run_dir={directory}", *overrides], return_hydra_config=hydra)


def digits(train_size: int = 40, val_size: int = 20, batch_size: int = 20) -> ImageDataModule:
    """A loaded data module of a few digits."""
    data = ImageDataModule(
        "digits", channels=1, num_classes=10, train_size=train_size, val_size=val_size, batch_size=batch_size
    )
    data.setup()
    return data


def network(channels: int = 1, *, conditional: bool = False) -> EpsDenoiser:
    """An untrained network of a few thousand parameters."""
    backbone = ResNet(channels, width=16, num_layers=1, conditional=conditional, num_classes=10)
    return EpsDenoiser(backbone, CosineSchedule())


def trainer(root: Path, **options: object) -> pl.Trainer:
    """A quiet trainer of one epoch that writes nothing unless told to."""
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "default_root_dir": root,
    }
    return pl.Trainer(**(quiet | options))


def snapshot(directory: Path) -> dict[str, bytes]:
    """The content of every file below a directory, by its path."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
