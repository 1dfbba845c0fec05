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


def repeats(device: torch.device) -> bool:
    """Whether a network gives the same numbers there again, bit for bit: elsewhere sums may run in any order."""
    return device.type == "cpu"


class RememberedNetwork(Denoiser):
    """A network whose predictions are kept: started anew, its samples are the same bit for bit, and so what machines
    made of them is found again.

    Args:
        network: one that is not trained meanwhile.
        keep: where they are kept.
    """

    def __init__(self, network: Denoiser, keep: Kept) -> None:
        super().__init__()
        self.network, self.keep = network, keep
        self.conditional, self.prediction, self.image_shape = (
            network.conditional,
            network.prediction,
            network.image_shape,
        )
        weights = network.state_dict()
        self.identity = digest(
            (type(network).__qualname__, *itertools.chain(*((n, weights[n]) for n in sorted(weights))))
        )

    def forward(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None = None) -> Images:
        """The posterior mean of the network; arguments and errors as its own."""
        parts = (x_t, alpha_bar, labels, self.identity)
        return self.keep(parts, lambda: self.network(x_t, alpha_bar, labels))
