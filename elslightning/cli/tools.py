"""The verbs that need no configuration: each reads its arguments, does one thing, and prints what came of it."""

import os
import sys
from collections.abc import Callable
from typing import NamedTuple

from elslightning.runs.configuration import without_output
from elslightning.system.checks import raise_for
from elslightning.system.errors import InputError, warn

_TRUST = "trust="
"""Modules whose classes a file may name, for all tools: `trust=[mynet]`."""


_OF_DIRECTORIES = ("figures", "report")


class Tool(NamedTuple):
    """A verb without a configuration.

    Attributes:
        about: what it does, in a line.
        usage: its command line.
        help: what else there is to know.
        run: does it with the words that follow the verb; raises InputError for those that it cannot work with.
    """

    about: str
    usage: str
    help: str
    run: Callable[[list[str]], None]

    def __call__(self, words: list[str]) -> None:
        """Does it, or shows the help if the words ask for it."""
        if any(word in ("-h", "--help") for word in words):
            print(f"{self.usage}: {self.about}\n\n{self.help}", end="")
            return
        trusted = [word.removeprefix(_TRUST) for word in words if word.startswith(_TRUST)]
        if not trusted:
            self.run(words)
            return
        from elslightning.runs.targets import trusting  # imports torch: not needed for help

        modules = [name.strip() for word in trusted for name in word.strip("[]").split(",")]
        with trusting(modules):
            self.run([word for word in words if not word.startswith(_TRUST)])

    def misused(self) -> InputError:
        return InputError(f"usage: {self.usage}")


def _paths(tool: str, words: list[str], most: int | None = 1) -> tuple[list[str], list[str]]:
    """The files or directories that are named, at most so many, and the output if one is given."""
    files, outputs = without_output(words)
    too_many = most is not None and len(files) > most
    if not files or too_many or len(outputs) > 1 or "" in outputs or any(file.startswith("-") for file in files):
        raise TOOLS[tool].misused()
    found = [os.path.expanduser(file) for file in files]
    # Before what takes seconds to be imported.
    said = "{0} is not a directory" if tool in _OF_DIRECTORIES else "there is no file {0}"
    raise_for(*(said.format(file) for file in found if not os.path.exists(file)))
    return found, outputs


def _import(words: list[str]) -> None:
    files, outputs = _paths("import-official", words)
    from elslightning.runs.exchange import import_official  # imports torch: not needed for help

    print(f"files: {import_official(*files, *outputs)}")


def _export(words: list[str]) -> None:
    files, outputs = _paths("export", words)
    from elslightning.runs.exchange import export  # imports torch: not needed for help

    print(f"files: {export(*files, *outputs)}")


def _doctor(words: list[str]) -> None:
    if any(word.startswith("-") for word in words):
        raise TOOLS["doctor"].misused()
    from elslightning.cli.doctor import examine, report  # imports torch: not needed for help

    findings = examine([word.removeprefix("data.root=") for word in words])
    print(report(findings))
    if any(finding.remedy for finding in findings):
        sys.exit(1)


def _sweep_report(words: list[str]) -> None:
    if len(words) != 1 or words[0].startswith("-"):
        raise TOOLS["sweep-report"].misused()
    if not os.path.isdir(words[0]):
        raise InputError(f"{words[0]} holds no run of a multirun")
    from elslightning.report.sweep import report  # imports torch: not needed for help

    try:
        made = report(words[0])
    except OSError as error:
        raise InputError(f"cannot write the report of {words[0]}: {error.strerror}") from error
    print(made.text())
    if (skipped := made.skipped()) is not None:
        warn(skipped)


def _report(words: list[str]) -> None:
    runs, outputs = _paths("report", words, most=None)
    from elslightning.report.page.page import write_report
    from elslightning.report.page.side_by_side import write_comparison
    from elslightning.system.progress import Bars  # imports torch: not needed for help

    if len(runs) == 1 and outputs:
        raise InputError("the report of one run lies in its directory: output=PATH is for several runs")
    try:
        if len(runs) == 1:
            written = write_report(runs[0], progress=Bars())
        else:
            written = write_comparison(runs, *outputs or ["comparison.html"])
    except OSError as error:
        raise InputError(f"cannot write the report {error.filename}: {error.strerror or error}") from error
    print(f"report: {', '.join(map(str, written))}")


def _figures(words: list[str]) -> None:
    directories, outputs = _paths("figures", words)
    from elslightning.report.paper import write_figures  # imports torch: not needed for help

    print(write_figures(*directories, *outputs).text())


def _explain(words: list[str]) -> None:
    from elslightning.cli.explaining import explain  # imports Hydra: not needed for help

    print(explain(words))


def _completion(words: list[str]) -> None:
    from elslightning.cli.completing import completion
    from elslightning.cli.explaining import VERBS  # imports Hydra: not needed for help

    if text := completion(words, VERBS, list(TOOLS)):
        print(text, end="" if text.endswith("\n") else "\n")


TOOLS = {
    "report": Tool(
        "write a run's report, with the mosaic explorer; or compare several runs",
        "elslightning report RUN_DIR [RUN_DIR ...] [output=PATH.html]",
        """\
For one run, report.html and report.md go into its directory, as train, calibrate and compare leave them there.
report.html is one file that opens from disk, without a server or a network. For several runs, their tables side by
side go to output=PATH.html, by default comparison.html, and as Markdown beside it.
""",
        _report,
    ),
    "doctor": Tool(
        "say whether this installation, this machine and these folders of data will carry a run",
        "elslightning doctor [FOLDER ...]",
        """\
Looks at the versions of packages, at devices, W&B's settings, the outputs folder, free disk and memory, and every
machine on a few images (the first time, compiling takes a minute); and says which data sets each FOLDER holds, and of a
folder of images how it is understood, and which files cannot be read. Contacts
nothing. Exit code 0 if all is well, 1 if something would keep a run from working; its line says what to do.
""",
        _doctor,
    ),
    "export": Tool(
        "write the weights of a trained network as safetensors",
        "elslightning export CHECKPOINT [output=PATH.safetensors]",
        """\
CHECKPOINT is a checkpoint file or the directory of a run; trust=[MODULE] goes with one of a class of your own. The
file goes to PATH, by default beside the checkpoint; what
exists is not overwritten. It holds the weights that comparisons use, averaged if the training averaged them, and the
configuration of the network and its schedule; nothing of the data. Whatever takes checkpoint=PATH takes it too, with
the data named:

  elslightning compare checkpoint=PATH.safetensors data=fashion_mnist data.root=FOLDER
""",
        _export,
    ),
    "import-official": Tool(
        "turn a network trained by the paper's code into a checkpoint",
        "elslightning import-official FILE.pt [output=PATH]",
        """\
FILE.pt is a whole DDIM around a MinimalResNet or a MinimalUNet, as torch.save wrote it. It is read as data, and
nothing in it runs. The checkpoint goes to PATH, by default FILE.ckpt; what exists is not overwritten. FILE.pt does not
say which data the network was trained on, so name them where the checkpoint is used:

  elslightning calibrate checkpoint=FILE.ckpt data=fashion_mnist data.root=FOLDER
""",
        _import,
    ),
    "sweep-report": Tool(
        "make the table and the figure of a multirun from its finished runs",
        "elslightning sweep-report DIR",
        """\
DIR is the directory of a multirun (hydra.sweep.dir), finished or not: whoever waits can see what there is. It gets
sweep.csv, a row per run, and figures/sweep.png. Runs that failed, or are not finished, are named and left out of the
figure.
""",
        _sweep_report,
    ),
    "figures": Tool(
        "draw the paper's figures for a finished run, for print",
        "elslightning figures RUN_DIR [output=FOLDER]",
        """\
RUN_DIR is the directory of a finished run. FOLDER, by default RUN_DIR/figures/paper, gets those of the paper's figures
that the run has data for, each as PNG (300 dots per inch) and PDF, as wide as a column or a page:

  fig3_black_white        samples of elslightning sample experiment=black_white
  fig4a_receptive_field   the network's gradients around one pixel
  fig4b_patch_size        the calibrated patch sizes, and the disagreement that is left
  fig5_pairs              network and machines from the same noise
  fig5_scatter            Pearson r of every pair against that of IS
  fig10_grid              many pairs by class, as in Figs. 10-12
  ranking                 paired differences of every machine to the first theory
  stepwise                distances at the network's own states (comparison.stepwise=true)

What is left out is named with the reason.
""",
        _figures,
    ),
    "explain": Tool(
        "say what a key means, what it is set to, and what else it can be",
        "elslightning explain [KEY ...] [experiment=NAME] [group=option ...]",
        """\
KEY is what stands before = on a command line: elslightning explain denoiser.width. A section, such as denoiser, shows
its keys; without KEY all groups are shown with what can be chosen. experiment=NAME and other words say of which
configuration.
""",
        _explain,
    ),
    "completion": Tool(
        "print the script that completes words with the tab key",
        "elslightning completion bash|zsh|fish",
        """\
Put it to work in the start-up file of the shell:

  eval "$(elslightning completion bash)"    in ~/.bashrc
  eval "$(elslightning completion zsh)"     in ~/.zshrc
  elslightning completion fish | source     in ~/.config/fish/config.fish

It completes verbs, keys, and what can be chosen of a group; paths are left to the shell.
""",
        _completion,
    ),
}
