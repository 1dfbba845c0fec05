"""Kills runs at random moments, starts them again, and counts what is lost or wrong.

    python benchmarks/faults.py [--faults 200] [--flips 20] [--seed 0]

Every run of a verb is killed with SIGKILL at a random moment of its usual time, once to three times, and after each
kill every file that it left must be whole. Then it is started again, a training with `resume=RUN_DIR` as soon as it has
a checkpoint, and must end with the files of a run that nobody killed: weights and tables bit for bit.

A file is *lost* if it cannot be read to its end, or is missing at the end; a run is *wrong* if it ends with anything
else, or does not end.

After that, single bits are flipped in every file of a finished run that is read again, so many times each: the damage
is *noticed* if reading refuses it, *harmless* if what is read is the same, and *silent* if it is not.

Small networks on digits, one thread each, processes forked from one that has imported the package.
"""

import argparse
import csv
import json
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import victims
from omegaconf import OmegaConf
from tiny import TRAIN

from elslightning.runs.checkpoints import load_network
from elslightning.runs.run import read_run
from elslightning.system.errors import InputError

KILLS = 3
SMALL = [word for word in TRAIN if "max_epochs" not in word]
# When, how fast and how often: the only files in which two runs of the same differ.
VOLATILE = {"run.json", "report.html", "report.md"}
# What is read again of a run; hydra.yaml is Hydra's own record.
READ, UNREAD = {".json", ".csv", ".npz", ".ckpt", ".yaml"}, {"hydra.yaml"}


def unreadable(directory: Path) -> list[str]:
    """The files that cannot be read to their end."""
    found = []
    for path in sorted(directory.rglob("*")):
        if not path.is_file() or path.name.startswith("."):
            continue
        try:
            read(path)
        except Exception as error:
            found.append(f"{path.relative_to(directory)}: {type(error).__name__}: {error}")
    return found


def read(path: Path) -> object:
    """What is in a file, by its kind."""
    if path.suffix == ".json":
        return json.loads(path.read_text("utf-8"))
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if any(None in row or None in row.values() for row in rows):
            raise ValueError("a row of another length")
        return rows
    if path.suffix == ".ckpt":
        content = torch.load(path, weights_only=True)
        return {name: content[name] for name in ("state_dict", "current_model_state", "averaging_state", "global_step")}
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: arrays[name] for name in arrays}
    if path.suffix == ".html" and not path.read_text("utf-8").rstrip().endswith("</html>"):
        raise ValueError("a page without an end")
    return path.read_bytes()


def same(one: object, other: object) -> bool:
    """Whether two contents are equal, bit for bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    return one == other


def files(directory: Path) -> dict[str, Path]:
    """The results of a run, by name."""
    paths = (path for path in directory.rglob("*") if path.is_file() and ".hydra" not in path.parts)
    return {str(path.relative_to(directory)): path for path in paths if path.suffix != ".png"}


class Case:
    """A command, what it leaves when nobody kills it, and how long that takes."""

    def __init__(self, verb: str, words: list[str], folder: Path, before: Path | None = None) -> None:
        self.verb, self.words, self.folder, self.before = verb, words, folder, before
        self.reference, self.log = folder / f"{verb}_reference", folder / "log"
        for run in (folder / "warm", self.reference):
            self.prepare(run)
        victims.finish(*self.command(folder / "warm"), output=self.log)
        start = time.monotonic()
        if victims.finish(*self.command(self.reference), output=self.log) != 0:
            raise SystemExit(f"{verb} does not work:\n{self.log.read_text()}")
        self.seconds = time.monotonic() - start
        shutil.rmtree(folder / "warm")

    def prepare(self, run: Path) -> None:
        """What is there when the command starts."""
        shutil.rmtree(run, ignore_errors=True)
        if self.before is not None:
            shutil.copytree(self.before, run)

    def command(self, run: Path) -> list[str]:
        if self.verb == "report":
            return ["report", str(run)]
        if self.verb == "train" and (run / "checkpoints" / "last.ckpt").is_file():
            return ["train", f"resume={run}"]
        return [self.verb, *self.words, f"hydra.run.dir={run}"]

    def fault(self, dice: random.Random) -> Counter[str]:
        """A run that is killed once or more; what became of it."""
        run, tally = self.folder / "run", Counter(faults=1)
        self.prepare(run)
        for _ in range(dice.randint(1, KILLS)):
            process = victims.start(*self.command(run), output=self.log)
            process.join(dice.uniform(0, self.seconds))
            process.kill()
            process.join()
            if process.exitcode == 0:
                break
            tally["kills"] += 1
            for complaint in unreadable(run):
                print(f"lost: {self.verb}: {complaint}")
                tally["lost"] += 1
        else:
            code = victims.finish(*self.command(run), output=self.log)
            last = self.log.read_text().strip().splitlines()[-1]
            if code != 0 and "epochs are done" not in last:  # it was killed after its last word
                print(f"wrong: {self.verb} ended with {code}: {last}")
                return tally + Counter(wrong=1)
        found, expected = files(run), files(self.reference)
        for name in sorted(expected.keys() - found.keys()):
            print(f"lost: {self.verb}: {name} is missing")
            tally["lost"] += 1
        common = found.keys() & expected.keys() - VOLATILE
        different = {name for name in common if not same(read(found[name]), read(expected[name]))}
        different |= found.keys() - expected.keys()
        if different:
            print(f"wrong: {self.verb}: {', '.join(sorted(different))}")
            tally["wrong"] += 1
        return tally


def used(directory: Path) -> dict[str, object]:
    """All that is read of a run: its results and its network's weights."""
    run, checkpoint = read_run(directory), directory / "checkpoints" / "last.ckpt"
    gradients = {} if run.gradients is None else vars(run.gradients)
    calibrations = {name: vars(found) | {"scales": None} for name, found in run.calibrations.items()}
    return {
        "comparison": None if run.comparison is None else (run.comparison.rows, run.comparison.consistency),
        "samples": run.samples,
        "summary": run.summary,
        "scales": {name: table.to_dict() for name, table in run.scales.items()},
        "calibrations": calibrations,
        "gradients": dict(gradients),
        "losses": run.losses,
        "config": OmegaConf.to_container(run.config, resolve=False),
        "overrides": run.overrides,
        "record": run.record,
        "weights": dict(load_network(directory).state_dict()) if checkpoint.is_file() else {},
    }


def flips(reference: Path, folder: Path, times: int, dice: random.Random) -> Counter[str]:
    """What became of single flipped bits in every file that is read again, by (file, what)."""
    expected, tally = used(reference), Counter[str]()
    for path in sorted(path for path in reference.rglob("*") if path.suffix in READ and path.name not in UNREAD):
        name = str(path.relative_to(reference))
        for _ in range(times):
            copy = Path(shutil.copytree(reference, folder / "flipped", dirs_exist_ok=True))
            content = bytearray(path.read_bytes())
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
            (copy / name).write_bytes(content)
            try:
                became = "harmless" if same(used(copy), expected) else "silent"
            except InputError:
                became = "noticed"
            tally[f"{name} {became}"] += 1
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--flips", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = [Case("train", [*SMALL, "trainer.max_epochs=6", "comparison.every_n_epochs=3"], folder)]
        measured = [
            f"checkpoint={cases[0].reference}",
            "report=false",
            "calibration.steps=8",
            "calibration.num_samples=8",
        ]
        compared = [*measured, "comparison.num_pairs=8", "comparison.steps=8", "comparison.network_steps=8"]
        cases += [Case("calibrate", measured, folder), Case("compare", compared, folder)]
        cases.append(Case("report", [], folder, before=cases[-1].reference))
        tallies = {case.verb: Counter[str]() for case in cases}
        start = time.monotonic()
        for number in range(options.faults):
            case = cases[number % len(cases)]
            tallies[case.verb] += case.fault(dice)
        minutes = (time.monotonic() - start) / 60
        print(f"{platform.machine()}, {os.cpu_count()} cores; seed {options.seed}; {minutes:.0f} minutes")
        print(f"{'verb':<10}{'seconds':>8}{'faults':>8}{'kills':>8}{'lost':>8}{'wrong':>8}")
        for case in cases:
            tally = tallies[case.verb]
            counts = "".join(f"{tally[key]:>8}" for key in ("faults", "kills", "lost", "wrong"))
            print(f"{case.verb:<10}{case.seconds:>8.1f}{counts}")
        whole = sum(tallies.values(), Counter())
        print(f"{whole['faults']} faults, {whole['kills']} kills: {whole['lost']} lost, {whole['wrong']} wrong")
        tally = flips(cases[0].reference, folder, options.flips, dice)
        kinds = ("noticed", "harmless", "silent")
        print(f"{'a flipped bit in':<28}" + "".join(f"{kind:>10}" for kind in kinds))
        for name in sorted({entry.rpartition(" ")[0] for entry in tally}):
            print(f"{name:<28}" + "".join(f"{tally[f'{name} {kind}']:>10}" for kind in kinds))
        silent = sum(count for entry, count in tally.items() if entry.endswith(" silent"))
        print(f"{tally.total()} flips: {silent} used silently")
        sys.exit(1 if whole["lost"] or whole["wrong"] or silent else 0)


if __name__ == "__main__":
    main()
