"""Loggers: made from the configuration, and handed what they have no common way to take.

A logger is asked for what it can do by the methods it has. Whoever logs anything here but scalars has it on disk as
well, so a logger that cannot take it loses nothing.
"""

import os
import re
import secrets
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from lightning.pytorch.loggers import CSVLogger, Logger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from elslightning.runs.configuration import key_of
from elslightning.runs.paths import for_grammar
from elslightning.runs.targets import build
from elslightning.system.checks import one_of, raise_for
from elslightning.system.errors import note
from elslightning.training.writers import MetricsFile

MODES = ("offline", "online", "disabled")
# W&B cuts longer names.
_LONGEST_NAME = 128
# Where W&B copies the files of artifacts to, until they are uploaded.
_STAGING = "WANDB_DATA_DIR"
_QUIET = ("WANDB_SILENT", "WANDB_QUIET")


def build_loggers(
    parts: Mapping[str, Mapping[str, Any]], directory: Path, identity: Mapping[str, str | None]
) -> list[Logger]:
    """The loggers of a configuration, and one that writes metrics.csv if there are any and none of them does.

    Args:
        parts: a configuration each; one whose `mode` is disabled makes no logger.
        directory: of the run.
        identity: what takes the place of keys that a configuration leaves null, see `identify`.

    Raises:
        InputError: for a `mode` that there is not, and whatever the loggers do not take.
    """
    raise_for(*mode_problems(parts))
    loggers: list[Logger] = []
    known = _from_environment() | dict(identity)
    for part in parts.values():
        unnamed = {key: value for key, value in known.items() if key in part and part[key] is None}
        if unnamed.get("mode", part.get("mode")) != "disabled":
            loggers.append(build(part, **unnamed))
            # Lightning hands it on even where nobody set it, and W&B warns that it has no effect.
            if (options := _options(loggers[-1])).get("anonymous", "") is None:
                del options["anonymous"]
    if loggers and not any(isinstance(logger, CSVLogger) for logger in loggers):
        loggers.append(MetricsFile(str(directory), name="", version=""))
    return loggers


def mode_problems(parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is wrong with the `mode` of the loggers that have one."""
    given = {f"logger.{name}.mode": part["mode"] for name, part in parts.items() if "mode" in part}
    modes = {key: mode for key, mode in given.items() if mode is not None}
    if len(modes) < len(given):
        modes["WANDB_MODE"] = _from_environment()["mode"]
    return [line for key, mode in modes.items() for line in one_of(key, mode, MODES)]


def _from_environment() -> dict[str, str | None]:
    """What takes the place of a project and a mode that a configuration leaves null: what W&B's variables say."""
    return {
        "project": os.environ.get("WANDB_PROJECT") or "elslightning",
        "mode": os.environ.get("WANDB_MODE") or "offline",
    }


def identify(directory: Path) -> dict[str, str | None]:
    """A new `id` for a run, its `name` and its `group`, from Hydra's configuration of this job.

    The name is what the command line sets, in a multirun what sets this job apart from the others; where there is
    nothing or too much of it, it is that of the directory. The group is the sweep: that of W&B, or the directory of
    the multirun. What W&B's own environment variables say goes before.
    """
    hydra, environment = HydraConfig.get(), os.environ
    overrides = [override for override in hydra.overrides.task if key_of(override) != "resume"]
    group = environment.get("WANDB_SWEEP_ID")
    if hydra.mode == RunMode.MULTIRUN:
        sweep = Path(hydra.sweep.dir)
        group = group or "/".join(sweep.parts[sweep.parts.index("multirun") + 1 :] if "multirun" in sweep.parts else "")
        group = group or sweep.name
        words = [word for word in sys.argv[1:] if "=" in word and not word.startswith("-")]
        typed = OverridesParser.create().parse_overrides(for_grammar(words, several=True))
        shared = {override.key_or_group for override in typed if not override.is_sweep_override()}
        overrides = [word for word in overrides if key_of(word) not in shared] or overrides
    name = ",".join(overrides)
    return {
        "id": environment.get("WANDB_RUN_ID") or secrets.token_hex(4),
        "name": environment.get("WANDB_NAME") or (name if 0 < len(name) <= _LONGEST_NAME else directory.name),
        "group": environment.get("WANDB_RUN_GROUP") or group,
    }


def _options(logger: Logger) -> dict[str, Any]:
    """What a logger of W&B begins its run with; nothing for others."""
    return getattr(logger, "_wandb_init", {})


@contextmanager
def session(directory: Path, loggers: Sequence[Logger]) -> Iterator[None]:
    """Ends W&B's run with the block, as failed if the block fails: the next job would go on with it.

    The copies that W&B makes of an artifact's files stay in `directory`, unless WANDB_DATA_DIR says otherwise. Offline
    it says nothing, and at the end a line says how to upload the run; online it says where the run is to be seen.
    WANDB_SILENT and WANDB_QUIET say otherwise.
    """
    offline = any(_options(logger).get("mode") == "offline" for logger in loggers)
    wanted = {_STAGING: str(directory.absolute() / "wandb")}
    if not any(name in os.environ for name in _QUIET):
        wanted["WANDB_SILENT" if offline else "WANDB_QUIET"] = "true"
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ |= added
    exit_code = 1
    try:
        yield
        exit_code = 0
    finally:
        if "wandb" in sys.modules:
            run = sys.modules["wandb"].run
            kept = None if run is None or not run.offline else Path(run.dir).parent
            sys.modules["wandb"].finish(exit_code=exit_code)
            if kept is not None:
                note(f"W&B has this run offline: wandb sync {shlex.quote(str(kept))} uploads it")
        for name in added:
            del os.environ[name]


def log_figure(logger: Logger, name: str, figure: Figure, step: int) -> None:
    """Hands a figure to a logger that shows images."""
    if hasattr(logger, "log_image"):
        logger.log_image(name, [_pixels(figure)], step=step)
    elif hasattr(experiment := getattr(logger, "experiment", None), "add_image"):
        experiment.add_image(name, _pixels(figure), step, dataformats="HWC")  # type: ignore[union-attr]


def _pixels(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def log_table(logger: Logger, name: str, rows: Sequence[Mapping[str, Any]], step: int) -> None:
    """Hands a table to a logger that shows tables.

    Args:
        logger: W&B's, or one that takes tables alike.
        name: of the table.
        rows: of the same keys; images are arrays (height, width, 3) of bytes.
        step: of the training.
    """
    if rows and hasattr(logger, "log_table"):
        import wandb

        data = [[wandb.Image(cell) if isinstance(cell, np.ndarray) else cell for cell in row.values()] for row in rows]
        logger.log_table(name, columns=list(rows[0]), data=data, step=step)


def log_lines(
    logger: Logger, name: str, lines: Mapping[str, Sequence[tuple[float, float]]], axis: str, step: int
) -> None:
    """Hands a line plot to a logger that draws plots from tables.

    Args:
        logger: W&B's, or one that takes its plots among the metrics.
        name: of the plot, and its title.
        lines: points (x, y) by the name of the line.
        axis: what x is.
        step: of the training.
    """
    if lines and hasattr(logger, "log_table"):
        import wandb

        xs, ys = ([[point[part] for point in points] for points in lines.values()] for part in (0, 1))
        plot = wandb.plot.line_series(xs, ys, keys=list(lines), title=name, xname=axis)
        logger.log_metrics({name: plot}, step=step)  # type: ignore[dict-item]


def log_file(logger: Logger, path: Path, kind: str) -> None:
    """Hands a file to a logger that keeps files, as the artifact `<kind>-<run>`."""
    if hasattr(logger, "use_artifact"):
        import wandb

        artifact = wandb.Artifact(re.sub(r"[^\w.-]", "_", f"{kind}-{logger.version}"), type=kind)
        artifact.add_file(str(path))
        logger.experiment.log_artifact(artifact)  # type: ignore[attr-defined]


def log_config(logger: Logger, config: Mapping[str, Any]) -> None:
    """Hands the resolved configuration to a logger; that of metrics.csv lies beside it already."""
    if not isinstance(logger, CSVLogger):
        logger.log_hyperparams(dict(config))
