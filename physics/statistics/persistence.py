"""Persistent homology: at which distances from the interface pieces, loops, voids come and go."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Shaped
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from microstructures import DataError
from physics.statistics.correlation import as_indicators, periodic_flags


@dataclass(frozen=True)
class PersistenceDiagram:
    """Births and deaths of the homology classes of the sublevel sets {f <= t} of a field f.

    Args:
        pairs: Birth and death of every class that lives, `(class, 2)`, for each degree from 0
            (pieces) over 1 (loops) and, in 3-D, 2 (voids) to the number of axes (the whole
            periodic cell). Classes that never die have death inf.
    """

    pairs: tuple[Float64[np.ndarray, "_ 2"], ...]

    def betti_numbers(self, level: float) -> tuple[int, ...]:
        """Return how many classes of each degree {f <= level} has."""
        return tuple(int(((p[:, 0] <= level) & (level < p[:, 1])).sum()) for p in self.pairs)


def persistence_diagram(
    a: Shaped[Tensor, "batch *space"],
    *,
    periodic: bool | Sequence[bool] = True,
    voxel_size_um: float = 1.0,
) -> list[PersistenceDiagram]:
    """Return the persistence diagram of each sample's signed distance, in um.

    The phase is grown from its core outwards: at t < 0 it is eroded by -t, at 0 itself, at t > 0
    dilated by t (`signed_distance`). A piece of the phase is born at minus its inscribed radius
    and dies at the throat that joins it to a larger one; a loop or void dies at the inscribed
    radius of the hole in it (Robins, Wood and Sheppard 2011, doi:10.1109/TPAMI.2011.95).

    Args:
        a: Hard indicators, `(batch, *space)`.
        periodic: One flag for all axes, or one per axis.
        voxel_size_um: Voxel edge.

    Raises:
        DataError: Not 2-D or 3-D, soft, or a sample without both the phase and a rest.

    >>> cell = torch.zeros(1, 16, 16)
    >>> cell[0, 4:9, 4:9] = 1
    >>> persistence_diagram(cell)[0].betti_numbers(0.0)
    (1, 0, 0)
    """
    distance = signed_distance(a, periodic=periodic, voxel_size_um=voxel_size_um)
    return sublevel_persistence(distance, periodic=periodic)


def signed_distance(
    a: Shaped[Tensor, "batch *space"],
    *,
    periodic: bool | Sequence[bool] = True,
    voxel_size_um: float = 1.0,
) -> Float64[Tensor, "batch *space"]:
    """Return the distance in um to the interface, negative inside the phase.

    Euclidean distance from a voxel's centre to the nearest centre on the other side, less half a
    voxel; the phase and the rest have opposite signs. Exact across periodic axes.

    Args:
        a: Hard indicators, `(batch, *space)`.
        periodic: One flag for all axes, or one per axis.
        voxel_size_um: Voxel edge.

    Raises:
        DataError: Not 2-D or 3-D, soft, a sample without both the phase and a rest, or the voxel
            size is not above 0.
    """
    a = as_indicators(a)
    flags = periodic_flags(periodic, a.ndim - 1)
    if not (math.isfinite(voxel_size_um) and voxel_size_um > 0):
        raise DataError(f"expected voxel_size_um above 0, got {voxel_size_um}")
    inside = (a.detach().cpu() == 1).numpy()
    if not bool(((a == 0) | (a == 1)).all()):
        raise DataError("expected indicators of 0 and 1, got values between; threshold them first")
    whole = [k for k, sample in enumerate(inside) if sample.all() or not sample.any()]
    if whole:
        raise DataError(
            f"expected both the phase and a rest in every sample, got one alone in sample "
            f"{whole[0]}; leave such samples out"
        )
    # The nearest periodic image lies within half a cell.
    margins = [
        (n // 2,) * 2 if wrap else (0, 0) for n, wrap in zip(a.shape[1:], flags, strict=True)
    ]
    window = tuple(slice(low, low + n) for n, (low, _) in zip(a.shape[1:], margins, strict=True))
    distance = np.stack([_signed(np.pad(x, margins, mode="wrap"))[window] for x in inside])
    return torch.from_numpy(voxel_size_um * distance)


def sublevel_persistence(
    field: Float[Tensor, "batch *space"], *, periodic: bool | Sequence[bool] = True
) -> list[PersistenceDiagram]:
    """Return the persistence diagram of the sublevel sets of each field.

    Voxels are closed cubes: they join where they touch at a corner, as in `euler_density`.
    Changing a field by at most e moves its diagram by at most e in the bottleneck distance
    (Cohen-Steiner, Edelsbrunner and Harer 2007, doi:10.1007/s00454-006-1276-5). Computed by gudhi.

    Args:
        field: One value per voxel, `(batch, *space)`.
        periodic: One flag for all axes, or one per axis.

    Raises:
        DataError: Not 2-D or 3-D, or not finite.
    """
    from gudhi import PeriodicCubicalComplex

    field = as_indicators(field)
    flags = periodic_flags(periodic, field.ndim - 1)
    if not bool(field.isfinite().all()):
        raise DataError("expected finite fields, got NaN or infinity; replace them first")
    diagrams = []
    for values in field.detach().cpu().to(torch.float64).numpy():
        cells = PeriodicCubicalComplex(
            top_dimensional_cells=values, periodic_dimensions=list(flags)
        )
        cells.compute_persistence()
        pairs = (cells.persistence_intervals_in_dimension(k) for k in range(values.ndim + 1))
        diagrams.append(PersistenceDiagram(tuple(p.reshape(-1, 2).astype(float) for p in pairs)))
    return diagrams


def persistence_image(
    diagrams: Sequence[PersistenceDiagram],
    *,
    range_um: tuple[float, float],
    bins: int = 20,
    spread_um: float | None = None,
) -> Float64[Tensor, "batch degree birth persistence"]:
    """Return persistence images: diagrams as arrays of one size (Adams et al. 2017).

    Every class, born at b and living for p, adds a normal distribution about (b, p), integrated
    over each pixel, times the weight p / (high - low), at most 1: short-lived classes, which are
    mostly digitisation noise, count little, and the image depends continuously on the diagram
    (JMLR 18, 1-35). Births run from low to high, persistences from 0 to high - low. A class that
    never dies counts as dying at high.

    Args:
        diagrams: One per sample.
        range_um: (low, high), the births that the image shows; the same for all samples that
            shall be compared.
        bins: Pixels along each side.
        spread_um: Standard deviation of the distributions; one pixel when left out.

    Returns:
        Shape `(batch, degree, bins, bins)`, degree from 0 to one below the number of axes; birth
        rises along the last axis but one, persistence along the last.

    Raises:
        DataError: No diagrams, or settings out of range.
    """
    low, high = range_um
    spread = (high - low) / bins if spread_um is None and bins > 0 else spread_um
    if not diagrams or bins < 1 or not low < high or spread is None or not spread > 0:
        raise DataError(
            "expected diagrams, a rising range_um, bins of 1 or more and spread_um above 0, got "
            f"{len(diagrams)} diagrams, {range_um}, {bins} and {spread_um}"
        )
    births = torch.linspace(low, high, bins + 1, dtype=torch.float64)
    return torch.stack(
        [
            torch.stack([_image(torch.from_numpy(p), births, spread) for p in d.pairs[:-1]])
            for d in diagrams
        ]
    )


def _signed(inside: np.ndarray) -> np.ndarray:
    from_rest, from_phase = distance_transform_edt(inside), distance_transform_edt(~inside)
    return np.where(inside, 0.5 - np.asarray(from_rest), np.asarray(from_phase) - 0.5)


def _image(pairs: Tensor, births: Tensor, spread: float) -> Tensor:
    birth, persistence = pairs[:, 0], pairs[:, 1].clamp(max=births[-1]) - pairs[:, 0]
    weight = (persistence / (births[-1] - births[0])).clamp(0, 1)
    along_birth = _share_in_each_bin(birth, births, spread)
    along_persistence = _share_in_each_bin(persistence, births - births[0], spread)
    return torch.einsum("n,nb,np->bp", weight, along_birth, along_persistence)


def _share_in_each_bin(centre: Tensor, edges: Tensor, spread: float) -> Tensor:
    return torch.special.ndtr((edges - centre.unsqueeze(1)) / spread).diff(dim=1)
