"""The command line: `elslightning <verb> [hydra overrides]`."""

import gc
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write

from elslightning import __version__
from elslightning.cli import multirun
from elslightning.cli.arguments import follows, for_hydra
from elslightning.cli.composing import check_own, conf_dir
from elslightning.cli.sizing import sized
from elslightning.cli.tools import TOOLS
from elslightning.cli.values import refuse_values
from elslightning.runs.paths import make_full, word_of
from elslightning.system.checks import did_you_mean
from elslightning.system.display import display
from elslightning.system.errors import ElslightningError, InputError
from elslightning.system.files import clear_leftovers
from elslightning.system.locking import Locks, new_directory
from elslightning.system.signals import EXIT_CODES, STOPS, Terminated, stop_behind, terminable

PROBE = 2**16
"""Bytes that must fit into a run directory, or it is not begun with."""

NOW = "${now:"
"""What names a directory by the time."""

VERBS = {
    "train": "train a denoiser, calibrate the machines against it, compare them with it: the main job",
    "calibrate": "find the patch size per noise level with which machines agree best with a network, or denoise best",
    "compare": "sample a trained network and the machines from the same noise and measure how well they agree",
    "sample": "draw samples from a trained network or from a machine",
    "create": "make images in the manner of a folder without training, as new as a dial says, and a gallery of them",
}
"""What is done with a configuration, each in a run directory."""

DEBUG = "--debug"
# Set beside HYDRA_FULL_ERROR where that is not the user's, for processes that this one starts.
_NOT_ASKED_FOR = "ELSLIGHTNING_HYDRA_FULL_ERROR"

_ABOUT = VERBS | {name: tool.about for name, tool in TOOLS.items()}

HELP = f"""\
elslightning {__version__}: how much of what a convolutional diffusion model creates does a patch theory predict?

usage: elslightning VERB [key=value ...]

{os.linesep.join(f"  {verb:<17}{about}" for verb, about in _ABOUT.items())}

  elslightning VERB --help       what a verb takes, with examples
  elslightning explain KEY       what a key means, and what it can be
  elslightning VERB --cfg job    its configuration, without running it
  elslightning VERB ... --debug  tracebacks of errors, as the variable HYDRA_FULL_ERROR gives
  elslightning --version

Start here, a few minutes on two CPU cores, nothing to download:

  elslightning train experiment=digits

Then with a folder of images of your own, about half an hour:

  elslightning train experiment=folder data.root=FOLDER

Exit codes: 0 done; 1 the run failed; 2 the input cannot be worked with: a line for each problem says why;
130 interrupted (Ctrl-C); 143 terminated (SIGTERM).
"""


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
            _fail(error, debugging=False)

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
            _refuse(f"cannot write to the run directory {wanted}: {error.strerror}")
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
            _refuse(str(error))
        except OSError as error:
            _refuse(f"cannot write to the run directory {directory}: {error.strerror}")


def main() -> None:
    """The console script."""
    with display():
        try:
            with terminable():
                _main()
        except KeyboardInterrupt as stop:
            _stopped(stop, "interrupted", signal.SIGINT)
        except Terminated as stop:
            _stopped(stop, "terminated", signal.SIGTERM)


def _main() -> None:
    arguments = [word for word in sys.argv[1:] if word != DEBUG]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        sys.exit(0 if arguments else 2)
    if arguments[0] == "--version":
        print(__version__)
        return
    # Threads that wait by spinning take the cores from each other as soon as anything else runs: with two other
    # busy processes on two cores, a training step takes ten times as long. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    debugging = DEBUG in sys.argv or ("HYDRA_FULL_ERROR" in os.environ and _NOT_ASKED_FOR not in os.environ)
    verb = arguments[0]
    if verb not in _ABOUT:
        _refuse(f"there is no verb {verb!r}: choose from {', '.join(_ABOUT)}{did_you_mean(verb, _ABOUT)}")
    try:
        if verb in TOOLS:
            TOOLS[verb](arguments[1:])
        else:
            check_own(arguments)
            words = sized(arguments[1:], verb)
            if words != arguments[1:]:  # what Lightning starts further processes with
                sys.argv = [sys.argv[0], verb, *words, *(word for word in sys.argv if word == DEBUG)]
            _hydra(verb, for_hydra(words, verb), debugging)
    except CompactHydraException as error:
        if debugging:
            traceback.print_exception(error)
        from elslightning.cli.keys import explained

        _refuse(explained(_one_line(error), verb, arguments[1:]))
    except Exception as error:
        _fail(error, debugging)


def _hydra(verb: str, words: list[str], debugging: bool) -> None:
    """Runs a verb as a Hydra application."""
    command_line = list(sys.argv)

    def task(cfg: DictConfig) -> float | None:
        # Lightning starts further processes by running sys.argv again: they need the verb.
        sys.argv = command_line
        return _run(cfg, debugging)

    sys.argv = [command_line[0], *words]  # what Hydra parses
    # Otherwise Hydra prints errors itself, in many lines.
    added = {"HYDRA_FULL_ERROR": "1", _NOT_ASKED_FOR: "1"} if "HYDRA_FULL_ERROR" not in os.environ else {}
    os.environ |= added
    multirun.register()
    OutputDirectory.sweep = None
    # What is imported stays; looking through it again and again for what could go takes a sixth of the time.
    gc.disable()
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=verb)(task)()
    except STOPS as stop:
        if OutputDirectory.sweep is not None:  # not with one job alone, which may have said how
            stop.__notes__ = [multirun.how_to_go_on(OutputDirectory.sweep)]
        raise
    finally:
        gc.enable()
        Locks.release()
        sys.argv = command_line
        for name in added:
            del os.environ[name]


def _one_line(error: CompactHydraException) -> str:
    """What Hydra says, without where it looked and how to see more; where it says nothing, what made it stop."""
    said = str(error) or str(error.__cause__ or type(error).__name__)
    lines = said.split("Config search path")[0].splitlines()
    return " ".join(" ".join(lines).split())


def _run(cfg: DictConfig, debugging: bool) -> float | None:
    """Runs one job; returns what sweepers may maximise: see `elslightning.measurement.result`."""
    from elslightning.system.processes import told  # imports torch: not needed for help

    _quieten()
    directory = Path(HydraConfig.get().runtime.output_dir)
    try:
        # Hydra may change the working directory, and whoever works with what is left here may be elsewhere.
        make_full(cfg, HydraConfig.get().runtime.cwd)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return multirun.run_job(
                lambda: _work(cfg, directory),
                directory,
                debugging=debugging,
                put_back=lambda: OutputDirectory.restore(directory),
            )
        return _work(cfg, directory)
    except Exception as error:  # here, for Hydra would add a line of its own
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(directory)  # a full disk names no file
        if isinstance(error, InputError):
            OutputDirectory.restore(directory)
        if isinstance(error, ElslightningError) and follows() and told(error):
            sys.exit(error.exit_code)  # the first one says it
        _fail(error, debugging)


def _work(cfg: DictConfig, directory: Path) -> float | None:
    from elslightning.cli import verbs  # imports torch and lightning: not needed for help

    gc.enable()
    found = verbs.run(cfg, directory)
    Locks.check()
    if not follows():
        if found is not None and (text := found.text()):
            print(text)
        print(f"files: {_shown(directory)}")
    return None if found is None else found.objective


def _quieten() -> None:
    """Leaves out what Lightning says in every run, and what does not apply to data held in memory."""
    import lightning.pytorch  # noqa: F401  it sets these levels when it is imported

    for name in ("lightning.pytorch", "lightning.fabric.utilities.distributed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        "Experiment logs directory .* exists",
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",
        "The '.*_dataloader' does not have many workers",
        "The number of training batches",
        "It is recommended to use `self.log",  # what every process has the same of is not summed
    ):
        warnings.filterwarnings("ignore", message=message)


def _shown(directory: Path) -> str:
    """A path below the working directory relative to it, any other as it is."""
    try:
        return f"{directory.relative_to(Path.cwd())}{os.sep}"
    except ValueError:
        return f"{directory}{os.sep}"


def _refuse(message: str) -> NoReturn:
    _fail(InputError(message), debugging=False)


def _fail(error: Exception, debugging: bool) -> NoReturn:
    """Says what went wrong, and ends with the exit code that stands for it; or ends as what it was stopped by."""
    if (stop := stop_behind(error)) is not None:
        raise stop from error
    if debugging:
        traceback.print_exception(error)
    if isinstance(error, ElslightningError):
        print(f"elslightning: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        print(f"elslightning: error: {error.strerror}: {error.filename}", file=sys.stderr)
        sys.exit(1)
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    more = "" if debugging else f" ({DEBUG} shows where it came from)"
    print(f"elslightning: error: {reason}{more}", file=sys.stderr)
    sys.exit(1)


def _stopped(stop: BaseException, what: str, number: signal.Signals) -> NoReturn:
    """Says that it was stopped, and how to go on if that is known."""
    if not follows():
        print("; ".join([f"elslightning: {what}", *getattr(stop, "__notes__", ())]), file=sys.stderr)
    sys.exit(EXIT_CODES[number])
