"""Attribution: which training patches a machine paints every pixel with, and how sure it is of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.doorway import doorway
from elslightning.diffusion.sampling import reverse_process
from elslightning.diffusion.schedule import Schedule
from elslightning.diffusion.shapes import AlphaBar, Images, Labels, Progress, no_progress
from elslightning.machines.candidates import Candidates, candidates
from elslightning.machines.chunks import Chunks
from elslightning.machines.compiling import COMPILING
from elslightning.machines.drawing import Drawing
from elslightning.machines.leading import CLEAREST
from elslightning.machines.machine import ScoreMachine
from elslightning.machines.memory import default_budget, fitting
from elslightning.machines.patches import PatchMachine
from elslightning.machines.ranking import Ranking, power_of, rank, ranking_bytes
from elslightning.machines.ranking_compiled import rank_compiled
from elslightning.system.errors import InputError

COMPILED = COMPILING
"""Whether float32 on a CPU takes the compiled loops; the torch path gives the same numbers."""


@dataclass(frozen=True)
class Attribution:
    """The training patches behind every pixel of a machine's posterior mean `x0(x) = Σ_c w_c value_c`.

    The candidates c of a pixel are those of its machine: for LS the patches at the pixel's own location, one of every
    training image; for bbELS those in its border class; for ELS those at all locations; for IS the training images,
    and for ES these at all circular shifts, the same for all pixels.

    Attributes:
        alpha_bar: (batch,) signal power in (0, 1).
        patch_size: (batch,) patch size of the machine at each noise level; 0 where it sees whole images.
        image: (batch, height, width, top) indices into the machine's whole bank, by descending weight; -1, with
            weight 0, where there are fewer candidates.
        row, column: (batch, height, width, top) the centre of the source patch in that image: the training pixel
            that is copied. -1 where there is none.
        weight: (batch, height, width, top) posterior probability of that patch among all candidates, in [0, 1].
        entropy: (batch, height, width) of the posterior over all candidates, in nats, at least 0.

    Candidates of equal weight come in the order of their distance from the pixel (around the border where the machine
    is circular), equally distant ones from the top, then from the left, and at the same place by their index in the
    bank: equal patches, such as those of an even background, are copied from the pixel's own place wherever they can.
    """

    alpha_bar: Float64[Tensor, " batch"]
    patch_size: Int64[Tensor, " batch"]
    image: Int64[Tensor, "batch height width top"]
    row: Int64[Tensor, "batch height width top"]
    column: Int64[Tensor, "batch height width top"]
    weight: Float[Tensor, "batch height width top"]
    entropy: Float[Tensor, "batch height width"]

    @property
    def effective(self) -> Float[Tensor, "batch height width"]:
        """The effective number of patches, `exp(entropy)`: from 1 to the number of candidates."""
        return self.entropy.exp()


@doorway(denoiser="machine", images="x_t")
@torch.no_grad()
def attribute(
    machine: Denoiser,
    x_t: Images,
    alpha_bar: AlphaBar,
    labels: Labels | None = None,
    *,
    top: int = 5,
    patch_size: int | None = None,
    prefer: Int64[Tensor, " batch"] | None = None,
    progress: Progress = no_progress,
) -> Attribution:
    """The most responsible training patches of every pixel of some noisy images.

    The weight of candidate c is `softmax_c(-‖window(x_t) - sqrt(alpha_bar) patch_c‖² / (2 (1 - alpha_bar)))`, as in
    the machine itself: with all candidates, `Σ weight · source pixel` is its posterior mean.

    A machine that draws (`accuracy`) does not go through all candidates but at nearly no noise (alpha_bar above .997):
    see `elslightning.machines.leading`. What is named are the nearest of all that it looked at, often not the nearest
    of all (docs/performance.md says how often); of equal patches those at the pixel's own place need not be among them.
    Weights are relative to an estimate of the whole, and the entropy is one. Where few are candidates, all is exact.

    Args:
        machine: a score machine, with the whole bank on this process.
        x_t: (batch, channel, height, width), any images: noisy ones, or samples taken for noisy ones.
        alpha_bar: (batch,) float64 in (0, 1), the noise level to see each image at.
        labels: (batch,) int64, given exactly when the machine is conditional.
        top: how many patches to name, at least 1.
        patch_size: instead of the machine's own; odd, positive.
        prefer: (batch,) for each image a training image that comes first among equals at the same place, of those
            that count for its label; others are not preferred.
        progress: told the number of images done.

    Raises:
        InputError: for a network or a sharded bank, top < 1, pixels that are not finite, and whatever the machine does
            not take.

    Returns:
        On the CPU.

    >>> from elslightning.machines import LocalScoreMachine
    >>> black_white = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1).repeat(1, 1, 4, 4)
    >>> levels = torch.tensor([0.9], dtype=torch.float64)
    >>> found = attribute(LocalScoreMachine(black_white, scales=3), black_white[1:], levels, top=2)
    >>> found.image[0, 2, 1].tolist(), found.row[0, 2, 1].tolist(), found.column[0, 2, 1].tolist()
    ([1, 0], [2, 2], [1, 1])
    """
    bank = check_attributable(machine, top)
    bank.check_inputs(x_t, alpha_bar, labels)
    sizes = _patch_sizes(bank, alpha_bar, patch_size)
    batch, _, height, width = x_t.shape
    classes = torch.zeros(batch, dtype=torch.int64) if labels is None else labels.cpu()
    first = torch.full((batch,), -1) if prefer is None else prefer.cpu()
    keys = torch.stack([classes, sizes, first], dim=1)  # (batch, 3)
    sources = torch.empty((3, batch, height, width, top), dtype=torch.int64)
    weight, entropy = torch.empty((batch, height, width, top)), torch.empty((batch, height, width))
    done = 0

    def tell(fraction: float) -> None:
        progress("attribution", done + fraction, batch)

    drawn = (alpha_bar.cpu() <= CLEAREST) & (isinstance(bank, Drawing) and bank.draws)
    keys[drawn, 2] = -1  # the candidates are the same whatever is preferred
    keys = torch.cat([keys, drawn[:, None]], dim=1)
    for key in keys.unique(dim=0):
        label, size, preferred, draws = key.tolist()
        group = (keys == key).all(dim=1).nonzero()[:, 0]
        if isinstance(bank, Drawing) and draws:

            def tick(fraction: float, count: int = len(group)) -> None:
                tell(fraction * count)

            queries, levels = x_t[group.to(x_t.device)], alpha_bar.cpu()[group]
            led = bank.leading(queries, levels, None if labels is None else label, size, top, first[group], tick)
            sources[:, group] = torch.stack([led.image, led.row, led.column])
            weight[group], entropy[group] = led.weight.float(), led.entropy.float()
            done += len(group)
            continue
        budget = (bank.memory_budget or default_budget(x_t.device)) // 2
        chunks = bank.bank(label, budget, first=preferred)
        found = candidates(height, width, size, pooled=bank.pooled, padding_mode=bank.padding_mode)
        for part, ranking in _rankings(x_t, alpha_bar.cpu(), group, chunks, found, top, tell):
            power = power_of(alpha_bar.cpu()[part], ranking.weight.device)
            probability, nats = ranking.posterior(power)
            weight[part], entropy[part] = probability.float().cpu(), nats.float().cpu()
            sources[:, part] = ranking.sources(chunks.members.cpu(), found, height, width)
            done += len(part)
    image, row, column = sources
    return Attribution(alpha_bar.cpu(), sizes, image, row, column, weight, entropy)


def check_attributable(machine: Denoiser, top: int = 1) -> ScoreMachine:
    """The machine, if its images can be attributed.

    Raises:
        InputError: for a network, a bank that is shared out over processes, or top < 1.
    """
    if not isinstance(machine, ScoreMachine):
        raise InputError(f"attribution needs a machine with a bank of training images, not {type(machine).__name__}")
    if not machine.attributable:
        raise InputError(
            f"attribution needs a machine that copies single patches, which {type(machine).__name__} is not"
        )
    if machine.process_group is not None:
        raise InputError("attribution needs the whole bank on one process, not a shard of it")
    if top < 1:
        raise InputError(f"attribution names at least 1 patch per pixel, not {top}")
    return machine


def _patch_sizes(machine: ScoreMachine, alpha_bar: AlphaBar, patch_size: int | None) -> Tensor:
    """The patch size for each noise level, (batch,) on the CPU."""
    if patch_size is None:
        return machine.patch_size_at(alpha_bar).cpu()
    if not isinstance(machine, PatchMachine):
        raise InputError(f"{type(machine).__name__} sees whole images: it takes no patch size")
    machine.check_patch_size(patch_size)
    return torch.full(alpha_bar.shape, patch_size)


def _rankings(
    x_t: Images,
    alpha_bar: AlphaBar,
    group: Tensor,
    bank: Chunks,
    found: Candidates,
    top: int,
    tell: Callable[[float], None],
) -> Iterator[tuple[Tensor, Ranking]]:
    """The rankings of the images of `group`, which share their candidates, in parts that fit into the memory budget."""
    at_once = fitting(bank.budget, ranking_bytes(x_t, found, top), len(group), "one noisy image")
    for part in group.split(at_once):

        def tick(fraction: float, count: int = len(part)) -> None:
            tell(fraction * count)

        chunks = bank.telling(tick)
        queries, levels = x_t[part.to(x_t.device)], alpha_bar[part]
        if COMPILED and x_t.device.type == "cpu" and x_t.dtype == torch.float32:
            yield part, rank_compiled(queries, levels, chunks, found, top, torch.get_num_threads())
        else:
            yield part, rank(queries, levels, chunks, found, top)


@dataclass(frozen=True)
class ProcessAttribution:
    """The attributions along a reverse process, from t = 1 down, one per step.

    Attributes:
        steps: what every state x_t owes to the training images, at its own noise level.
        samples: (batch, channel, height, width), where the process ends.
    """

    steps: list[Attribution]
    samples: Images

    @property
    def alpha_bar(self) -> Float64[Tensor, " steps"]:
        """(steps,) noise levels, from t = 1 down."""
        return torch.stack([step.alpha_bar[0] for step in self.steps])

    def settled(self) -> Float64[Tensor, "steps batch"]:
        """The share of pixels whose first source (image, row and column) is already that of the last step.

        From 0 to 1, and 1 at the last step.
        """
        last = self.steps[-1]
        return torch.stack([_same_source(step, last).double().flatten(1).mean(dim=1) for step in self.steps])

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row per step and sample, for a CSV; `step` counts down from the number of steps to 1."""
        settled = self.settled()
        for index, step in enumerate(self.steps):
            for sample in range(len(step.alpha_bar)):
                yield {
                    "step": len(self.steps) - index,
                    "alpha_bar": step.alpha_bar[sample].item(),
                    "patch_size": int(step.patch_size[sample]),
                    "sample": sample,
                    "settled": settled[index, sample].item(),
                    "first_weight_median": step.weight[sample, ..., 0].quantile(0.5).item(),
                    "effective_median": step.effective[sample].quantile(0.5).item(),
                }


def _same_source(a: Attribution, b: Attribution) -> Tensor:
    """Where two attributions name the same patch first, (batch, height, width)."""
    fields = ((a.image, b.image), (a.row, b.row), (a.column, b.column))
    return torch.stack([x[..., 0] == y[..., 0] for x, y in fields]).all(dim=0)


@doorway(denoiser="machine", schedule="schedule", images="noise")
def attribute_process(
    machine: Denoiser,
    noise: Images,
    schedule: Schedule,
    steps: int,
    labels: Labels | None = None,
    *,
    denoiser: Denoiser | None = None,
    top: int = 5,
    progress: Progress = no_progress,
) -> ProcessAttribution:
    """What the machine attributes the states of a reverse process to, step by step.

    Args:
        machine: as in `attribute`.
        noise: (batch, channel, height, width), the state at t = 1.
        schedule: gives the noise levels.
        steps: of the process, at least 1.
        labels: (batch,) int64, used by whichever denoiser is conditional.
        denoiser: whose process it is, for instance a network's; the machine's own if not given.
        top: how many patches to name, at least 1.
        progress: told of steps and parts of them.

    Raises:
        InputError: as `attribute` and `sampling.ddim`.
    """
    check_attributable(machine, top)
    guide = machine if denoiser is None else denoiser
    classes, samples = machine.select_labels(labels), noise
    found: list[Attribution] = []

    def tell(what: str, done: float, total: float) -> None:
        progress(what, len(found) + done / total, steps)

    for step in reverse_process(guide, noise, schedule, steps, labels):
        level = step.alpha_bar.expand(len(noise))
        found.append(attribute(machine, step.x_t, level, classes, top=top, progress=tell))
        samples = step.following
    return ProcessAttribution(found, samples)
