"""What is installed with the package: versions within their bounds, and licences that allow everybody to use it."""

import re
from importlib.metadata import PackageNotFoundError, distribution, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.reliability

BOUNDED = {"lightning": "<2.7,>=2.6.4", "hydra-core": "<1.4,>=1.3.8", "wandb": "<1,>=0.19.10"}
"""Packages whose next versions may break what is built on them; and lightning 2.6.2 and 2.6.3 were malicious."""
COPYLEFT = re.compile(r"\b(A?GPL|GNU (Affero )?General Public)", re.IGNORECASE)


def needed(name: str, found: set[str]) -> set[str]:
    """The packages that one installs, and those that these install."""
    for line in requires(name) or []:
        requirement = Requirement(line)
        package = canonicalize_name(requirement.name)
        if package in found or (requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})):
            continue
        try:
            distribution(package)
        except PackageNotFoundError:
            continue
        found.add(package)
        needed(package, found)
    return found


def test_what_may_break_is_bounded():
    found = {
        requirement.name: str(requirement.specifier) for requirement in map(Requirement, requires("elslightning") or [])
    }
    assert {name: found[name] for name in BOUNDED} == BOUNDED
    assert not Requirement(f"lightning{BOUNDED['lightning']}").specifier.contains("2.6.3")


def licence(name: str) -> str:
    """What a package says of its licence."""
    metadata = distribution(name).metadata
    classifiers = [line for line in metadata.get_all("Classifier") or [] if line.startswith("License ::")]
    return " ".join([metadata.get("License-Expression") or "", (metadata.get("License") or "")[:200], *classifiers])


def test_no_package_that_users_get_is_copyleft():
    packages = needed("elslightning", set())
    assert {"torch", "lightning", "numba"} <= packages
    assert [name for name in sorted(packages) if COPYLEFT.search(licence(name).replace("LGPL", ""))] == []


@pytest.mark.parametrize("text", ["GPL-3.0-only", "GNU General Public License v3", "AGPL"])
def test_copyleft_would_be_seen(text):
    assert COPYLEFT.search(text)
