"""calibrate, compare and sample: the verbs that measure a network that is there, by one process or several."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from elslightning.cli.arguments import follows
from elslightning.cli.chosen import (
    find_network,
    labels_for,
    losses_beside,
    sample_labels,
    scales_to_compare_with,
    source,
)
from elslightning.cli.expecting import expect
from elslightning.cli.preflight import Parts, check
from elslightning.cli.steps import bars, conclude, described, load, measurement_of, tell, warn_of
from elslightning.cli.together import together
from elslightning.cli.values import names_network
from elslightning.diffusion.sampling import sample as draw
from elslightning.diffusion.schedule import Schedule
from elslightning.measurement.consistency import consistency
from elslightning.measurement.doubts import doubts
from elslightning.measurement.result import Result, Samples
from elslightning.networks.adapter import ScheduledDenoiser
from elslightning.report import figures
from elslightning.runs.belonging import FILES, checksums
from elslightning.runs.layout import FIGURES
from elslightning.runs.paths import word_of
from elslightning.runs.provenance import write_record
from elslightning.runs.writing import write
from elslightning.system.keeping import KEPT, Kept
from elslightning.system.processes import all_or_none


def calibrate(cfg: DictConfig, directory: Path, parts: Parts) -> Result:
    """Calibrates every machine that has scales against the network of a checkpoint, or on held-out images alone."""
    network, parts, trained_on = _opened(cfg, parts)
    data = parts.data
    if network is None:
        labels, schedule = labels_for(data, cfg.conditional), parts.schedule
    else:
        labels, schedule = data.train_labels, network.schedule
    measurement = measurement_of(cfg, parts, keep=Kept(directory / KEPT))
    measurement.check(network, data.train_images, labels, schedule)
    with together(cfg, _again(directory)) as (device, processes):
        record = described(cfg, directory, data, device, trained_on)
        images = data.train_images
        if network is None:  # nothing else says where to work
            images = images.to(device)
        else:
            network.to(device)
        expect(cfg, measurement, network, data, labels, compared=False)
        result = measurement.calibrate(network, images, labels, schedule, bars(), processes)
    return _written(result, cfg, directory, record, measurement.comparison.schedule(schedule))


def compare(cfg: DictConfig, directory: Path, parts: Parts) -> Result:
    """Compares the machines with the network of a checkpoint."""
    network, parts, trained_on = _opened(cfg, parts)
    assert network is not None  # `check` refuses a comparison without one
    data = parts.data
    measurement = measurement_of(cfg, parts, scales_to_compare_with(cfg), Kept(directory / KEPT))
    with together(cfg, _again(directory)) as (device, processes):
        record = described(cfg, directory, data, device, trained_on)
        expect(cfg, measurement, network.to(device), data, data.train_labels, compared=True)
        result = measurement.run(network, data.train_images, data.train_labels, network.schedule, bars(), processes)
    result = replace(result, losses=losses_beside(cfg.checkpoint))
    return _written(result, cfg, directory, record, measurement.comparison.schedule(network.schedule))


def sample(cfg: DictConfig, directory: Path, parts: Parts) -> Samples:
    """Draws samples from a network or a machine, and measures the consistency of a machine's."""
    network, parts, trained_on = _opened(cfg, parts)
    data = parts.data
    denoiser = source(cfg, network, data, parts.machines)
    generator = torch.Generator().manual_seed(cfg.seed)
    noise = torch.randn(cfg.num_samples, *data.train_images.shape[1:], generator=generator)
    labels = sample_labels(cfg, denoiser, data)
    with together(cfg, _again(directory)) as (device, processes):
        record = described(cfg, directory, data, device, trained_on)
        denoiser = denoiser.to(device)
        with all_or_none(processes.group):
            classes = None if labels is None else processes.share(labels).to(device)
            samples = draw(
                denoiser,
                processes.share(noise).to(device),
                parts.schedule,
                cfg.steps,
                classes,
                what=f"sampling {cfg.source}",
                progress=bars(),
            )
            shares = None if denoiser.learned else consistency(samples, denoiser, classes)
        samples = processes.join(samples, cfg.num_samples)
        shares = None if shares is None else processes.join(shares, cfg.num_samples)
    drawn = Samples(cfg.source, cfg.steps, samples.cpu(), labels, shares)
    if not follows():
        write_record(directory, record)
        write(drawn, directory)
        figures.save(figures.first_samples(drawn.samples), directory / FIGURES / "samples.png")
    tell(drawn)
    return drawn


def _written(result: Result, cfg: DictConfig, directory: Path, record: dict[str, Any], schedule: Schedule) -> Result:
    """The result, after its files are written and what is doubtful about it is said; by the first process."""
    if follows():
        return result
    write_record(directory, record)
    written = write(result, directory)
    if result.comparison is None:  # there is no summary that could say what belongs together
        write_record(directory, record | {FILES: record[FILES] | checksums(written)})
    figures.save_all(figures.of_result(result, schedule), directory)
    Kept(directory / KEPT).clear()
    warn_of(doubts(result))
    conclude(result, cfg, directory)
    return result


def _again(directory: Path) -> str:
    """What to do after a measurement was stopped."""
    return f"give the same command again, with {word_of('hydra.run.dir', directory)}"


def _opened(cfg: DictConfig, parts: Parts) -> tuple[ScheduledDenoiser | None, Parts, str | None]:
    """The network of `checkpoint` or `network`, if one is named, and what `cfg`, completed by the run that made it,
    names then, its data loaded; and the checksum of the images it was trained on, see `find_network`."""
    network: ScheduledDenoiser | None = None
    trained_on: str | None = None
    if names_network(cfg):
        network, trained_on = find_network(cfg)
        parts = check(cfg, network)  # again, for the sections are those of the checkpoint now
        warn_of(parts.doubts)
    load(parts.data)
    return network, parts, trained_on
