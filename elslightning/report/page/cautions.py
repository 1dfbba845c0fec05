"""What a reader should know before believing a run's numbers, in plain words."""

from collections.abc import Iterator

import torch

from elslightning.machines.parameters import PATCH_SIZE
from elslightning.measurement.alarms import alarms
from elslightning.measurement.calibration import capped
from elslightning.measurement.doubts import at_the_edge, overlapping, too_few
from elslightning.runs.run import Run
from elslightning.system.errors import InputError


def cautions(run: Run) -> list[str]:
    """All warnings about a run, each one or two sentences, the gravest first: its doubts."""
    pairs, steps = run.summary.get("pairs"), run.reference_steps
    values = {} if steps is None else {name: torch.from_numpy(run.values(name, steps)) for name in run.theories}
    return [
        *alarms(run.summary, run.losses),
        *(() if pairs is None else too_few(pairs)),
        *_edges(run),
        *(() if steps is None else overlapping(values, steps)),
    ]


def _edges(run: Run) -> Iterator[str]:
    for machine, calibration in run.calibrations.items():
        for name, column in run.scales[machine].columns.items():
            tried = sorted({setting[name] for setting in calibration.settings if name in setting})
            cap = run.setting("calibration.max_patch_size")
            if name == PATCH_SIZE and isinstance(cap, int):
                try:
                    tried = [*capped(calibration.patch_sizes, cap)]
                except InputError:
                    continue
            values = column.tolist()
            if set(values) <= set(tried):
                yield from at_the_edge(machine, values, tried, name)
