"""Laws of coarsening and growth read off measured lengths."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from microstructures import DataError
from microstructures.seeds import generator_for
from physics.processes.cahn_hilliard import cahn_hilliard, domain_length
from physics.processes.grain_growth import voronoi_grains
from physics.processes.grain_network import GrainNetwork

Values = Sequence[float] | np.ndarray
EXPONENTS = (0.5, 8.0)


def growth_exponent(times: Values, lengths: Values) -> float:
    """Return m of L ~ t^m: the slope of log L over log t by least squares.

    Raises:
        DataError: Fewer than three points, or a value that is not positive.
    """
    t, length = _checked(times, lengths)
    return float(np.polyfit(np.log(t), np.log(length), 1)[0])


def kinetic_exponent(times: Values, lengths: Values) -> float:
    """Return n of L^n = L_0^n + K t, with n, L_0 and K free: the n with the straightest L^n(t).

    n = 2 for growth by curvature, 3 for coarsening by bulk diffusion.

    Raises:
        DataError: Fewer than three points, or a value that is not positive.
    """
    t, length = _checked(times, lengths)

    def crookedness(n: float) -> float:
        power = (length / length[-1]) ** n
        rest = power - np.polyval(np.polyfit(t, power, 1), t)
        return float(np.square(rest).sum() / np.square(power - power.mean()).sum())

    best = minimize_scalar(crookedness, bounds=EXPONENTS, method="bounded")
    return float(best.x)  # pyright: ignore[reportAttributeAccessIssue]


def coarsening_lengths(
    times: Values,
    *,
    shape: Sequence[int],
    n: int,
    seed: int,
    step: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> list[float]:
    """Return the domain length of the 50:50 Cahn-Hilliard equation at scaled times.

    Mean over n periodic cells with a voxel as wide as the interface's length, from noise of 0.1.
    The default schedule of steps runs to the first time, a constant step from there.
    """
    noise = [torch.randn(tuple(shape), generator=generator_for(seed, k)) for k in range(n)]
    psi = 0.1 * torch.stack([field - field.mean() for field in noise]).to(dtype)
    spacing, lengths = torch.ones(n, dtype=torch.float64), []
    for k, interval in enumerate(np.diff(times, prepend=0.0)):
        end = torch.full((n,), float(interval), dtype=torch.float64)
        psi = cahn_hilliard(psi, spacing=spacing, end=end, step=step if k else None)
        lengths.append(1 / float((1 / domain_length(psi.double(), spacing=spacing)).mean()))
    return lengths


def grain_radii(
    times: Values, *, shape: Sequence[int], initial_diameter: float, n: int, seed: int
) -> list[float]:
    """Return the mean grain radius, in voxels, of Voronoi polycrystals at scaled times.

    The radius of a grain is that of the disc of its area (2-D only); the mean is over all grains
    of n periodic cells; a time is M gamma t in voxel^2. One cell of 256^2 gives the exponent of
    growth from 20 to 600 with a standard error of 0.3.
    """
    count = round(np.prod(shape) / (np.pi / 4 * initial_diameter**2))
    sums = np.zeros((2, len(times)))
    for cell in range(n):
        grains = GrainNetwork.of(voronoi_grains(shape, count, generator=generator_for(seed, cell)))
        for k, interval in enumerate(np.diff(times, prepend=0.0)):
            grains.advance(float(interval))
            voxels = torch.bincount(grains.ids.flatten()).numpy()
            sums[:, k] += np.sqrt(voxels / np.pi).sum(), np.count_nonzero(voxels)
    return (sums[0] / sums[1]).tolist()


def _checked(times: Values, lengths: Values) -> tuple[np.ndarray, np.ndarray]:
    t, length = np.asarray(times, dtype=float), np.asarray(lengths, dtype=float)
    values = np.concatenate([t, length])
    if t.shape != length.shape or len(t) < 3 or not (np.isfinite(values) & (values > 0)).all():
        raise DataError(
            f"expected three or more positive times with a positive length each, got {len(t)} "
            f"times and {len(length)} lengths"
        )
    return t, length
