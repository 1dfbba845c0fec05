"""The directory that a command writes into, before its job begins."""

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write

from elslightning.cli import multirun
from elslightning.cli.arguments import follows
from elslightning.cli.ending import fail, refuse
from elslightning.cli.values import refuse_values
from elslightning.runs.paths import word_of
from elslightning.system.errors import InputError
from elslightning.system.files import clear_leftovers
from elslightning.system.locking import Locks, new_directory

PROBE = 2**16
"""Bytes that must fit into a run directory, or it is not begun with."""

NOW = "${now:"
"""What names a directory by the time."""


class OutputDirectory(Callback):
    """Finds out before anything else whether the run directory can be written.

    Hydra writes its `.hydra/` before the job has looked at its input: what an earlier run left there is kept, to
    be put back if the job is refused, or, in a multirun, was finished before.
    """

    earlier: ClassVar[dict[Path, bytes]] = {}
    sweep: ClassVar[Path | None] = None
    """The directory of a multirun."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._look_at(config, single=True)
        self._find_free(config, "run")
        self._take(config.hydra.run.dir)
        self._remember(config, Path(config.hydra.run.dir).glob)

    def _look_at(self, config: DictConfig, *, single: bool) -> None:
        try:
            refuse_values(config, single=single)
        except InputError as error:
            fail(error, debugging=False)

    def _remember(self, config: DictConfig, find: Callable[[str], Iterable[Path]]) -> None:
        OutputDirectory.earlier = {path: path.read_bytes() for path in find(f"{config.hydra.output_subdir}/*.yaml")}

    @classmethod
    def restore(cls, directory: Path) -> None:
        """Puts back what was in the directory of a job before this run."""
        for path, content in cls.earlier.items():
            if path.absolute().parent.parent == directory.absolute():
                path.write_bytes(content)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._look_at(config, single=False)
        self._find_free(config, "sweep")
        self._take(config.hydra.sweep.dir)
        OutputDirectory.sweep = Path(config.hydra.sweep.dir)
        self._remember(config, OutputDirectory.sweep.rglob)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Reports, and exits if a job is not finished."""
        if not follows() and (code := multirun.conclude(config.hydra.sweep.dir)):
            sys.exit(code)

    def _find_free(self, config: DictConfig, kind: str) -> None:
        """Gives a directory that is named by the time another name, if another run has begun within the same second."""
        section = config.hydra[kind]
        named_by: Any = OmegaConf.to_container(section, resolve=False)
        if follows() or NOW not in str(named_by["dir"]):
            return
        wanted = Path(section.dir)
        try:
            directory = new_directory(wanted)
        except OSError as error:
            refuse(f"cannot write to the run directory {wanted}: {error.strerror}")
        if directory != wanted:
            with read_write(config.hydra):
                section.dir = str(directory)
                if kind == "sweep":  # the jobs compose their configuration anew
                    config.hydra.overrides.hydra.append(word_of("hydra.sweep.dir", directory))

    def _take(self, directory: str) -> None:
        """Makes sure that this run, which several processes may share, has the directory to itself."""
        try:
            Path(directory).mkdir(parents=True, exist_ok=True)
            if not follows():
                Locks.take(directory)
                clear_leftovers(directory)
            probe = Path(directory) / f".{os.getpid()}.probe"
            try:
                probe.write_bytes(bytes(PROBE))
            finally:
                probe.unlink(missing_ok=True)
        except InputError as error:
            refuse(str(error))
        except OSError as error:
            refuse(f"cannot write to the run directory {directory}: {error.strerror}")
