"""Times training and comparison with one process and with two: `elslightning train` as its users start it.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/devices.py [OVERRIDE ...]

By default the digits experiment, on as many cores as there are processes, one thread each. A step sees as many images
in all with two processes as with one. Start-up is not counted: an epoch is what more epochs cost, divided by how many
they are; the comparison, with the calibration before it, is what `compare=true` costs beyond `compare=false`.
"""

import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import torch

BATCH = 128
EPOCHS = (2, 22)


def seconds(processes: int, *overrides: str) -> float:
    """The wall time of a command."""
    options = ["trainer=ddp", "trainer.accelerator=cpu"] if processes > 1 else []
    options += [f"trainer.devices={processes}", f"data.batch_size={BATCH // processes}", "callbacks=[ema,checkpoint]"]
    with tempfile.TemporaryDirectory() as directory:
        words = ["experiment=digits", *options, *overrides, f"hydra.run.dir={directory}"]
        command = Path(sysconfig.get_path("scripts")) / "elslightning"  # Lightning runs it again for the second process
        start = time.perf_counter()
        subprocess.run([sys.executable, command, "train", *words], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def main() -> None:
    overrides = sys.argv[1:]
    threads = os.environ.get("OMP_NUM_THREADS", "default")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    print(f"threads per process: {threads}; load before: {os.getloadavg()[0]:.1f}")
    found = {}
    for processes in (1, 2):
        short, long = (
            seconds(processes, f"trainer.max_epochs={count}", "compare=false", *overrides) for count in EPOCHS
        )
        compared = seconds(processes, f"trainer.max_epochs={EPOCHS[0]}", *overrides)
        found[processes] = ((long - short) / (EPOCHS[1] - EPOCHS[0]), compared - short, short)
        epoch, comparison, rest = found[processes]
        print(
            f"{processes} processes: an epoch {epoch:.2f} s, the comparison {comparison:.1f} s, the rest {rest:.1f} s"
        )
    (epoch, comparison, _), (epoch_2, comparison_2, _) = found[1], found[2]
    print(f"speed-up: training {epoch / epoch_2:.2f}, comparison {comparison / comparison_2:.2f}")


if __name__ == "__main__":
    main()
