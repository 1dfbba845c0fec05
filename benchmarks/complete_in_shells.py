"""Tab completion in the shells themselves, each on a terminal of its own: those of bash, zsh and fish that are here.

Run by hand, with `elslightning` on the path: python benchmarks/complete_in_shells.py
"""

import os
import pty
import re
import select
import shutil
import tempfile
import time
from pathlib import Path

STARTED = {
    "bash": ["bash", "--noprofile", "--rcfile", "{home}/start", "-i"],
    "zsh": ["zsh", "-i"],
    "fish": ["fish", "--init-command", "source {home}/start"],
}
START = {
    "bash": 'eval "$(elslightning completion bash)"',
    "zsh": 'eval "$(elslightning completion zsh)"',
    "fish": "elslightning completion fish | source",
}
TYPED = {
    "elslightning cal": "elslightning calibrate",
    "elslightning train experiment=fold": "elslightning train experiment=folder",
    "elslightning train denoiser.padd": "elslightning train denoiser.padding_mode=",
    "elslightning train data.root=pict": "elslightning train data.root=pictures/",
}
"""What is typed before the tab, and what it becomes."""
STARTING, ANSWERING = 8.0, 12.0
"""Seconds at most."""


def completed(shell: str, typed: str, wanted: str, home: Path) -> bool:
    """Whether a line becomes what is wanted."""
    (home / "start").write_text(START[shell] + "\n")
    (home / ".zshrc").write_text(START[shell] + "\n")
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(home)
        os.environ |= {"TERM": "xterm", "ZDOTDIR": str(home), "HOME": str(home)}
        words = [word.format(home=home) for word in STARTED[shell]]
        os.execvp(words[0], words)
    seen = ""

    def read(seconds: float, until: str | None = None) -> None:
        nonlocal seen
        end = time.monotonic() + seconds
        while time.monotonic() < end and (until is None or until not in plain(seen)):
            if select.select([terminal], [], [], 0.2)[0]:
                try:
                    part = os.read(terminal, 4096)
                except OSError:
                    return
                if b"\x1b[c" in part:  # asks what terminal this is
                    os.write(terminal, b"\x1b[?1;2c")
                seen += part.decode(errors="replace")

    read(STARTING)
    seen = ""
    os.write(terminal, f"{typed}\t".encode())
    read(ANSWERING, until=wanted)
    os.close(terminal)
    os.waitpid(child, 0)
    return wanted in plain(seen)


def plain(text: str) -> str:
    """What a terminal was told, without colours, moves of the cursor and backspaces."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|[\x07\x08\r\n]", "", text)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "pictures").mkdir()
        for shell in STARTED:
            if shutil.which(shell) is None:
                print(f"{shell}: not here")
                continue
            for typed, wanted in TYPED.items():
                print(f"{shell}: {typed!r} -> {'' if completed(shell, typed, wanted, home) else 'NOT '}{wanted!r}")


if __name__ == "__main__":
    main()
