"""Multiruns: where the sweeps are, a job that fails without stopping the others, and how a multirun ends."""

import math
import shlex
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from elslightning.cli.arguments import follows
from elslightning.cli.composing import sweeps_dir
from elslightning.runs.configuration import key_of
from elslightning.system.errors import ElslightningError, InputError, LaunchError
from elslightning.system.locking import Locks
from elslightning.system.signals import stop_behind

SWEEP_DIR = "hydra.sweep.dir"
_refusals: set[str] = set()
"""Why jobs of this multirun were refused: what is common to many is said once."""


class SweepsPath(SearchPathPlugin):
    """Lets Hydra find the config group `sweep`."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="elslightning", path=f"file://{sweeps_dir() / 'hydra'}")


def register() -> None:
    """Makes `+sweep=NAME` known to Hydra."""
    Plugins.instance().register(SweepsPath)
    _refusals.clear()


def run_job(
    run: Callable[[], float | None],
    directory: Path,
    *,
    debugging: bool = False,
    put_back: Callable[[], None] = lambda: None,
) -> float | None:
    """Runs a job of a multirun, unless it is finished; a failure is written down and printed, not raised.

    Hydra has written the job's `.hydra/` already. Where several processes do the job together, the first one writes.

    Args:
        run: does it; returns what sweepers may maximise.
        directory: the job's.
        debugging: print the tracebacks of failures.
        put_back: restores the `.hydra/` of a job that is not done.

    Returns:
        What `run` returned, now or then; NaN if it failed.

    Raises:
        LaunchError: for what keeps all jobs from being run as they were started.
    """
    from elslightning.runs.jobs import FAILED, FINISHED, Job, read_job  # imports torch: not needed for help
    from elslightning.runs.layout import JOB

    earlier = read_job(directory)
    if earlier.status == FINISHED:
        print(f"job {directory.name} is finished already")
        put_back()
        return earlier.objective
    job, first = Job(directory, earlier.overrides), not follows()
    if first:
        try:
            Locks.take(directory)
        except InputError as error:  # whoever works there writes down how it ends
            print(f"elslightning: error: {error}", file=sys.stderr)
            put_back()
            return math.nan
        (directory / JOB).unlink(missing_ok=True)
        print(f"job {directory.name}: {' '.join(job.overrides)}")
    start = time.monotonic()
    try:
        objective = run()
    except LaunchError:
        raise
    except Exception as error:
        if (stop := stop_behind(error)) is not None:
            raise stop from error
        refused = isinstance(error, InputError)
        named = str(error) if isinstance(error, ElslightningError) else f"{type(error).__name__}: {error}"
        reason = " ".join(named.split())
        if debugging:
            traceback.print_exc()
        if first:
            said = "refused as a job before was" if reason in _refusals else reason
            print(f"elslightning: error: {said}", file=sys.stderr)
            _refusals.update([reason] if refused else [])
        job = replace(job, status=FAILED, error=reason, refused=refused)
        objective = math.nan
    else:
        job = replace(job, status=FINISHED, objective=objective)
    if first:
        replace(job, seconds=round(time.monotonic() - start, 3)).write()
        Locks.release(directory)
    return objective


def how_to_go_on(directory: str | Path) -> str:
    """What to do after the multirun of a directory was stopped: its jobs that are finished are not done again."""
    given = any(key_of(word) == SWEEP_DIR for word in sys.argv[1:])
    there = "" if given else f" and {shlex.quote(f'{SWEEP_DIR}={Path(directory).absolute()}')}"
    return f"go on with the same command{there}: jobs that are finished are not done again"


def conclude(directory: str | Path) -> int:
    """Writes the report of a multirun and says what is in it; returns the exit code: 1 if a job is not finished, 2 if
    all those were refused because of their input."""
    from elslightning.report.sweep import report
    from elslightning.runs.jobs import lost, unfinished  # imports torch: not needed for help

    try:
        found = report(directory)
    except (InputError, OSError) as error:
        print(f"elslightning: error: there is no report of {directory}: {error}", file=sys.stderr)
        return 1
    print(found.text())
    missing = unfinished(found.jobs)
    if missing:
        print(f"elslightning: error: {lost(found.jobs)}", file=sys.stderr)
    return 0 if not missing else 2 if all(job.refused for job in missing) else 1
