"""What a measurement asks of the networks that are brought to it."""

import itertools

import torch
from torch import Tensor

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.shapes import AlphaBar, Images, Labels
from elslightning.system.errors import InputError
from elslightning.system.keeping import Kept, digest


def check_network(network: Denoiser, images: Tensor, labels: Tensor | None) -> None:
    """The network must take the images and every label.

    Raises:
        InputError: for a class-conditional network without labels, and whatever it does not take.
    """
    if network.conditional and labels is None:
        raise InputError("the network is class-conditional, but the data has no labels")
    # One image of the last class: the network refuses what does not fit it.
    last = slice(0, 1) if labels is None else labels.argmax()[None]
    device = next((parameter.device for parameter in network.parameters()), images.device)
    with torch.no_grad():
        network(
            images[last].to(device),
            torch.tensor([0.5], dtype=torch.float64),
            None if labels is None else labels[last].to(device),
        )


def check_peer(name: str, peer: Denoiser, network: Denoiser, images: Tensor, labels: Tensor | None) -> None:
    """Another network among the machines must take what the network takes; a machine always does.

    Raises:
        InputError: naming the one that does not.
    """
    if not peer.learned:
        return
    if peer.conditional != network.conditional:
        kind, other = ("class-conditional" if one.conditional else "unconditional" for one in (peer, network))
        raise InputError(f"machines.{name} is {kind}, but the network to compare it with is {other}")
    try:
        check_network(peer, images, labels)
    except InputError as error:
        raise InputError(f"machines.{name} does not fit the network to compare it with: {error}") from error


def device_of(network: Denoiser | None, images: Tensor) -> torch.device:
    """That of the network; a machine's is where its images are."""
    tensors = () if network is None else itertools.chain(network.parameters(), network.buffers())
    return next((tensor.device for tensor in tensors), images.device)


ROUNDED = 1e-3
"""The share of the greatest number by which two predictions of one network may differ."""


def repeats(device: torch.device) -> bool:
    """Whether a network gives the same numbers there again, bit for bit: elsewhere sums may run in any order."""
    return device.type == "cpu"


class RememberedNetwork(Denoiser):
    """A network whose predictions are kept: started anew, its samples are the same bit for bit, and so what machines
    made of them is found again.

    What a network computes is not in its weights alone: where what it says now is not what was kept, but for rounding,
    it is another, and nothing kept is its.

    Args:
        network: one that is not trained meanwhile.
        keep: where they are kept.
    """

    def __init__(self, network: Denoiser, keep: Kept) -> None:
        super().__init__()
        self.network, self.keep = network, keep
        self.conditional, self.prediction = network.conditional, network.prediction
        self.image_shape = network.image_shape
        schedule, levels = getattr(network, "schedule", None), torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
        times = None if schedule is None else schedule.time(levels)
        weights = itertools.chain(*network.state_dict().items())
        self._identity = digest([type(network).__qualname__, network.prediction, times, *weights])
        self._probed = False

    def forward(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None = None) -> Images:
        """The posterior mean of the network; arguments and errors as its own."""
        if not self._probed:
            half = torch.full_like(alpha_bar, 0.5)  # where it depends on all that it is made of
            now = self.network(x_t, half, labels)
            kept = self.keep((x_t, half, labels, self._identity), lambda: now)
            if not float((kept - now).abs().max()) <= ROUNDED * float(now.abs().max()):
                self._identity = digest((self._identity, now))
            self._probed = True
        return self.keep((x_t, alpha_bar, labels, self._identity), lambda: self.network(x_t, alpha_bar, labels))
