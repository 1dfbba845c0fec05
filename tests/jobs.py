"""Jobs of a multirun as they lie in their directories, without running any."""

import csv
import json
from pathlib import Path

import torch
from omegaconf import OmegaConf

from elslightning.machines.scales import ScaleTable, save_scales
from elslightning.measurement.agreement import agreement
from elslightning.measurement.comparison import Comparison
from elslightning.runs.jobs import FINISHED, Job
from elslightning.system.files import write_json

RESNET = {"_target_": "elslightning.ResNet", "channels": "${data.channels}", "num_classes": 10, "width": 16}


def started(directory: Path, *overrides: str) -> Path:
    """What Hydra leaves of a job before it starts."""
    (directory / ".hydra").mkdir(parents=True)
    (directory / ".hydra" / "overrides.yaml").write_text(json.dumps(overrides))
    return directory


def finished(directory: Path, *overrides: str, objective: float | None = None) -> Job:
    job = Job(started(directory, *overrides), overrides, FINISHED, objective=objective, seconds=1.5)
    job.write()
    return job


def summary(shift: float) -> dict:
    """The summary of a comparison of noise with itself, and of other noise with it."""
    truth = torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    machines = {"bbels": truth, "is": truth + shift * truth.flip(0)}
    rows = []
    for name, images in machines.items():
        columns = {"label": None, "machine": name, "steps": 2, "network_steps": 2}
        values = {key: value.tolist() for key, value in agreement(images, truth).items()}
        rows += [{"pair": n, **columns, **{key: value[n] for key, value in values.items()}} for n in range(4)]
    return Comparison(rows, {2: truth}, machines, None).summary()


def job(directory: Path, layers: int, *, sweep: dict | None = None, results: bool = True) -> Path:
    """A finished job of a multirun over the depth of a network."""
    finished(directory, "+sweep=depth", f"denoiser.num_layers={layers}", objective=0.5)
    config = {"data": {"channels": 1}, "denoiser": {**RESNET, "num_layers": layers}}
    OmegaConf.save(
        OmegaConf.create(config | ({} if sweep is None else {"sweep": sweep})), directory / ".hydra/config.yaml"
    )
    write_json(directory / "summary.json", summary(layers) if results else {"samples": 3})
    if results:
        save_scales(directory / "scales.json", {"bbels": ScaleTable([0.9, 0.1], [3, 4 * layers + 1])})
        (directory / "receptive_field.csv").write_text(
            "step,alpha_bar,x0_size_50,x0_size_90,x0_size_99\n2,0.1,5,7,7\n1,0.9,1,3,5\n"
        )
        (directory / "metrics.csv").write_text(
            "step,val/loss,val/bbels/pearson_r_median,val/bbels/patch_size_mean\n5,1.5,,\n10,,0.5,4.0\n20,,0.75,5.0\n"
        )
    return directory


def rows(directory: Path) -> list[dict[str, str]]:
    """The table of a sweep."""
    with (directory / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))
