"""The wheel: it carries the configuration, and its console script works far from any checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import files, version
from pathlib import Path
from typing import NamedTuple

import pytest
from omegaconf import OmegaConf

import elslightning
from elslightning.cli.composing import conf_dir
from elslightning.cli.main import VERBS

CHECKOUT = Path(__file__).resolve().parents[2]
IN_CHECKOUT = (CHECKOUT / "pyproject.toml").is_file()


class Installation(NamedTuple):
    """An installed wheel: its package, and the folder of its scripts."""

    package: Path
    scripts: Path

    def run(self, *command: str, cwd: Path) -> str:
        """The output of one of its scripts; fails unless it exits with 0."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [self.scripts / command[0], *command[1:]],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def build_wheel(directory: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (wheel,) = directory.glob("*.whl")
    return wheel


def install(wheel: Path, directory: Path) -> Installation:
    """Into a new virtual environment, which takes everything else from this one."""
    venv.create(directory, with_pip=False, symlinks=True)
    paths = sysconfig.get_paths(vars={"base": str(directory), "platbase": str(directory)})
    site = Path(paths["purelib"])
    # A plain path: the .pth files in it, an editable install's among them, are not followed.
    outer = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "outer.pth").write_text("\n".join(outer) + "\n")
    scripts = Path(paths["scripts"])
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(scripts / "python")]
    done = subprocess.run(
        [*pip, "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", str(wheel)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return Installation(site / "elslightning", scripts)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout, or None where the tests stand outside one."""
    return build_wheel(tmp_path_factory.mktemp("dist")) if IN_CHECKOUT else None


@pytest.fixture(scope="module")
def installation(wheel, tmp_path_factory):
    """That wheel, installed; outside a checkout, the wheel that is under test already."""
    if wheel is None:
        return Installation(Path(elslightning.__file__).parent, Path(sysconfig.get_path("scripts")))
    return install(wheel, tmp_path_factory.mktemp("environment"))


def texts(root: Path, pattern: str) -> dict[str, str]:
    """The files below a folder that match, by their paths."""
    return {
        path.relative_to(root).as_posix(): path.read_text("utf-8") for path in root.rglob(pattern) if path.is_file()
    }


def test_the_wheel_holds_the_package_and_nothing_beside_it(wheel, installation):
    if wheel is None:
        paths = [str(path) for path in files("elslightning") or []]
    else:
        with zipfile.ZipFile(wheel) as archive:
            paths = archive.namelist()
    roots = {Path(path).parts[0] for path in paths}
    assert {root for root in roots if not root.endswith(".dist-info") and root != ".."} == {"elslightning"}
    assert texts(installation.package, "*.py") == texts(Path(elslightning.__file__).parent, "*.py")


def test_the_configuration_is_inside_the_package(installation):
    inside = texts(installation.package / "conf", "*.yaml")
    assert inside == texts(conf_dir(), "*.yaml")
    assert {f"{verb}.yaml" for verb in VERBS} <= inside.keys()


def test_the_sweeps_are_inside_the_package(installation):
    inside = texts(installation.package / "sweeps", "*")
    assert "README.md" in inside
    if IN_CHECKOUT:
        assert inside == texts(CHECKOUT / "sweeps", "*")


def test_the_templates_of_reports_are_inside_the_package(installation):
    inside = texts(installation.package / "report" / "page" / "templates", "*")
    assert {"report.html", "report.css", "explorer.html", "explorer.js"} <= inside.keys()
    assert inside == texts(Path(elslightning.__file__).parent / "report" / "page" / "templates", "*")


def test_the_installed_package_is_the_one_that_runs(installation, tmp_path):
    code = "import elslightning as els; from elslightning.cli import composing; "
    code += "print(els.__file__, composing.conf_dir(), sep='\\n')"
    python = "python" if IN_CHECKOUT else sys.executable
    package, configuration = map(Path, installation.run(python, "-c", code, cwd=tmp_path).splitlines())
    assert package.parent.samefile(installation.package)
    assert configuration.samefile(installation.package / "conf")


def test_the_console_script_composes_outside_a_checkout(installation, tmp_path):
    config = OmegaConf.create(installation.run("elslightning", "train", "--cfg", "job", cwd=tmp_path))
    assert config.verb == "train"
    assert config.data["_target_"] == "elslightning.ImageDataModule"
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_composes_outside_a_checkout(installation, tmp_path):
    config = OmegaConf.create(
        installation.run("elslightning", "train", "+sweep=data_size", "--cfg", "job", cwd=tmp_path)
    )
    assert config.sweep.x == "data.train_size"
    assert config.trainer.max_steps == 2400


def test_the_version_is_that_of_the_package(installation, tmp_path):
    assert installation.run("elslightning", "--version", cwd=tmp_path).strip() == elslightning.__version__
    assert version("elslightning") == elslightning.__version__
