"""What is refused of a configuration before torch is imported."""

import subprocess
import sys
from pathlib import Path

import compositions
import pytest
from omegaconf import OmegaConf
from tiny import cli

from elslightning.cli.values import kind_problems

REFUSED = {
    "train data=folder data.root=/nowhere/at/all": "data.root=/nowhere/at/all is not a folder",
    "compare checkpoint=/nowhere/at/all": "checkpoint=/nowhere/at/all: there is no file /nowhere/at/all",
    "compare": "elslightning compare needs checkpoint=PATH: a checkpoint file or a run directory",
    "sample": "source=network needs checkpoint=PATH",
    "calibrate checkpoint=.": "checkpoint={cwd}: there is no file {cwd}/checkpoints/last.ckpt",
    "train seed=-1": "seed must be a whole number, at least 0, not -1",
    "train compare=maybe": "compare must be true or false, not 'maybe'",
    "train trainer.precision=half": "trainer.precision must be one of 32-true, bf16-mixed, 16-mixed, not 'half'",
    "train trainer.max_epochs=many": "trainer.max_epochs must be a whole number, at least -1, not 'many'",
    "train trainer.devices=0": "trainer.devices must be a number of devices, at least 1, or auto, not 0",
    "train data.train_size=all": "data.train_size must be a whole number, at least 1, not 'all'",
    "train data.batch_size=0": "data.batch_size must be a whole number, at least 1, not 0",
    "train experiment=digits denoiser.width=wide": "denoiser.width must be a whole number, not 'wide'",
    "train denoiser.conditional=perhaps": "denoiser.conditional must be true or false, not 'perhaps'",
    "train calibration.num_samples=few": "calibration.num_samples must be a whole number, not 'few'",
    "train --multirun comparison.num_pairs=few seed=1,2": "comparison.num_pairs must be a whole number, not 'few'",
    "train ~seed": "there is no key seed, which elslightning train needs",
    "train ~trainer.max_epochs": "there is no key trainer.max_epochs, which elslightning train needs",
    "train ~trainer": "there is no key trainer, which elslightning train needs",
    "create ~windows": "there is no key windows, which elslightning create needs",
    "create creativity=2": "creativity must lie between 0 (recall) and 1 (texture), not 2",
}


def test_what_is_plainly_wrong_is_refused_without_torch_and_leaves_nothing(tmp_path):
    code = (
        "import sys\n"
        f"sys.path.append({str(Path(compositions.__file__).parent)!r})\n"
        "import pytest, compositions\n"
        "compositions.composed_once(pytest.MonkeyPatch())\n"  # files are read once: there are twenty commands
        "from elslightning.cli.main import main\n"
        f"for words in {list(REFUSED)}:\n"
        "    sys.argv = ['elslightning', *words.split()]\n"
        "    try: main()\n"
        "    except SystemExit as stop: print(stop.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "2 False\n" * len(REFUSED)
    said = [line.format(cwd=tmp_path) for line in REFUSED.values()]
    assert done.stderr.splitlines() == [f"elslightning: error: {line}" for line in said]
    assert not any(tmp_path.iterdir())


def test_all_is_said_at_once(tmp_path):
    done = cli("train", "seed=x", "denoiser.width=y", "data.val_size=z", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.code == 2
    assert [word for word in ("seed", "data.val_size", "denoiser.width") if f"{word} must be" not in done.err] == []
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("usual", "value", "wrong"),
    [(3, "4 or so", True), (True, "no!", True), (3, 4, False), (3, [4], False), (3, None, False), (True, 1, False)],
)
def test_text_is_neither_a_number_nor_true_or_false(usual, value, wrong):
    assert bool(kind_problems("denoiser", {"key": value}, OmegaConf.create({"key": usual}))) == wrong


@pytest.mark.parametrize("usual", [None, "text", 1.5, [1], "${data.channels}"])
def test_of_other_kinds_nothing_is_said_here(usual):
    for value in (None, "text", 3, [2]):
        assert kind_problems("data", {"key": value}, OmegaConf.create({"key": usual})) == []
