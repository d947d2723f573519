"""MicroBench M9: is a sample a training image, shifted or flipped?"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int, Integer
from torch import Tensor

from microstructures import DataError

# Sides of the coarse images by which the likeliest training images are found, by dimension.
COARSE = {2: 16, 3: 12}
SHORTLIST = 16
CHUNK_BYTES = 2**27
QUANTILE = 0.999


@dataclass(frozen=True)
class Nearest:
    """The training image most like each sample.

    Args:
        correlation: Normalised cross-correlation, at most 1 (the same image).
        index: Its number in the training set.
    """

    correlation: Float[np.ndarray, " sample"]
    index: Int[np.ndarray, " sample"]


class TrainingImages:
    """A training set, ready to be searched for the image nearest to a sample.

    Nearness is the largest normalised cross-correlation over all periodic shifts and all flips,
    max over s, f of sum_p <a_p(x + s), b_p(f x)> / (|a| |b|) with phase indicators less their
    mean. All images are compared on coarse grids (the lowest frequencies, 16 a side in 2-D, 12 in
    3-D); the 16 likeliest are compared exactly by FFT. A copy stands out on the coarse grid too;
    for an image like none the value found is a lower bound, mostly the maximum itself, and so it
    is for the held-out images that set the threshold.

    Limits: shifts are periodic also for images that are not; no rotations.

    Args:
        labels: Training images, `(n, *space)`.
        n_phases: Number of phases.
    """

    def __init__(self, labels: Integer[Tensor, "n *space"], n_phases: int) -> None:
        self.labels = labels
        self.n_phases = n_phases
        self.shape = tuple(labels.shape[1:])
        self._grid = tuple(min(side, COARSE[len(self.shape)]) for side in self.shape)
        self._shifts = _shift_table(self._grid)
        chunk = max(1, CHUNK_BYTES // (16 * n_phases * labels[0].numel()))
        self._coarse = torch.cat([self._lowered(part) for part in labels.split(chunk)])
        self._coarse = self._coarse.to(_screening_dtype())

    def __len__(self) -> int:
        return len(self.labels)

    def nearest(self, samples: Integer[Tensor, "m *space"]) -> Nearest:
        """Return the nearest training image of every sample.

        Raises:
            DataError: The samples' shape is not that of the training images.
        """
        if tuple(samples.shape[1:]) != self.shape:
            raise DataError(
                f"expected samples of the training images' shape {self.shape}, got "
                f"{tuple(samples.shape[1:])}"
            )
        found = [self._nearest(sample) for sample in samples]
        return Nearest(np.array([c for c, _ in found]), np.array([k for _, k in found]))

    def _nearest(self, sample: Tensor) -> tuple[float, int]:
        flipped = torch.stack([sample.flip(axes) for axes in _flips(len(self.shape))])
        likeness = torch.stack([self._likeness(c) for c in self._lowered(flipped)]).amax(0)
        best = likeness.topk(min(SHORTLIST, len(self))).indices
        axes = list(range(2, len(self.shape) + 2))
        theirs = torch.fft.rfftn(self._indicators(self.labels[best]), dim=axes)
        ours = torch.fft.rfftn(self._indicators(flipped), dim=axes)
        product = torch.einsum("fp...,np...->fn...", ours, theirs.conj())
        peaks = torch.fft.irfftn(product, s=self.shape, dim=axes).flatten(2).amax((0, 2))
        k = int(peaks.argmax())
        return float(peaks[k]), int(best[k])

    def _likeness(self, coarse: Float[Tensor, "phase voxel"]) -> Float[Tensor, " n"]:
        """Return the largest correlation over shifts of a coarse image with each coarse one."""
        shifted = coarse.to(self._coarse.dtype)[:, self._shifts]
        shifted = rearrange(shifted, "phase shift voxel -> shift (phase voxel)")
        theirs = rearrange(self._coarse, "n phase voxel -> (phase voxel) n")
        rows = max(1, CHUNK_BYTES // (4 * len(self)))
        parts = [(part @ theirs).amax(0) for part in shifted.split(rows)]
        return torch.stack(parts).amax(0).float()

    def _indicators(self, labels: Tensor) -> Float[Tensor, "batch phase *space"]:
        """Return phase indicators less their mean, of unit norm; zeros for a single phase."""
        # Of two phases one says all.
        shown = range(1, 2) if self.n_phases == 2 else range(self.n_phases)
        phases = torch.stack([labels == p for p in shown], 1).float()
        flat = phases.flatten(2)
        flat = flat - flat.mean(2, keepdim=True)
        norm = flat.flatten(1).norm(dim=1).clamp_min(1e-6)
        return (flat / norm[:, None, None]).view_as(phases)

    def _lowered(self, labels: Tensor) -> Float[Tensor, "batch phase voxel"]:
        """Return the lowest frequencies on the coarse grid, of unit norm."""
        axes = list(range(2, labels.ndim + 1))
        spectrum = torch.fft.fftn(self._indicators(labels), dim=axes)
        for axis, side, coarse in zip(axes, self.shape, self._grid, strict=True):
            below, above = torch.arange((coarse + 1) // 2), torch.arange(side - coarse // 2, side)
            spectrum = spectrum.index_select(axis, torch.cat([below, above]))
        coarse = torch.fft.ifftn(spectrum, dim=axes).real.flatten(2)
        norm = coarse.flatten(1).norm(dim=1).clamp_min(1e-12)
        return coarse / norm[:, None, None]


@dataclass(frozen=True)
class Memorisation:
    """How many samples are nearer to a training image than real ones are.

    Args:
        threshold: 99.9 % quantile of the held-out real samples' nearest correlations.
        share: Share of generated samples above it; about 0.001 for a perfect generator.
        highest: The largest correlation of a generated sample.
        samples: Generated samples.
        held_out: Held-out real samples.
    """

    threshold: float
    share: float
    highest: float
    samples: int
    held_out: int


def memorisation(
    made: Float[np.ndarray, " sample"], held_out: Float[np.ndarray, " real"]
) -> Memorisation:
    """Return M9 from the nearest correlations of generated and of held-out real samples."""
    threshold = float(np.quantile(held_out, QUANTILE))
    share = float((made > threshold).mean())
    return Memorisation(threshold, share, float(made.max()), len(made), len(held_out))


def _flips(dim: int) -> list[list[int]]:
    """Return the axes to flip of every flip of `dim` axes."""
    choices = itertools.product((False, True), repeat=dim)
    return [[axis for axis, flip in enumerate(c) if flip] for c in choices]


def _shift_table(grid: tuple[int, ...]) -> Int[Tensor, "shift voxel"]:
    """Return, for every shift of a periodic grid, where each voxel's value comes from."""
    places = torch.stack(torch.meshgrid(*[torch.arange(n) for n in grid], indexing="ij")).flatten(1)
    moved = places[:, :, None] + places[:, None, :]
    index = torch.zeros_like(moved[0])
    for along, n in zip(moved, grid, strict=True):
        index = index * n + along % n
    return index


def _screening_dtype() -> torch.dtype:
    """Return the precision of the coarse comparison: bfloat16 where the processor has it.

    Three digits are enough to rank, and it is four times as fast.
    """
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return torch.bfloat16 if supported is not None and supported() else torch.float32
