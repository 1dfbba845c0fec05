"""Nothing leaves the machine unless it is asked to: a training in a process that can reach nothing else."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
import victims
from tiny import TRAIN

pytestmark = pytest.mark.reliability

# Python runs a module of this name before anything else.
CUSTOM = """
import os
import socket

connect, connect_ex, sendto, look_up = (
    socket.socket.connect, socket.socket.connect_ex, socket.socket.sendto, socket.getaddrinfo
)


def check(address):
    host = address[0] if isinstance(address, tuple) else None
    if host not in (None, "", "localhost", "::1") and not str(host).startswith("127."):
        with open(os.environ["TRIED"], "a") as file:
            print(address, file=file)
        raise OSError(f"no connection to {address}")


def guard(function, position):
    def guarded(*arguments, **options):
        check(arguments[position])
        return function(*arguments, **options)

    return guarded


def guarded_look_up(host, *arguments, **options):
    check((host,))
    return look_up(host, *arguments, **options)


socket.socket.connect = guard(connect, 1)
socket.socket.connect_ex = guard(connect_ex, 1)
socket.socket.sendto = guard(sendto, -1)
socket.getaddrinfo = guarded_look_up
"""
COMMAND = "from elslightning.cli.main import main; main()"
ATTEMPT = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"


def run(tmp_path: Path, *words: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A Python process whose sockets reach this machine only; and what else it tried."""
    (tmp_path / "sitecustomize.py").write_text(CUSTOM)
    tried = tmp_path / "tried"
    # A proxy that nobody answers: W&B's service, a program of its own, has other sockets than Python's.
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    environment |= nowhere | {"PYTHONPATH": path, "TRIED": str(tried), "WANDB_SILENT": "true"}
    # What matplotlib knows of fonts is not found out anew.
    environment |= {"HOME": str(tmp_path), "MPLCONFIGDIR": matplotlib.get_cachedir(), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *words]
    return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300), tried


@pytest.mark.parametrize("logger", ["csv", "wandb"])
def test_a_training_reaches_for_nothing(tmp_path, logger):
    """Nor do the imports, of which the process with W&B has all."""
    words = ["train", *TRAIN, f"logger={logger}", "trainer.max_epochs=1", "compare=false", "hydra.run.dir=run"]
    if logger == "wandb":
        done, tried = run(tmp_path, "-c", COMMAND, *words)
        assert done.returncode == 0, done.stderr
    else:
        tried, log = tmp_path / "tried", tmp_path / "log"
        guard = functools.partial(exec, CUSTOM, {})
        options = {"directory": tmp_path, "environment": {"TRIED": str(tried), "HOME": str(tmp_path)}}
        assert victims.finish(*words, output=log, before=guard, **options) == 0, log.read_text()
    assert not tried.exists(), tried.read_text()
    assert (tmp_path / "run" / "metrics.csv").is_file()
    assert len(list((tmp_path / "run").glob("wandb/offline-run-*/*.wandb"))) == (logger == "wandb")


def test_what_reaches_out_is_noticed(tmp_path):
    """The test above can fail."""
    done, tried = run(tmp_path, "-c", ATTEMPT)
    assert done.returncode != 0
    assert "192.0.2.1" in tried.read_text()
