"""The command line: `elslightning <verb> [hydra overrides]`."""

import gc
import logging
import os
import signal
import sys
import traceback
import warnings
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from elslightning import __version__
from elslightning.cli import multirun
from elslightning.cli.arguments import follows, for_hydra
from elslightning.cli.composing import check_own, conf_dir
from elslightning.cli.ending import DEBUG, fail, refuse, say_stopped
from elslightning.cli.output import OutputDirectory
from elslightning.cli.sizing import sized
from elslightning.cli.tools import TOOLS
from elslightning.runs.paths import make_full
from elslightning.system.checks import did_you_mean
from elslightning.system.display import display
from elslightning.system.errors import ElslightningError, InputError
from elslightning.system.locking import Locks
from elslightning.system.signals import STOPS, Terminated, terminable

VERBS = {
    "train": "train a denoiser, calibrate the machines against it, compare them with it: the main job",
    "calibrate": "find the patch size per noise level with which machines agree best with a network, or denoise best",
    "compare": "sample a trained network and the machines from the same noise and measure how well they agree",
    "sample": "draw samples from a trained network or from a machine",
    "create": "make images in the manner of a folder without training, as new as a dial says, and a gallery of them",
}
"""What is done with a configuration, each in a run directory."""

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


def main() -> None:
    """The console script."""
    with display():
        try:
            with terminable():
                _main()
        except KeyboardInterrupt as stop:
            say_stopped(stop, "interrupted", signal.SIGINT)
        except Terminated as stop:
            say_stopped(stop, "terminated", signal.SIGTERM)


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
        refuse(f"there is no verb {verb!r}: choose from {', '.join(_ABOUT)}{did_you_mean(verb, _ABOUT)}")
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

        refuse(explained(_one_line(error), verb, arguments[1:]))
    except Exception as error:
        fail(error, debugging)


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
        fail(error, debugging)


def _work(cfg: DictConfig, directory: Path) -> float | None:
    from elslightning.cli import verbs  # imports torch and lightning: not needed for help

    gc.enable()
    found = verbs.run(cfg, directory)
    Locks.check()
    if not follows():
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
