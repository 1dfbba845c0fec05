"""The words of a command line, before Hydra sees them."""

import os
from collections.abc import Sequence
from pathlib import Path

from elslightning.runs.configuration import key_of
from elslightning.runs.paths import READ, for_grammar, is_path, path_in, word_of
from elslightning.system.checks import raise_for
from elslightning.system.errors import InputError

MULTIRUN = ("--multirun", "-m")
FOLDERS = ("data.root", "network.path")
"""Keys that name a folder, and no file."""


def for_hydra(words: list[str], verb: str) -> list[str]:
    """What Hydra gets of the words that follow a verb.

    Raises:
        InputError: for a `resume=` that cannot be followed, and for paths that are none.
    """
    words = for_grammar(words, several=any(word in MULTIRUN for word in words))
    words = resuming(words) if verb == "train" else words
    flags = [word for word in words if word in MULTIRUN]
    # The first process of a job writes the configuration.
    silent = ["hydra.output_subdir=null"] if follows() else []
    return [*flags, *(word for word in words if word not in flags), *silent]


def refuse_missing(words: Sequence[str]) -> None:
    """Refuses what is to be read and is not there, before anything that takes seconds to be imported.

    Args:
        words: that follow a verb, as `for_grammar` returns them.

    Raises:
        InputError: naming all that is not.
    """
    keys = {key_of(word) for word in words}
    # What can be fetched may be missing; and a training that is resumed says itself what is.
    excused = {"resume", *(["data.root"] if keys & {"data.download", "resume"} else [])}
    problems = []
    for word in words:
        key = key_of(word)
        if not is_path(key, READ) or key in excused or word.startswith("~") or "${" in word:
            continue
        path = path_in(word)
        if path and key in FOLDERS and not os.path.isdir(path):
            problems.append(f"{key}={path} is not a folder")
        elif path and not os.path.exists(path):
            problems.append(f"{key}={path}: there is no file {path}")
    raise_for(*problems)


def follows() -> bool:
    """Whether this is not the first process of its job: as torchrun, Lightning, SLURM and MPI say it."""
    names = ("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
    return any(os.environ.get(name, "0") != "0" for name in (*names, "OMPI_COMM_WORLD_RANK"))


def resuming(words: list[str]) -> list[str]:
    """With `resume=RUN_DIR`, what that run was started with goes before, and the run directory is that of the run.

    Raises:
        InputError: for what does not go with it, and a directory without a training.
    """
    given = [word for word in words if key_of(word) == "resume"]
    name = path_in(given[-1]) if given else ""
    if not name:
        return words
    if any(word in MULTIRUN for word in words):
        raise InputError(f"resume={name} goes on with one run: --multirun does not go with it")
    # Lightning, where it starts further processes, says where Hydra's files go.
    kept = (
        "resume",
        "data.root",
        "data.download",
        "data_changed",
        "trainer.max_epochs",
        "logger",
        "trust",
        *(["hydra"] if "LOCAL_RANK" in os.environ else []),
    )
    for word in words:
        key = key_of(word)
        if not word.startswith("-") and not any(key == part or key.startswith(f"{part}.") for part in kept):
            raise InputError(
                f"resume={name} takes the configuration of that run: only trainer.max_epochs, data.root, logger.* and "
                f"trust can be set, not {key}; and data_changed and data.download"
            )
    if not os.path.isdir(name):  # before what takes seconds to be imported
        raise InputError(f"resume={name}: there is no training to go on with, for there is no such directory")
    from elslightning.runs.belonging import check_files
    from elslightning.runs.layout import CHECKPOINT, CONFIG, HYDRA, OVERRIDES
    from elslightning.runs.run import read_overrides, started_in  # imports torch: not needed for help

    run = Path(name)
    for file in (CONFIG, OVERRIDES, CHECKPOINT):
        if not (run / file).is_file():
            raise InputError(f"resume={name}: there is no training to go on with, for it has no file {file}")
    check_files(run, CONFIG, OVERRIDES, HYDRA)
    # Trust is asked for anew: the directory may be a stranger's.
    keys = {"trust", *(key_of(word) for word in words)}
    earlier = for_grammar(read_overrides(run) or [], base=started_in(run))
    return [
        *(word for word in earlier if key_of(word) not in keys),
        *words,
        *(word_of("hydra.run.dir", name), "hydra.output_subdir=null"),
    ]
