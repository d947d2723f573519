"""A small segmentation net: the use that synthetic micrographs with masks are made for."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from generators.micrograph_fidelity import standardised
from microstructures import Microstructure
from microstructures.micrographs import GREY
from microstructures.seeds import derive_seed, generator_for
from networks import UNet

WIDTHS, CROP, BATCH, RATE = (12, 24, 36), 64, 8, 3e-3


class Segmenter(nn.Module):
    """A U-Net (Ronneberger et al. 2015) from standardised grey to logits of the phases."""

    def __init__(self, n_phases: int, dim: int) -> None:
        super().__init__()
        self.unet = UNet(
            in_channels=1,
            out_channels=n_phases,
            widths=WIDTHS,
            blocks=1,
            condition=1,
            periodic=[False] * dim,
        )

    def forward(self, grey: Float[Tensor, "batch *space"]) -> Float[Tensor, "batch phase *space"]:
        return self.unet(grey[:, None], grey.new_zeros(len(grey), 1))


def train_segmenter(
    pictures: Sequence[Microstructure], *, n_phases: int, steps: int, seed: int
) -> Segmenter:
    """Train on image and mask pairs of one shape, windows drawn and mirrored at random.

    Brightness and contrast vary by a fifth from window to window, as is usual for micrographs.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "segmenter"))
        net = Segmenter(n_phases, len(pictures[0].shape))
    grey, labels = _stacked(pictures)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE)
    for step in range(steps):
        generator = generator_for(seed, "segmenter", step)
        x, y = _windows(grey, labels, generator)
        loss = F.cross_entropy(net(x), y)
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


@torch.no_grad()
def intersections_over_unions(
    net: Segmenter, pictures: Sequence[Microstructure]
) -> Float[np.ndarray, " phase"]:
    """Return the intersection over union of each phase, over all voxels of the pictures."""
    grey, labels = _stacked(pictures)
    found = torch.cat([net(g[None]).argmax(1) for g in grey])
    scores = []
    for phase in range(pictures[0].n_phases):
        both = ((found == phase) & (labels == phase)).sum()
        either = ((found == phase) | (labels == phase)).sum()
        scores.append(float(both) / max(float(either), 1.0))
    return np.array(scores)


def _stacked(pictures: Sequence[Microstructure]) -> tuple[Tensor, Tensor]:
    grey = np.stack([standardised(p.channels[GREY]) for p in pictures]).astype(np.float32)
    return torch.from_numpy(grey), torch.from_numpy(np.stack([p.phases for p in pictures])).long()


def _windows(grey: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    rows = torch.randint(len(grey), (BATCH,), generator=generator)
    draws = torch.rand(BATCH, 2 * (grey.ndim - 1) + 2, generator=generator)
    xs, ys = [], []
    for row, draw in zip(rows.tolist(), draws.tolist(), strict=True):
        x, y = grey[row], labels[row]
        for axis in range(x.ndim):
            side = min(CROP, x.shape[axis])
            start = int(draw[2 * axis] * (x.shape[axis] - side + 1))
            x, y = x.narrow(axis, start, side), y.narrow(axis, start, side)
            if draw[2 * axis + 1] < 0.5:
                x, y = x.flip(axis), y.flip(axis)
        xs.append(x * (0.8 + 0.4 * draw[-1]) + 0.4 * (draw[-2] - 0.5))
        ys.append(y)
    return torch.stack(xs), torch.stack(ys)
