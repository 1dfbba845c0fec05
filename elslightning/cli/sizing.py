"""`experiment=folder`: what a folder of images and this machine say of a training, as words of its command line.

The words come before those that were typed, so that what was typed wins; and they are kept with the run, so that it is
resumed, and done again, as it was sized.
"""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elslightning.cli.arguments import MULTIRUN, follows, refuse_missing
from elslightning.runs.configuration import key_of
from elslightning.runs.paths import for_grammar, path_in
from elslightning.system.errors import InputError, note

if TYPE_CHECKING:  # imports torch: not needed to see that a folder is missing
    from elslightning.data.survey import Survey

EXPERIMENT = "folder"
SIDE = 32
"""Of images that are larger, and of which no other was asked for."""
SHOWING = ("--cfg", "-c", "--help", "-h", "--info", "-i", "--hydra-help")
"""Flags with which nothing is run."""
BANK = 2000
"""So many images to train at most, where no other number was asked for."""
MINUTES = {"training": 12.0, "calibration": 6.0, "comparison": 5.0}
"""For half an hour in all, with what takes place before and after."""
OPTIMIZER_STEPS = 8000
"""Enough for a network of this size."""
SAMPLES, PAIRS, FEWEST = (3, 32), (20, 100), 200
"""The least and the greatest calibration.num_samples and comparison.num_pairs; and the fewest images of a bank that is
made smaller to save time."""
MEASURED = ("trainer.max_epochs", "calibration.num_samples", "comparison.num_pairs")


def sized(words: list[str], verb: str) -> list[str]:
    """The words of a training of `experiment=folder`, with those that its folder and this machine add; others as they
    are.

    Args:
        words: that follow the verb.
        verb: what is done with them.

    Raises:
        InputError: for a folder of data that is missing, or that contradicts the words.
    """
    typed, words = words, for_grammar(words, several=any(word in MULTIRUN for word in words))
    if any(word in SHOWING or word.startswith("--cfg=") for word in words):
        return typed
    refuse_missing(words)
    given = {key_of(word): word for word in words if not word.startswith("-")}
    if verb != "train" or "resume" in given or given.get("experiment") != f"experiment={EXPERIMENT}":
        return typed
    root = path_in(given["data.root"]) if "data.root" in given else ""
    if not root:
        raise InputError(f"experiment={EXPERIMENT} needs data.root=FOLDER, a folder of images")
    from elslightning.data.survey import survey  # imports torch: not needed for help

    found = survey(Path(root), f"data.root={root}")
    added = suggested(words, given, found, f"data.root={root}")
    if added and not follows():
        classes = f"{len(found.classes) or 'no'} classes"
        note(f"experiment={EXPERIMENT}: {classes}; set {', '.join(f'{k}={v}' for k, v in added.items())}")
    flags = [word for word in words if word.startswith("-")]
    return [*flags, *(f"{key}={value}" for key, value in added.items()), *(w for w in words if w not in flags)]


def suggested(words: list[str], given: dict[str, str], found: "Survey", place: str) -> dict[str, object]:
    """What a folder and this machine add to the words of a training, by key.

    Args:
        words: that follow the verb, as `for_grammar` returns them.
        given: those that set something, by key.
        found: what there is of the folder.
        place: names the folder in errors.

    Raises:
        InputError: for words that the folder does not bear out.
    """
    _refuse_contradictions(given, found, place)
    facts: dict[str, object] = {
        "data.num_classes": len(found.classes) or "null",
        "denoiser.conditional": "true" if found.classes else "false",
        "data.image_size": min(SIDE, found.side),
        "data.channels": found.channels,
        "data.train_size": min(BANK, found.train),
    }
    added = {key: value for key, value in facts.items() if key not in given}
    if any(key not in given for key in MEASURED) and not _with_others():
        fitted = _fitted(words, added, found)
        added |= {key: value for key, value in fitted.items() if key not in given}
    return added


def _value(given: dict[str, str], key: str) -> str | None:
    return given[key].partition("=")[2] if key in given else None


def _refuse_contradictions(given: dict[str, str], found: "Survey", place: str) -> None:
    """Words that the folder does not bear out; each is named by its key."""
    number, count = _value(given, "data.num_classes"), len(found.classes)
    if number is not None and number != "null" and number.isdigit() and int(number) != count:
        names = f" ({', '.join(found.classes[:10])})" if found.classes else ""
        raise InputError(
            f"data.num_classes={number}, but {place} has {count or 'no'} folders that are classes{names}: leave "
            f"data.num_classes out, or give data.num_classes={count or 'null'}"
        )
    if not found.classes and (_value(given, "denoiser.conditional") or "").lower() == "true":
        raise InputError(
            f"denoiser.conditional=true, but {place} has no folders that are classes: leave denoiser.conditional out, "
            "or put the images of every class into a folder of its own"
        )


def _with_others() -> bool:
    """Whether other processes do the same job, which would measure otherwise."""
    names = ("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "JSM_NAMESPACE_SIZE")
    return any(os.environ.get(name, "1") not in ("", "1") for name in names) or "LOCAL_RANK" in os.environ


def _fitted(words: list[str], added: dict[str, object], found: "Survey") -> dict[str, object]:
    """What ends within about half an hour."""
    import torch

    from elslightning.cli.estimating import cost, seconds_per_step, training_of

    plain = [word for word in words if not word.startswith("-") and not _sweeps(word)]
    given = {key_of(word) for word in words}
    with torch.random.fork_rng(devices=[]):
        cfg, measurement, network, device = training_of([*(f"{k}={v}" for k, v in added.items()), *plain])
        count = min(int(cfg.data.train_size or found.train), found.train)
        side = int(cfg.data.image_size or found.side)
        images = torch.rand(count, int(cfg.data.channels), side, side, device=device) * 2 - 1
        labels = torch.arange(count) % len(found.classes) if network.conditional and found.classes else None
        batch = slice(0, min(cfg.data.batch_size, count))
        step = seconds_per_step(network, images[batch], None if labels is None else labels[batch])
        per = cost(measurement, network, images, labels)
    per_sample, per_pair = (max(sum(part.values()), 1e-9) for part in (per.calibration, per.comparison))
    minutes = {phase: 60 * share for phase, share in MINUTES.items()}
    # Fewer images to train, where even the least number of samples would take too long.
    share = min(1.0, minutes["calibration"] / (SAMPLES[0] * per_sample), minutes["comparison"] / (PAIRS[0] * per_pair))
    if share < 1 and "data.train_size" not in given:
        fewer = max(min(FEWEST, count), int(share * count))
        per_sample, per_pair, count = per_sample * fewer / count, per_pair * fewer / count, fewer
    samples = _within(SAMPLES, minutes["calibration"] / per_sample)
    pairs = _within(PAIRS, minutes["comparison"] / per_pair)
    per_epoch = math.ceil(count / cfg.data.batch_size)
    epochs = max(1, math.ceil(min(OPTIMIZER_STEPS, minutes["training"] / step) / per_epoch))
    epochs = cfg.trainer.max_epochs if "trainer.max_epochs" in given else epochs
    samples = cfg.calibration.num_samples if "calibration.num_samples" in given else samples
    pairs = cfg.comparison.num_pairs if "comparison.num_pairs" in given else pairs
    return {
        "data.train_size": count,
        "trainer.max_epochs": epochs,
        # Looking at the validation images costs time, too.
        "trainer.check_val_every_n_epoch": max(1, epochs // 12),
        "calibration.num_samples": samples,
        "comparison.num_pairs": pairs,
    }


def _sweeps(word: str) -> bool:
    """Whether a word stands for several jobs."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override: Any = OverridesParser.create().parse_override(word)
    return (
        override.is_sweep_override() or override.key_or_group in ("sweep", "hydra") or key_of(word).startswith("hydra.")
    )


def _within(bounds: tuple[int, int], number: float) -> int:
    return int(max(bounds[0], min(bounds[1], number)))
