"""Which axes of a data set may be exchanged or mirrored: its own directional statistics say."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from generators.held_out_distance import map_names
from generators.phase_net import signed_indicators
from microstructures.dataset import MicrostructureDataset
from microstructures.seeds import derive_seed
from physics.statistics import two_point_correlation

LEAST_P = 0.01  # below this the data contradicts the symmetry
MOST_SAMPLES = 512
FEWEST_MAPS = 8  # with fewer, every sample counts as its own: rather too strict than too lax
DRAWS = 999
STEPS = (1, 2, 4, 8)  # voxels

Auto = Literal["auto"]


@runtime_checkable
class AugmentationSettings(Protocol):
    """How samples may be turned without making structures that the process does not."""

    @property
    def isotropic(self) -> bool | Auto: ...
    @property
    def flips(self) -> bool | tuple[bool, ...] | Auto: ...


def augmentation_settings(
    settings: AugmentationSettings, dataset: MicrostructureDataset
) -> dict[str, Any]:
    """Return `isotropic` and `flips`; where they are "auto", what the data allows."""
    chosen = {"isotropic": settings.isotropic, "flips": settings.flips}
    if "auto" in chosen.values():
        found = AxisSymmetry.of(dataset)
        allowed = {"isotropic": found.isotropic, "flips": found.flips}
        chosen = {k: allowed[k] if v == "auto" else v for k, v in chosen.items()}
    return chosen


@dataclass(frozen=True)
class AxisSymmetry:
    """Randomisation tests of the symmetries that augmentation would impose.

    A statistic that changes sign under the symmetry has mean zero over maps if the process has
    that symmetry, and then the sign of each map's value is a coin toss: the p-value is the share
    of 999 draws of random signs whose means are at least as large as the observed ones, summed in
    squares over lags and phases (Fisher 1935). Exchange of two axes: S2 along one minus S2 along
    the other. Mirror of an axis: S2 along one diagonal minus the other; P(x, x+m, x+3m) minus
    P(x, x+2m, x+3m) along the axis; arrows P(x, x+(m, m), x+(m, -m)) ahead minus those behind;
    amounts in its first half minus the second where it is not periodic.

    Limits: an asymmetry that none of these sees passes; p-values with fewer than 8 source maps
    take overlapping crops as independent, and so err towards no augmentation.

    Args:
        exchange: p-value of exchanging axes, smallest over pairs times their number; None where
            they differ in length or in periodicity.
        mirror: p-value of mirroring each axis.
        maps: Independent maps (or samples) that were tested.
    """

    exchange: float | None
    mirror: tuple[float, ...]
    maps: int

    @property
    def isotropic(self) -> bool:
        """Whether the data allows exchanging the axes."""
        return self.exchange is not None and self.exchange >= LEAST_P

    @property
    def flips(self) -> tuple[bool, ...]:
        """Which axes the data allows to mirror."""
        return tuple(p >= LEAST_P for p in self.mirror)

    def __str__(self) -> str:
        exchange = "not possible" if self.exchange is None else f"p = {self.exchange:.3f}"
        mirror = ", ".join(f"{p:.3f}" for p in self.mirror)
        return (
            f"augmentation: axes are {'' if self.isotropic else 'not '}exchanged ({exchange}), "
            f"mirrored: {', '.join('yes' if f else 'no' for f in self.flips)} (p = {mirror}); "
            f"sign tests over {self.maps} maps at {LEAST_P:g}"
        )

    @classmethod
    def of(cls, dataset: MicrostructureDataset, *, seed: int = 0) -> "AxisSymmetry":
        """Test the symmetries of a data set."""
        draw = np.random.default_rng(derive_seed("axis symmetry", seed))
        rows = np.arange(len(dataset))
        if len(rows) > MOST_SAMPLES:
            rows = np.sort(draw.permutation(rows)[:MOST_SAMPLES])
        names = map_names(dataset)
        units = (
            rows if names is None else np.unique(np.asarray(names)[rows], return_inverse=True)[1]
        )
        if units.max(initial=0) - units.min(initial=0) + 1 < FEWEST_MAPS:
            units = np.arange(len(rows))
        units = np.unique(units, return_inverse=True)[1]
        x = (signed_indicators(dataset.phases[torch.from_numpy(rows)], dataset.n_phases) + 1) / 2
        lags = two_point_correlation(x.flatten(0, 1), periodic=dataset.periodic)
        lags = lags.view(*x.shape[:2], *lags.shape[1:])
        axes = range(len(dataset.periodic))
        alike = len(set(dataset.shape)) == 1 and len(set(dataset.periodic)) == 1
        pairs = list(itertools.combinations(axes, 2)) if alike else []
        exchanges = [_p_value(_exchange(lags, *pair), units, draw) for pair in pairs]
        mirrors = [_p_value(_mirror(x, lags, axis, dataset.periodic), units, draw) for axis in axes]
        exchange = min(1.0, len(exchanges) * min(exchanges)) if exchanges else None
        return cls(exchange, tuple(mirrors), int(units.max()) + 1)


def _exchange(lags: Tensor, one: int, other: int) -> Float[Tensor, "sample odd"]:
    reach = max(min(lags.shape[2:]) // 4, 1)
    along = [_first(lags.movedim(2 + axis, 2), 3)[..., 1 : reach + 1] for axis in (one, other)]
    return (along[0] - along[1]).flatten(1)


def _mirror(
    x: Tensor, lags: Tensor, axis: int, periodic: Sequence[bool]
) -> Float[Tensor, "sample odd"]:
    reach = max(min(lags.shape[2:]) // 4, 1)
    steps = [m for m in STEPS if m <= reach]
    columns = []
    for other in set(range(len(periodic))) - {axis}:
        plane = _first(lags.movedim((2 + axis, 2 + other), (2, 3)), 4)
        columns += [plane[:, :, m, m] - plane[:, :, m, -m] for m in steps]
    for m in (m for m in steps if 6 * m < min(x.shape[2:])):
        near, far, last = (_moved(x, {axis: k * m}) for k in (1, 2, 3))
        columns.append(_inner_mean(x * last * (near - far), 3 * m, periodic))
    for other in set(range(len(periodic))) - {axis}:
        for m in (m for m in steps if 6 * m < min(x.shape[2:])):
            ahead = _moved(x, {axis: m, other: m}) * _moved(x, {axis: m, other: -m})
            behind = _moved(x, {axis: -m, other: m}) * _moved(x, {axis: -m, other: -m})
            columns.append(_inner_mean(x * (ahead - behind), m, periodic))
    if not periodic[axis]:
        line = x.movedim(2 + axis, 2)
        half = line.shape[2] // 2
        columns.append(line[:, :, :half].flatten(2).mean(2) - line[:, :, -half:].flatten(2).mean(2))
    return torch.cat(columns, 1)


def _moved(x: Tensor, offset: Mapping[int, int]) -> Tensor:
    """Return x at every place plus an offset per axis, periodically."""
    return x.roll([-k for k in offset.values()], [2 + axis for axis in offset])


def _inner_mean(values: Tensor, margin: int, periodic: Sequence[bool]) -> Tensor:
    """Return the mean over space, a margin off the rims of the axes that do not wrap."""
    for axis, wraps in enumerate(periodic, start=2):
        if not wraps:
            values = values.narrow(axis, margin, values.shape[axis] - 2 * margin)
    return values.flatten(2).mean(2)


def _first(values: Tensor, ndim: int) -> Tensor:
    """Return the entries at index 0 of all axes beyond the first `ndim`."""
    return values[(..., *[0] * (values.ndim - ndim))]


def _p_value(odd: Tensor, units: np.ndarray, draw: np.random.Generator) -> float:
    """Return the share of random signs per unit that give means as large as the observed ones."""
    counts = np.bincount(units)
    values = np.zeros((len(counts), odd.shape[1]))
    np.add.at(values, units, odd.double().numpy())
    values /= counts[:, None]
    scale = np.sqrt((values**2).mean(0))
    values = values[:, scale > 1e-9] / scale[scale > 1e-9]
    if values.size == 0:
        return 1.0
    signs = draw.choice([-1.0, 1.0], size=(DRAWS, len(values)))
    drawn = ((signs @ values) ** 2).sum(1)
    observed = (values.sum(0) ** 2).sum()
    return float((1 + (drawn >= observed * (1 - 1e-9)).sum()) / (DRAWS + 1))
