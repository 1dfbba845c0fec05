"""The command line: `elslightning <verb> [hydra overrides]`."""

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from elslightning import __version__, multirun
from elslightning.errors import InputError

VERBS = {
    "train": "train a denoiser, calibrate the machines against it, compare them with it: the main job",
    "calibrate": "find the patch size per noise level with which machines agree best with a network, or denoise best",
    "compare": "sample a trained network and the machines from the same noise and measure how well they agree",
    "sample": "draw samples from a trained network or from a machine",
}
"""What is done with a configuration, each in a run directory."""

IMPORT = "import-official"
REPORT = "sweep-report"
TOOLS = {
    IMPORT: "turn a network trained by the paper's code into a checkpoint",
    REPORT: "make the table and the figure of a multirun from its finished runs",
}
"""What is done without a configuration."""

IMPORT_USAGE = f"elslightning {IMPORT} FILE.pt [output=PATH]"
IMPORT_HELP = f"""\
{IMPORT_USAGE}: {TOOLS[IMPORT]}

FILE.pt is a whole DDIM around a MinimalResNet or a MinimalUNet, as torch.save wrote it. It is read as data, and
nothing in it runs. The checkpoint goes to PATH, by default FILE.ckpt; what exists is not overwritten. FILE.pt does not
say which data the network was trained on, so name them where the checkpoint is used:

  elslightning calibrate checkpoint=FILE.ckpt data=fashion_mnist data.root=FOLDER
"""

REPORT_USAGE = f"elslightning {REPORT} DIR"
REPORT_HELP = f"""\
{REPORT_USAGE}: {TOOLS[REPORT]}

DIR is the directory of a multirun (hydra.sweep.dir), finished or not: whoever waits can see what there is. It gets
sweep.csv, a row per run, and figures/sweep.png. Runs that failed, or are not finished, are named and left out of the
figure.
"""

HELP = f"""\
elslightning {__version__}: how much of what a convolutional diffusion model creates does a patch theory predict?

usage: elslightning VERB [key=value ...]

{os.linesep.join(f"  {verb:<17}{about}" for verb, about in {**VERBS, **TOOLS}.items())}

  elslightning VERB --help       what a verb takes, with examples
  elslightning VERB --cfg job    its configuration, without running it
  elslightning --version

Start here, a few minutes on two CPU cores, nothing to download:

  elslightning train experiment=digits

Exit codes: 0 done; 1 the run failed; 2 the input cannot be worked with: one line says why.
"""


def conf_dir() -> Path:
    """The configuration: inside an installed package, or at the top of the checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


class OutputDirectory(Callback):
    """Finds out before anything else whether the run directory can be written.

    Hydra writes its `.hydra/` before the job has looked at its input: what an earlier run left there is kept, to
    be put back if the job is refused.
    """

    earlier: ClassVar[dict[Path, bytes]] = {}

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._check(config.hydra.run.dir)
        files = (Path(config.hydra.run.dir) / str(config.hydra.output_subdir)).glob("*.yaml")
        OutputDirectory.earlier = {path: path.read_bytes() for path in files}

    @classmethod
    def restore(cls) -> None:
        """Puts back what was there before this run."""
        for path, content in cls.earlier.items():
            path.write_bytes(content)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._check(config.hydra.sweep.dir)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Reports, and exits if a job is not finished."""
        if code := multirun.conclude(config.hydra.sweep.dir):
            sys.exit(code)

    def _check(self, directory: str) -> None:
        try:
            Path(directory).mkdir(parents=True, exist_ok=True)
            probe = Path(directory) / f".{os.getpid()}.probe"
            probe.touch()
            probe.unlink()
        except OSError as error:
            _refuse(f"cannot write to the run directory {directory}: {error.strerror}")


def main() -> None:
    """The console script."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        sys.exit(0 if arguments else 2)
    if arguments[0] == "--version":
        print(__version__)
        return
    # Threads that wait by spinning take the cores from each other as soon as anything else runs: with two other
    # busy processes on two cores, a training step takes ten times as long. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    verb = arguments[0]
    if verb == IMPORT:
        return _import(arguments[1:])
    if verb == REPORT:
        return _report(arguments[1:])
    if verb not in VERBS:
        _refuse(f"there is no verb {verb!r}: choose from {', '.join([*VERBS, *TOOLS])}")
    command_line = list(sys.argv)

    def task(cfg: DictConfig) -> float | None:
        # Lightning starts further processes by running sys.argv again: they need the verb.
        sys.argv = command_line
        return _run(cfg)

    # Hydra parses what follows the verb.
    words = _resuming(command_line[2:]) if verb == "train" else command_line[2:]
    flags = [word for word in words if word in ("--multirun", "-m")]
    sys.argv = [command_line[0], *flags, *(word for word in words if word not in flags)]
    debugging = "HYDRA_FULL_ERROR" in os.environ
    # Otherwise Hydra prints errors itself, in many lines.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    multirun.register()
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=verb)(task)()
    except CompactHydraException as error:
        if debugging:
            raise
        _refuse(_one_line(error))
    finally:
        sys.argv = command_line
        if not debugging:
            del os.environ["HYDRA_FULL_ERROR"]


def _resuming(words: list[str]) -> list[str]:
    """With `resume=RUN_DIR`, what that run was started with goes before, and the run directory is that of the run."""
    given = [word for word in words if word.startswith("resume=")]
    if not given or given[-1] in ("resume=", "resume=null"):
        return words
    name = _unquoted(given[-1].removeprefix("resume="))
    if any(word in ("--multirun", "-m") for word in words):
        _refuse(f"resume={name} goes on with one run: --multirun does not go with it")
    # Lightning, where it starts further processes, says where Hydra's files go.
    kept = ("resume", "trainer.max_epochs", "logger", *(["hydra"] if "LOCAL_RANK" in os.environ else []))
    for word in words:
        key = _key(word)
        if not word.startswith("-") and not any(key == part or key.startswith(f"{part}.") for part in kept):
            _refuse(
                f"resume={name} takes the configuration of that run: only trainer.max_epochs and logger.* can be set, "
                f"not {key}"
            )
    run = Path(name)
    for file in (".hydra/config.yaml", ".hydra/overrides.yaml", "checkpoints/last.ckpt"):
        if not (run / file).is_file():
            _refuse(f"resume={name}: there is no training to go on with, for it has no file {file}")
    keys = {_key(word) for word in words}
    earlier = [str(word) for word in OmegaConf.load(run / ".hydra" / "overrides.yaml")]
    quoted = "'" + name.replace("'", "\\'") + "'"
    return [
        *(word for word in earlier if _key(word) not in keys),
        *(f"resume={quoted}" if word == given[-1] else word for word in words),
        *(f"hydra.run.dir={quoted}", "hydra.output_subdir=null"),
    ]


def _key(override: str) -> str:
    return override.lstrip("+~").split("=", 1)[0]


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _import(arguments: list[str]) -> None:
    if any(word in ("-h", "--help") for word in arguments):
        print(IMPORT_HELP, end="")
        return
    outputs = [word.removeprefix("output=") for word in arguments if word.startswith("output=")]
    files = [word for word in arguments if not word.startswith("output=")]
    if len(files) != 1 or len(outputs) > 1 or "" in outputs or files[0].startswith("-"):
        _refuse(f"usage: {IMPORT_USAGE}")
    from elslightning.importing import import_official  # imports torch: not needed for help

    try:
        written = import_official(files[0], *outputs)
    except InputError as error:
        _refuse(str(error))
    print(f"files: {written}")


def _report(arguments: list[str]) -> None:
    if any(word in ("-h", "--help") for word in arguments):
        print(REPORT_HELP, end="")
        return
    if len(arguments) != 1 or arguments[0].startswith("-"):
        _refuse(f"usage: {REPORT_USAGE}")
    from elslightning.sweep_report import report  # imports torch: not needed for help

    try:
        made = report(arguments[0])
    except InputError as error:
        _refuse(str(error))
    except OSError as error:
        _refuse(f"cannot write the report of {arguments[0]}: {error.strerror}")
    print(made.text())
    if (skipped := made.skipped()) is not None:
        print(f"elslightning: warning: {skipped}", file=sys.stderr)


def _one_line(error: CompactHydraException) -> str:
    """What Hydra says, without where it looked and how to see more."""
    lines = str(error).split("Config search path")[0].splitlines()
    return " ".join(" ".join(lines).split())


def _run(cfg: DictConfig) -> float | None:
    """Runs one job; returns what sweepers may maximise: see `elslightning.results`."""
    _quieten()
    directory = Path(HydraConfig.get().runtime.output_dir)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return multirun.run_job(lambda: _work(cfg, directory), directory)
    try:
        return _work(cfg, directory)
    except InputError as error:
        OutputDirectory.restore()
        _refuse(str(error))


def _work(cfg: DictConfig, directory: Path) -> float | None:
    from elslightning import runs  # imports torch and lightning: not needed for help

    found = runs.run(cfg, directory)
    if found is not None and (text := found.text()):
        print(text)
    print(f"files: {_shown(directory)}")
    return None if found is None else found.objective


def _quieten() -> None:
    """Leaves out what Lightning says in every run, and what does not apply to data held in memory."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        "Experiment logs directory .* exists",
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",
        "The '.*_dataloader' does not have many workers",
        "The number of training batches",
    ):
        warnings.filterwarnings("ignore", message=message)


def _shown(directory: Path) -> str:
    """A path below the working directory relative to it, any other as it is."""
    try:
        return f"{directory.relative_to(Path.cwd())}{os.sep}"
    except ValueError:
        return f"{directory}{os.sep}"


def _refuse(message: str) -> NoReturn:
    print(f"elslightning: error: {message}", file=sys.stderr)
    sys.exit(2)
