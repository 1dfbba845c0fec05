"""The jobs of a multirun: what each leaves in its directory, so that finished ones are known again.

A comparison while training writes summary.json long before the job ends, so that file alone does not show that a job
is finished: `job.json`, written last, does.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elslightning.runs.belonging import read_sealed, sealed
from elslightning.runs.configuration import key_and_value
from elslightning.runs.layout import JOB, OVERRIDES, SUMMARY
from elslightning.runs.run import read_overrides
from elslightning.system.errors import InputError
from elslightning.system.files import write_json

FINISHED, FAILED, UNFINISHED = "finished", "failed", "unfinished"


@dataclass(frozen=True)
class Job:
    """A job of a multirun.

    Attributes:
        directory: where its files are.
        overrides: `key=value` as composed for this job.
        status: "finished", "failed" or "unfinished".
        error: why it failed, in one line.
        refused: whether it failed because its input cannot be worked with.
        objective: what a sweeper may maximise; None without a comparison.
        seconds: how long it took.
    """

    directory: Path
    overrides: tuple[str, ...]
    status: str = UNFINISHED
    error: str | None = None
    refused: bool = False
    objective: float | None = None
    seconds: float | None = None

    def values(self) -> dict[str, str]:
        """What the overrides set, by key, but for the choice of the sweep itself."""
        pairs = map(key_and_value, self.overrides)
        return {key: value for key, value in pairs if key != "sweep"}

    def write(self) -> None:
        """Writes `job.json`."""
        content: dict[str, Any] = {"status": self.status, "overrides": list(self.overrides), "error": self.error}
        content |= {"refused": self.refused, "objective": self.objective, "seconds": self.seconds}
        write_json(self.directory / JOB, sealed(content))


def read_job(directory: str | Path) -> Job:
    """The job whose directory this is.

    It is finished if its record says so, the record's overrides are those that Hydra has composed last for this
    directory, and the summary is still there if there was one.
    """
    directory = Path(directory)
    try:
        asked = read_overrides(directory)
    except InputError as error:
        return Job(directory, (), error=str(error))
    try:
        job = _recorded(directory, read_sealed(directory / JOB))
    except (KeyError, TypeError):
        return Job(directory, tuple(asked or ()))
    except InputError as error:
        return Job(directory, tuple(asked or ()), error=str(error))
    overrides = list(job.overrides)
    lacks_summary = job.objective is not None and not (directory / SUMMARY).is_file()
    if (asked is not None and asked != overrides) or (job.status == FINISHED and lacks_summary):
        return Job(directory, tuple(overrides if asked is None else asked))
    return job


def _recorded(directory: Path, record: Any) -> Job:
    """The job of a `job.json`; KeyError or TypeError if that holds something else."""
    status, overrides, error = record["status"], record["overrides"], record["error"]
    numbers = record["objective"], record["seconds"]
    if status not in (FINISHED, FAILED, UNFINISHED) or not isinstance(overrides, list):
        raise TypeError
    if not isinstance(error, str | None) or not all(isinstance(number, int | float | None) for number in numbers):
        raise TypeError
    return Job(directory, tuple(map(str, overrides)), status, error, bool(record["refused"]), *numbers)


def find_jobs(directory: str | Path) -> list[Job]:
    """The jobs below the directory of a multirun, in the order of their numbers.

    Raises:
        InputError: if there are none.
    """
    directory = Path(directory)
    found = {path.parent.parent for path in directory.rglob(OVERRIDES)}
    found |= {path.parent for path in directory.rglob(JOB)}
    found.discard(directory)
    if not found:
        raise InputError(f"{directory} holds no run of a multirun")
    return [read_job(path) for path in sorted(found, key=_natural)]


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts 10 after 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def varied(jobs: list[Job]) -> list[str]:
    """The keys that have more than one value among the jobs, in the order of the overrides."""
    values: dict[str, set[str | None]] = {key: set() for job in jobs for key in job.values()}
    for job in jobs:
        for key, seen in values.items():
            seen.add(job.values().get(key))
    return [key for key, seen in values.items() if len(seen) > 1]


def unfinished(jobs: list[Job]) -> list[Job]:
    """The jobs without results."""
    return [job for job in jobs if job.status != FINISHED]


def lost(jobs: list[Job]) -> str:
    """Which jobs are without results, and why, in one line; what is the same for several is said once."""
    keys, missing = varied(jobs), unfinished(jobs)
    reasons: dict[str, list[str]] = {}
    for job in missing:
        reasons.setdefault(job.error or job.status, []).append(_describe(job, keys))
    alike = len(reasons) == 1 and len(missing) == len(jobs) > 1
    said = [f"{'all of them' if alike else ', '.join(names)}: {reason}" for reason, names in reasons.items()]
    return f"{len(missing)} of {len(jobs)} jobs did not finish: {'; '.join(said)}"


def _describe(job: Job, keys: list[str]) -> str:
    """The name of a job's directory, and what sets it apart."""
    values = job.values()
    apart = " ".join(f"{key}={values[key]}" for key in keys if key in values)
    return f"{job.directory.name} ({apart})" if apart else job.directory.name
