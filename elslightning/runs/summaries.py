"""Files `summary.json`: what one must be to be read."""

from pathlib import Path
from typing import Any

from elslightning.measurement.agreement import MEASURES
from elslightning.runs.layout import MOST
from elslightning.system.errors import InputError
from elslightning.system.files import read_json

INTERVAL = ("median", "low", "high")
"""What a summary says of a measure."""
MEDIANS = ("beyond_trivial", "difference", "sample_error", "replica_r", "corrected_r")
"""Measures beside `MEASURES` of which a summary says that, if they apply."""


def read_summary(path: Path) -> dict[str, Any]:
    """The content of a file `summary.json`; empty if there is none.

    Raises:
        InputError: naming the file, if it is not one that this program writes.
    """
    content = read_object(path)
    if "source" in content:
        if not _is_summary_of_samples(content):
            raise InputError(f"{path} is damaged: it is not the summary of a run of elslightning sample")
        return content
    if content and not isinstance(content.get("machines"), dict):
        raise InputError(f"{path} has no section machines")
    if content and not _is_summary(content):
        raise InputError(f"{path} is damaged: it lacks medians, or they are no numbers")
    return content


def _is_summary_of_samples(content: dict[str, Any]) -> bool:
    """Whether this is what `elslightning.measurement.result.Samples.write` writes; the consistency may be missing."""
    known = "consistency" in content
    shares = [_dict(content["consistency"]).get(part) for part in INTERVAL] if known else []
    return "machines" not in content and all(_is_number(share) for share in shares)


def _is_summary(content: dict[str, Any]) -> bool:
    """Whether this is what `elslightning.measurement.comparison.Comparison.summary` gives."""
    network, handover = content.get("network", {}), content.get("handover", {})
    if not isinstance(network, dict) or not isinstance(handover, dict):
        return False
    entries = [entry for by_steps in content["machines"].values() for entry in _values(by_steps)]
    medians = [_dict(entry).get(measure) for entry in entries for measure in MEASURES]
    named = [(name, part) for entry in entries for name, part in _dict(entry).items() if name not in MEASURES]
    medians += [part for name, part in named if name in MEDIANS and part is not None]
    medians += [part for by_steps in handover.values() for part in _values(by_steps)]
    numbers = [_dict(median).get(part) for median in medians for part in INTERVAL]
    numbers += [_dict(part).get("outside") for part in network.values()]
    shares = [part for name, part in named if name not in MEDIANS]
    shares += [_dict(part).get("memorised") for part in network.values()]
    counts = [content.get("pairs"), content.get("steps", 0) or 0]
    return (
        bool(entries)
        and all(_is_number(number) for number in numbers)
        and all(share is None or _is_number(share) for share in shares)
        and all(isinstance(count, int) and _is_number(count) for count in counts)
    )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _values(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) and value else [None]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST


def read_object(path: Path) -> dict[str, Any]:
    """The content of a file that holds a JSON object; empty if there is none."""
    if not path.is_file():
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a JSON object")
    return content
