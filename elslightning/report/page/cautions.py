"""What a reader should know before believing a run's numbers, in plain words."""

from elslightning.measurement.doubts import doubts
from elslightning.runs.run import Run


def cautions(run: Run) -> list[str]:
    """All warnings about a run, each one or two sentences, the gravest first: its doubts."""
    return doubts(run.result, run.reference_steps, run.theories)
