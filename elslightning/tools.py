"""The verbs that need no configuration: each reads its arguments, does one thing, and prints what came of it."""

import sys
from collections.abc import Callable
from typing import NamedTuple

from elslightning.errors import InputError


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
        else:
            self.run(words)

    def misused(self) -> InputError:
        return InputError(f"usage: {self.usage}")


def _import(words: list[str]) -> None:
    outputs = [word.removeprefix("output=") for word in words if word.startswith("output=")]
    files = [word for word in words if not word.startswith("output=")]
    if len(files) != 1 or len(outputs) > 1 or "" in outputs or files[0].startswith("-"):
        raise TOOLS["import-official"].misused()
    from elslightning.importing import import_official  # imports torch: not needed for help

    print(f"files: {import_official(files[0], *outputs)}")


def _sweep_report(words: list[str]) -> None:
    if len(words) != 1 or words[0].startswith("-"):
        raise TOOLS["sweep-report"].misused()
    from elslightning.sweep_report import report  # imports torch: not needed for help

    try:
        made = report(words[0])
    except OSError as error:
        raise InputError(f"cannot write the report of {words[0]}: {error.strerror}") from error
    print(made.text())
    if (skipped := made.skipped()) is not None:
        print(f"elslightning: warning: {skipped}", file=sys.stderr)


def _figures(words: list[str]) -> None:
    outputs = [word.removeprefix("output=") for word in words if word.startswith("output=")]
    directories = [word for word in words if not word.startswith("output=")]
    if len(directories) != 1 or len(outputs) > 1 or "" in outputs or directories[0].startswith("-"):
        raise TOOLS["figures"].misused()
    from elslightning.publication import write_figures  # imports torch: not needed for help

    print(write_figures(directories[0], *outputs).text())


TOOLS = {
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

What is left out is named with the reason.
""",
        _figures,
    ),
}
