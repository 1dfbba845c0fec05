"""Canvas: a local, equivariant machine on images of another size than its training images."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.shapes import AlphaBar, Images, Labels
from elslightning.machines.patches import PatchMachine
from elslightning.system.errors import InputError


class Piece(NamedTuple):
    """A stretch of a side of the canvas that is as long as a training image's, and what of it is right.

    Attributes:
        source: (side,) position in the canvas; -1 beyond it.
        take: positions in the piece whose windows see what they see in the canvas.
        start: where these begin in the canvas.
    """

    source: Tensor
    take: slice
    start: int

    @property
    def place(self) -> slice:
        """Where what is taken lies in the canvas."""
        return slice(self.start, self.start + self.take.stop - self.take.start)


def pieces(length: int, side: int, margin: int, padding_mode: str) -> list[Piece]:
    """How the machine's own size covers a side of the canvas.

    A pixel is right in a piece whose ends are no nearer than the margin, but for an end that is the border of the
    canvas itself: there it sees the border as a training image's pixel does. Interior pixels of the canvas find their
    candidates among all interior pixels, as those of a piece do.

    Args:
        length: pixels of the canvas.
        side: pixels of the training images.
        margin: how far a pixel sees.
        padding_mode: "zeros", or "circular": the canvas is a torus.

    Raises:
        InputError: for a canvas smaller than the window, and a window that leaves no interior of the training images.

    >>> [(piece.take, piece.start) for piece in pieces(9, 5, 1, "zeros")]
    [(slice(0, 4, None), 0), (slice(1, 4, None), 4), (slice(3, 5, None), 7)]
    """
    along = torch.arange(side)
    if length == side or (margin == 0 and length < side):
        return [Piece(torch.where(along < length, along, -1), slice(0, length), 0)]
    window = 2 * margin + 1
    if length < window:
        raise InputError(f"a canvas of {length} pixels is smaller than the window of {window}")
    if side < window:
        raise InputError(
            f"a window of {window} pixels leaves no interior of images of {side}; a canvas of {length} needs it"
        )
    inner, found = side - 2 * margin, []
    if padding_mode == "circular":
        for start in range(0, length, inner):
            stop = margin + min(inner, length - start)
            found.append(Piece((along + start - margin) % length, slice(margin, stop), start))
        return found
    if length < side:
        first = Piece(torch.where(along < length, along, -1), slice(0, length - margin), 0)
        rest = along - (side - length)
        return [first, Piece(rest.clamp(min=-1), slice(side - margin, side), length - margin)]
    found.append(Piece(along, slice(0, side - margin), 0))
    while (done := found[-1].place.stop) < length:
        offset = min(done - margin, length - side)
        last = offset == length - side
        found.append(Piece(along + offset, slice(done - offset, side if last else side - margin), done))
    return found


class Cut(NamedTuple):
    """A canvas in pieces of the machine's own size, and the way back."""

    rows: list[Piece]
    columns: list[Piece]

    def _pairs(self) -> Iterator[tuple[Piece, Piece]]:
        return ((down, across) for down in self.rows for across in self.columns)

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def apart(self, images: Tensor) -> Tensor:
        """All pieces, (pieces · batch, channel, height, width): the batch of the first, then that of the second."""
        found = []
        for down, across in self._pairs():
            part = images[:, :, down.source.clamp(min=0)][..., across.source.clamp(min=0)]
            seen = (down.source >= 0)[:, None] & (across.source >= 0)
            found.append(part.where(seen.to(part.device), torch.zeros((), dtype=part.dtype, device=part.device)))
        return torch.cat(found)

    def together(self, parts: Tensor) -> Tensor:
        """The canvas (batch, …, height, width) of what was found in its pieces (pieces · batch, …, height, width)."""
        batch = len(parts) // len(self)
        size = (self.rows[-1].place.stop, self.columns[-1].place.stop)
        whole = parts.new_empty((batch, *parts.shape[1:-2], *size))
        for (down, across), part in zip(self._pairs(), parts.split(batch), strict=True):
            whole[..., down.place, across.place] = part[..., down.take, across.take]
        return whole


class Canvas(Denoiser):
    """A machine whose candidates lie at all locations, on a canvas of any size and aspect.

    bbELS finds the candidates of a pixel by how its window overlaps the border, so a canvas has the corners and edges
    of the training images and more, or less, of their interior; ELS makes a torus of it. Both are exact: the canvas is
    cut into overlapping pieces of the training images' size, and of each piece those pixels are taken whose windows see
    what they see in the canvas. On a canvas of the training images' size it is the machine itself.

    Args:
        machine: a patch machine; for other sizes than its own it must be pooled.
    """

    def __init__(self, machine: PatchMachine) -> None:
        super().__init__()
        self.machine = machine
        self.conditional = machine.conditional
        self.image_shape = (machine.images.shape[1], None, None)

    def cut(self, height: int, width: int, patch_size: int) -> Cut:
        """How a canvas is cut for a patch size.

        Raises:
            InputError: for a canvas smaller than the window, a window without an interior in the training images, and
                another size than theirs if the machine's candidates are bound to their places.
        """
        machine = self.machine
        sides = machine.images.shape[2:]
        if not machine.pooled and (height, width) != tuple(sides):
            raise InputError(
                f"{type(machine).__name__} copies from the pixel's own place: it has none on a canvas of "
                f"{height} x {width} beside images of {sides[0]} x {sides[1]}"
            )
        # A response paints with what the locations around a pixel see.
        margin = (patch_size // 2) * (1 if machine.attributable else 2)
        rows, columns = (
            pieces(length, side, margin, machine.padding_mode)
            for length, side in zip((height, width), sides, strict=True)
        )
        return Cut(rows, columns)

    def check_canvas(self, height: int, width: int, alpha_bar: AlphaBar) -> None:
        """Raises InputError unless there can be such a canvas at all these noise levels."""
        for size in self.machine.patch_size_at(alpha_bar).unique().tolist():
            self.cut(height, width, size)

    @torch.no_grad()
    def forward(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None = None) -> Images:
        """The posterior mean; arguments and errors as in `Denoiser.forward` and `cut`."""
        self.check_inputs(x_t, alpha_bar, labels)
        sizes, result = self.machine.patch_size_at(alpha_bar), torch.empty_like(x_t)
        for size in sizes.unique().tolist():
            group = (sizes == size).nonzero()[:, 0].to(x_t.device)
            cut = self.cut(x_t.shape[2], x_t.shape[3], size)
            classes = None if labels is None else labels[group].repeat(len(cut))
            levels = alpha_bar[group.to(alpha_bar.device)].repeat(len(cut))
            with self.machine.reporting(self.on_progress):
                found = self.machine(cut.apart(x_t[group]), levels, classes)
            result[group] = cut.together(found)
        return result
