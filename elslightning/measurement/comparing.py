"""Comparing: a network and the machines start from the same noise, and what they make of it is measured."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.doorway import doorway
from elslightning.diffusion.sampling import sample
from elslightning.diffusion.schedule import Schedule
from elslightning.diffusion.shapes import Bank, Images, Labels, Progress, no_progress
from elslightning.machines.registry import TRIVIAL, the_theory
from elslightning.measurement.agreement import agreement
from elslightning.measurement.comparison import FURTHER, Comparison, Source
from elslightning.measurement.consistency import consistency
from elslightning.measurement.handover import hand_over
from elslightning.measurement.names import NETWORK
from elslightning.measurement.novelty import nearest_ratio, outside
from elslightning.measurement.stepwise import at_states
from elslightning.measurement.trivial import KNOWN, beyond_trivial
from elslightning.system.errors import InputError
from elslightning.system.processes import ALONE, Processes, all_or_none


@doorway(denoiser="network", schedule="schedule", images="noise")
def compare(
    network: Denoiser,
    machines: Mapping[str, Denoiser],
    schedule: Schedule,
    *,
    steps: int,
    network_steps: int | Sequence[int],
    noise: Images,
    labels: Labels | None = None,
    skip: int = 0,
    batch_size: int = 64,
    bank: Bank | None = None,
    handover: Sequence[int] = (),
    stepwise: bool = False,
    progress: Progress = no_progress,
    processes: Processes = ALONE,
) -> Comparison:
    """Samples network and machines from the same noise and measures how well they agree (Tables 1 and 2).

    How well a second network agrees, of another seed or architecture, shows how much there is to predict at all. It
    takes as many steps as the network it is held against.

    Args:
        network: the denoiser to explain.
        machines: predictors by name: machines, and other networks; "is" is the baseline the others are held against.
        schedule: gives the noise levels.
        steps: steps of the machines' reverse process.
        network_steps: steps of the network's; several numbers give a comparison with each.
        noise: (pairs, channel, height, width), where every process starts.
        labels: (pairs,) int64, handed to whoever is conditional.
        skip: so many of the first times are left out of the machines' process, see `ddim`.
        batch_size: pairs sampled at once.
        bank: (N, channel, height, width) all training images, of which samples may be copies; None leaves out whether.
        handover: numbers of steps, below `steps`, after which the theory takes over from the network; see
            `elslightning.measurement.handover`.
        stepwise: whether all are also held against the network at its own states, see
            `elslightning.measurement.stepwise`.
        progress: told of every step.
        processes: each takes a share of the pairs, and all get the same result.

    Raises:
        InputError: if there is no machine or no pair, and for whatever network or machines do not take.
    """
    if not machines or not len(noise):
        raise InputError("a comparison needs at least one machine and one pair")
    counts = [network_steps] if isinstance(network_steps, int) else list(dict.fromkeys(network_steps))
    options: dict[str, Any] = {"batch_size": batch_size, "progress": progress}
    start, classes = processes.share(noise), None if labels is None else processes.share(labels)
    theory = {name: machine for name, machine in machines.items() if not machine.learned}
    with all_or_none(processes.group):
        truths = {
            count: sample(network, start, schedule, count, classes, what=f"network, {count} steps", **options)
            for count in counts
        }
        predictions = {
            name: sample(machine, start, schedule, steps, classes, skip=skip, what=f"{name}, {steps} steps", **options)
            for name, machine in theory.items()
        }
        # Machines that draw their candidates sample once more, with other draws: that tells their error.
        again = {name: replica for name, machine in theory.items() if (replica := getattr(machine, "replica", None))}
        replicas = {
            name: sample(
                machine, start, schedule, steps, classes, skip=skip, what=f"{name}, replica, {steps} steps", **options
            )
            for name, machine in again.items()
        }
        doubted: dict[str, Any] = {name: getattr(theory[name], "doubtful", None) for name in again}
        peers = {
            name: {
                count: sample(peer, start, schedule, count, classes, what=f"{name}, {count} steps", **options)
                for count in counts
            }
            for name, peer in machines.items()
            if peer.learned
        }
        shares = {
            (name, *source): found
            for name, machine in theory.items()
            if name not in TRIVIAL  # which have no patches that a pixel could be the centre of
            for source, found in _consistencies(
                name,
                machine,
                {(name, steps): predictions[name]} | {(NETWORK, count): truth for count, truth in truths.items()},
                classes,
                progress,
            )
        }
        levels, held = (
            at_states(network, machines, start, schedule, steps, classes, **options) if stepwise else (None, {})
        )
        heir = the_theory(theory)
        handed: dict[int, Tensor] = {}
        if handover and heir is not None:
            handed = hand_over(network, theory[heir], heir, start, schedule, steps, handover, classes, **options)

    def whole(part: Tensor) -> Tensor:
        return processes.join(part, len(noise))

    truths = {count: whole(part) for count, part in truths.items()}
    predictions = {name: whole(part) for name, part in predictions.items()}
    peers = {name: {count: whole(part) for count, part in parts.items()} for name, parts in peers.items()}
    replicas = {name: whole(part) for name, part in replicas.items()}
    doubtful = {
        name: float(whole(start.new_full((len(start),), share or 0.0).double()).mean())
        for name, share in doubted.items()
    }
    comparison = Comparison([], truths, predictions, labels, peers, replicas=replicas, doubtful=doubtful)
    trivial = [predictions[name] for name in KNOWN if name in predictions]
    everyone = [*truths.values(), *predictions.values(), *(part for parts in peers.values() for part in parts.values())]
    nearest = {} if bank is None else {id(images): nearest_ratio(images, bank) for images in everyone}
    for name in (*predictions, *peers):
        for count, truth in truths.items():
            columns = {"machine": name, "steps": count if name in peers else steps, "network_steps": count}
            images = comparison.samples(name, count)
            further = (
                beyond_trivial(images, truth, trivial) if len(trivial) == len(KNOWN) else None,
                nearest.get(id(images)),
                nearest.get(id(truth)),
                outside(truth),
            )
            measured = agreement(images, truth) | dict(zip(FURTHER, further, strict=True))
            comparison.rows.extend(_rows(labels, columns, measured))
    for (name, source, taken), found in shares.items():
        columns = {"machine": name, "source": source, "steps": taken}
        comparison.consistency.extend(_rows(labels, columns, {"consistency": whole(found)}))
    for after, r in handed.items():
        columns = {"machine": heir, "steps": steps, "after": after}
        comparison.handover.extend(_rows(labels, columns, {"pearson_r": whole(r)}))
    for name, measures in held.items():
        assert levels is not None
        for position, level in enumerate(levels.tolist()):
            columns = {"machine": name, "step": steps - position, "alpha_bar": level}
            measured = {measure: whole(values[position]) for measure, values in measures.items()}
            comparison.stepwise.extend(_rows(labels, columns, measured))
    return comparison


def _rows(
    labels: Labels | None, columns: Mapping[str, Any], measures: Mapping[str, Float[Tensor, " pairs"] | None]
) -> Iterator[dict[str, Any]]:
    """A row per pair: its number and label, `columns` that all share, and what was measured of it."""
    pairs = max(len(measured) for measured in measures.values() if measured is not None)
    values = zip(*([None] * pairs if one is None else one.tolist() for one in measures.values()), strict=True)
    classes = [None] * pairs if labels is None else labels.tolist()
    for pair, (label, measured) in enumerate(zip(classes, values, strict=True)):
        yield {"pair": pair, "label": label, **columns, **dict(zip(measures, measured, strict=True))}


def _consistencies(
    name: str, machine: Denoiser, samples: Mapping[Source, Images], labels: Labels | None, progress: Progress
) -> Iterator[tuple[Source, Float[Tensor, " pairs"]]]:
    """The consistency with a machine of samples from several sources, one after the other."""
    done = 0
    with machine.reporting(lambda fraction: progress(f"{name}, consistency", done + fraction, len(samples))):
        for source, images in samples.items():
            yield source, consistency(images, machine, labels)
            done += 1
            progress(f"{name}, consistency", done, len(samples))
