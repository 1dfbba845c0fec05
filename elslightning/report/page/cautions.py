"""What a reader should know before believing a run's numbers, in plain words."""

from elslightning.measurement.doubts import doubts
from elslightning.runs.provenance import other_data
from elslightning.runs.run import Run


def cautions(run: Run) -> list[str]:
    """All warnings about a run, each one or two sentences, the gravest first: its doubts, and other data."""
    changed = other_data(run.record)
    known = [] if changed is None else [changed]
    return [*known, *doubts(run.result, run.reference_steps, run.theories)]
