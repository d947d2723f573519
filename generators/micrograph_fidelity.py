"""How micrographs look, measured: grey levels by phase, texture, edges, spectrum."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from microstructures import DataError, Microstructure
from microstructures.micrographs import GREY
from physics.statistics import radial_mean, two_point_correlation

QUANTILES = 200
MAX_LAG = 8  # voxels: beyond it the texture of a phase is noise about zero
EDGE_REACH = 5  # voxels on either side of an interface
BANDS = 16
DECIBEL = 10.0


@dataclass(frozen=True)
class GreyStatistics:
    """Statistics of micrographs whose grey is standardised picture by picture.

    Args:
        levels: Quantiles of the grey of each phase.
        texture: Autocorrelation, within each phase, of grey less the phase's mean in its picture;
            1 at lag 0.
        edges: Mean grey across interfaces from phase 0 into the others, for each axis first up,
            then down; `EDGE_REACH` voxels of phase 0's side come first.
        spectrum: Power by wave number in dB, from the longest to the shortest waves.
    """

    levels: Float[np.ndarray, "phase quantile"]
    texture: Float[np.ndarray, "phase lag"]
    edges: Float[np.ndarray, "direction place"]
    spectrum: Float[np.ndarray, " band"]


@dataclass(frozen=True)
class GreyErrors:
    """Distances between two sets of micrographs; 0 is alike.

    Args:
        levels: Wasserstein distance of the grey levels, in standard deviations of a picture, mean
            over phases.
        texture: Mean absolute difference of autocorrelations, over phases and lags from 1.
        edges: RMS difference of the profiles across interfaces, in standard deviations.
        spectrum: RMS difference of power by wave number, in dB.
    """

    levels: float
    texture: float
    edges: float
    spectrum: float


def grey_statistics(pictures: Sequence[Microstructure]) -> GreyStatistics:
    """Measure micrographs of one shape and set of phases.

    Raises:
        DataError: There are none, one has no grey channel, or a phase is in none of them.
    """
    if not pictures or any(GREY not in p.channels for p in pictures):
        raise DataError(
            f"expected structures with a channel {GREY!r}, got some without; render them"
        )
    labels = np.stack([p.phases for p in pictures])
    grey = np.stack([standardised(p.channels[GREY]) for p in pictures])
    phases = range(pictures[0].n_phases)
    absent = [pictures[0].phase_names[k] for k in phases if not (labels == k).any()]
    if absent:
        raise DataError(f"expected pictures of every phase, got none of {', '.join(absent)}")
    shares = (np.arange(QUANTILES) + 0.5) / QUANTILES
    wraps = pictures[0].periodic
    return GreyStatistics(
        levels=np.stack([np.quantile(grey[labels == k], shares) for k in phases]),
        texture=np.stack([texture_correlation(grey, labels == k, wraps) for k in phases]),
        edges=edge_profiles(grey, labels),
        spectrum=power_spectrum(grey),
    )


def compare_grey(made: GreyStatistics, real: GreyStatistics) -> GreyErrors:
    """Return the distances between two sets of micrographs."""
    return GreyErrors(
        levels=float(np.abs(made.levels - real.levels).mean()),
        texture=float(np.abs(made.texture - real.texture)[:, 1:].mean()),
        edges=float(np.sqrt(((made.edges - real.edges) ** 2).mean())),
        spectrum=float(np.sqrt(((made.spectrum - real.spectrum) ** 2).mean())),
    )


def standardised(grey: np.ndarray) -> Float[np.ndarray, "*space"]:
    """Return grey with mean 0 and standard deviation 1 over the picture."""
    values = grey.astype(np.float64)
    return (values - values.mean()) / max(float(values.std()), 1e-9)


def texture_correlation(
    grey: Float[np.ndarray, "picture *space"],
    inside: np.ndarray,
    periodic: Sequence[bool],
) -> Float[np.ndarray, " lag"]:
    """Return the autocorrelation of grey within a phase, over pairs that both lie inside it."""
    space = tuple(range(1, grey.ndim))
    count = inside.sum(space, keepdims=True).clip(1)
    mean = np.where(inside, grey, 0).sum(space, keepdims=True) / count
    rest = torch.from_numpy(np.where(inside, grey - mean, 0.0))
    products, pairs = (
        radial_mean(two_point_correlation(field, periodic=periodic), max_lag=MAX_LAG).sum(0)
        for field in (rest, torch.from_numpy(inside.astype(np.float64)))
    )
    covariance = (products / pairs.clamp_min(1e-9)).numpy()
    return covariance / max(float(covariance[0]), 1e-12)


def edge_profiles(
    grey: Float[np.ndarray, "picture *space"], labels: np.ndarray
) -> Float[np.ndarray, "direction place"]:
    """Return mean grey along each axis, up and down, across interfaces out of phase 0."""
    profiles = []
    width = 2 * EDGE_REACH
    for axis in range(1, grey.ndim):
        for step in (1, -1):
            order = [slice(None)] * grey.ndim
            order[axis] = slice(None, None, step)
            views = [
                np.lib.stride_tricks.sliding_window_view(image[tuple(order)], width, axis)
                for image in (grey, labels)
            ]
            outside, inside = views[1][..., EDGE_REACH - 1] == 0, views[1][..., EDGE_REACH] != 0
            rows = views[0][outside & inside]
            profiles.append(rows.mean(0) if len(rows) else np.zeros(width))
    return np.stack(profiles)


def power_spectrum(grey: Float[np.ndarray, "picture *space"]) -> Float[np.ndarray, " band"]:
    """Return power in dB in bands of wave number that grow in equal ratios."""
    space = grey.shape[1:]
    for axis, n in enumerate(space, start=1):
        taper = np.hanning(n + 2)[1:-1].reshape([-1 if a == axis else 1 for a in range(grey.ndim)])
        grey = grey * taper
    power = (np.abs(np.fft.fftn(grey, axes=range(1, grey.ndim))) ** 2).mean(0)
    waves = np.meshgrid(*[np.fft.fftfreq(n) for n in space], indexing="ij")
    number = np.sqrt(sum(w**2 for w in waves))
    edges = np.geomspace(2 / min(space), 0.5, BANDS + 1)
    band = np.digitize(number, edges) - 1
    means = [power[band == k].mean() if (band == k).any() else np.nan for k in range(BANDS)]
    return DECIBEL * np.log10(np.array([m for m in means if np.isfinite(m)]))
