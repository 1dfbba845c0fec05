"""What a process does once only, done by being imported: plugins are found, compiled code is loaded.

For the process that others are forked from. Nothing is differentiated: that takes threads, which a fork does not have.
"""

import tempfile
from pathlib import Path

import pytest
from once import once
from tiny import TRAIN, cli

once(pytest.MonkeyPatch())

with tempfile.TemporaryDirectory() as folder:
    options = ["source=bbels", "scales=3", "data.train_size=5", "num_samples=1", "steps=1"]
    done = cli("sample", *options, f"hydra.run.dir={Path(folder) / 'run'}")
    assert done.code == 0, done.err
    # Composed, and refused before anything is trained.
    done = cli("train", *TRAIN, "calibration.patch_sizes=[3,4]", f"hydra.run.dir={Path(folder) / 'run'}")
    assert done.code == 2, done.err
