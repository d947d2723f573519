"""Voxels that are given: kept exactly, and the surroundings brought in line with them."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Integer
from torch import Tensor

from microstructures import DataError, Microstructure

FREE = -1  # label of a voxel that is not given
# Amplitude of given voxels in the denoiser's input per unit of noise, chosen so that interfaces
# are as dense across the border of a given window as inside it (1.0: 18 % more, 1.5: 8 % less).
CLARITY = 1.25
CERTAIN = 60.0  # logit of a given phase: softmax is one-hot in float32, offsets cannot turn it


def place_window(
    window: Microstructure | Integer[np.ndarray, "*window"],
    shape: Sequence[int],
    *,
    corner: Sequence[int] | None = None,
) -> Int[Tensor, "*space"]:
    """Return given voxels of a larger volume: a measured window in it, everything else free.

    Args:
        window: Labels or a microstructure.
        shape: Voxels of the volume along each axis.
        corner: First voxel of the window; the middle of the volume when None.

    Raises:
        DataError: The window does not fit.
    """
    labels = window.phases if isinstance(window, Microstructure) else np.asarray(window)
    if corner is None:
        corner = [(s - w) // 2 for s, w in zip(shape, labels.shape, strict=False)]
    sides = (len(shape), len(corner))
    if sides != (labels.ndim, labels.ndim) or any(
        c < 0 or c + w > s for c, w, s in zip(corner, labels.shape, shape, strict=True)
    ):
        raise DataError(
            f"expected a window that fits into shape {tuple(shape)}, got one of {labels.shape} at "
            f"{tuple(corner)}"
        )
    given = torch.full(tuple(shape), FREE, dtype=torch.int64)
    where = tuple(slice(c, c + w) for c, w in zip(corner, labels.shape, strict=True))
    given[where] = torch.from_numpy(labels.astype(np.int64))
    return given


def check_given(
    given: Tensor | np.ndarray | None, shape: Sequence[int], n_phases: int
) -> Int[Tensor, "*space"] | None:
    """Return given voxels as int64 labels, -1 where free; None when all are free.

    Raises:
        DataError: The shape differs from the sample's, or labels are not phases.
    """
    if given is None:
        return None
    labels = torch.as_tensor(given)
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if not whole or tuple(labels.shape) != tuple(shape):
        raise DataError(
            f"expected given voxels as whole-number labels of shape {tuple(shape)}, got "
            f"{labels.dtype} of shape {tuple(labels.shape)}; use place_window for a smaller window"
        )
    labels = labels.long()
    if labels.min() < FREE or labels.max() >= n_phases:
        raise DataError(
            f"expected given labels from 0 to {n_phases - 1}, or -1 where free, got "
            f"{int(labels.min())} to {int(labels.max())}"
        )
    return labels if bool((labels >= 0).any()) else None


def pin_given(
    logits: Float[Tensor, "batch phase *space"], given: Int[Tensor, "*space"] | None
) -> Float[Tensor, "batch phase *space"]:
    """Return logits that are certain of the given voxels and unchanged at the others."""
    if given is None:
        return logits
    one_hot = F.one_hot(given.clamp_min(0), logits.shape[1]).movedim(-1, 0).to(logits.dtype)
    return torch.where(given >= 0, CERTAIN * (2 * one_hot - 1), logits)


def show_given(
    x: Float[Tensor, "batch phase *space"], given: Int[Tensor, "*space"] | None, sigma: float
) -> Float[Tensor, "batch phase *space"]:
    """Return a noisy image in ±1 whose given voxels stand out clearly, as a denoiser's input.

    Given voxels carry no noise, and their amplitude grows with that of the noise elsewhere:
    1 + 1.25 sigma. At high noise, where the coarse structure is decided, true noisy values would
    say next to nothing of them, and the rest would grow as if they were not there.
    """
    if given is None:
        return x
    one_hot = F.one_hot(given.clamp_min(0), x.shape[1]).movedim(-1, 0).to(x.dtype)
    return torch.where(given >= 0, (1 + CLARITY * sigma) * (2 * one_hot - 1), x)


def fit_noise(
    render: Callable[[list[Tensor]], Tensor],
    noise: Sequence[Tensor],
    given: Int[Tensor, "*space"],
    *,
    steps: int = 30,
    rate: float = 0.1,
) -> list[Tensor]:
    """Return spatial noise whose image agrees with the given voxels, for one-shot generators.

    Adam steps on the cross-entropy at the given voxels. The noise keeps its root mean square
    (projection after each step; Menon et al. 2020), so that it stays typical of N(0, I) and the
    image typical of the generator.

    Args:
        render: Maps noise fields to logits `(batch, phase, *space)`.
        noise: Fields of standard normal noise, first axis the sample.
        given: Labels, -1 where free.
        steps: Gradient steps, each one forward and one backward pass.
        rate: Step length of Adam.
    """
    target = given.clamp_min(0)
    known = (given >= 0).to(noise[0].dtype)
    fields = [field.detach().clone().requires_grad_(True) for field in noise]
    sizes = [_root_mean_square(field.detach()) for field in fields]
    optimizer = torch.optim.Adam(fields, lr=rate, betas=(0.8, 0.95))
    with torch.enable_grad():
        for _ in range(steps):
            logits = render(fields)
            labels = target.expand(len(logits), *target.shape)
            entropy = F.cross_entropy(logits, labels, reduction="none")
            optimizer.zero_grad()
            ((entropy * known).sum() / known.sum()).backward()
            optimizer.step()
            with torch.no_grad():
                for field, size in zip(fields, sizes, strict=True):
                    field.mul_(size / _root_mean_square(field))
    return [field.detach() for field in fields]


def _root_mean_square(field: Tensor) -> Tensor:
    size = field.flatten(1).square().mean(1).sqrt().clamp_min(1e-12)
    return size.view(-1, *[1] * (field.ndim - 1))
