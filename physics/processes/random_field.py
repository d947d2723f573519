"""Level cut of a Gaussian random field: the baseline that matches fraction and S2, no more."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from torch import Tensor

from microstructures import DataError, Microstructure, Parameter, ProcessSpace
from microstructures.seeds import generator_for
from microstructures.structure import ProcessValue
from physics.statistics.correlation import lag_vectors, radial_mean, two_point_correlation

# Points of the table that relates the covariance of a field to the S2 of its cut.
TABLE = 4001
# Alternating projections onto "no negative power" and "target at lags up to a quarter cell".
PROJECTIONS = 20
# Share of negative power that is simply cut off.
NEGLIGIBLE = 3e-4


@dataclass(frozen=True)
class TabulatedCovariance:
    """Covariance of an isotropic unit-variance field over r / correlation length.

    A cubic spline through the entries (`distance` from 0, rising), flat at 0 as for every cut with
    a finite surface, zero beyond the last.
    """

    distance: tuple[float, ...]
    value: tuple[float, ...]


CovarianceName = Literal["gaussian", "exponential", "oscillating"]


@dataclass(frozen=True)
class RandomField:
    """Cut of a stationary Gaussian random field Y at a level (Berk 1991, Quiblier 1984).

    Phase 1 is Y > t with P(Y > t) = volume_fraction, so a field of covariance R(r) gives
    S2(r) = phi^2 + (1/2 pi) int_0^R exp(-t^2/(1 + s)) / sqrt(1 - s^2) ds
    (1/4 + asin(R)/(2 pi) at t = 0). Cells are periodic. The covariance on the grid is that of the
    shortest periodic image, brought to a spectrum without negative entries at the cost of long
    lags.

    Args:
        covariance: "gaussian" exp(-(r/l)^2/2), smooth; "exponential" exp(-r/l), rough;
            "oscillating" sin(q)/q exp(-(r/l)^2/8) with q = 2 pi r/l, of wavelength l, as after
            spinodal decomposition; or a table (`fit` makes one).
        voxel_size_um: Voxel edge.
        anisotropy: Correlation length along axis 0 over that along the other axes.
        exact_fraction: Cut each cell at its own level, so that its fraction is the wanted one to
            a voxel; else the fraction of a finite cell scatters about it.
        fraction_bounds: Bounds of volume_fraction in `.space`.
        length_bounds_um: Bounds of correlation_length_um in `.space`.
        phase_names: Names of labels 0 and 1.
    """

    covariance: CovarianceName | TabulatedCovariance = "gaussian"
    voxel_size_um: float = 1.0
    anisotropy: float = 1.0
    exact_fraction: bool = False
    fraction_bounds: tuple[float, float] = (0.1, 0.9)
    length_bounds_um: tuple[float, float] = (2.0, 16.0)
    phase_names: tuple[str, str] = ("matrix", "inclusion")

    @property
    def space(self) -> ProcessSpace:
        """Volume fraction and correlation length."""
        return ProcessSpace(
            [
                Parameter("volume_fraction", "-", *self.fraction_bounds),
                Parameter("correlation_length_um", "um", *self.length_bounds_um, "log"),
            ]
        )

    @classmethod
    def fit(cls, structures: Sequence[Microstructure], *, phase: int = 1) -> "RandomField":
        """Return the field whose cuts have the fraction and the S2 of a phase of the structures.

        The radial mean of S2 is taken over all structures and mapped through the exact relation
        of the level cut to the field's covariance. The correlation length is the lag at which
        that falls to 1/e; simulate at the midpoint of `.space` to get the fitted structure.

        Raises:
            DataError: No structures, unlike shapes or voxel sizes, or the phase is absent.
        """
        if not structures or len({(s.shape, s.voxel_size_um) for s in structures}) != 1:
            raise DataError(
                "expected one or more structures of one shape and voxel size to fit a random "
                f"field, got {len(structures)} with {len({s.shape for s in structures})} shapes"
            )
        first = structures[0]
        labels = torch.from_numpy(np.stack([s.phases for s in structures]))
        correlation = two_point_correlation(
            (labels == phase).to(torch.float64), periodic=first.periodic
        )
        s2 = radial_mean(correlation, max_lag=min(first.shape) // 2).mean(0)
        fraction = float(s2[0])
        if not 0 < fraction < 1:
            raise DataError(
                f"expected phase {phase} to fill part of the structures, got fraction {fraction:g}"
            )
        covariance = field_covariance(s2, fraction=fraction)
        length = _decay_length(covariance) * first.voxel_size_um
        lags = first.voxel_size_um * np.arange(len(covariance)) / length
        names = first.phase_names
        rest = names[1 - phase] if len(names) == 2 else f"not {names[phase]}"
        return cls(
            covariance=TabulatedCovariance(tuple(lags.tolist()), tuple(covariance.tolist())),
            voxel_size_um=first.voxel_size_um,
            fraction_bounds=_about(fraction),
            length_bounds_um=(length / 2, length * 2),
            phase_names=(rest, names[phase]),
        )

    def simulate(
        self,
        parameters: Mapping[str, ProcessValue] | Sequence[Mapping[str, ProcessValue]],
        *,
        shape: Sequence[int],
        seed: int,
        n: int = 1,
        first: int = 0,
    ) -> list[Microstructure]:
        """Cut n periodic cells at each process point.

        Args:
            parameters: A process dict, or several; both parameters must be known.
            shape: Voxels along each axis, 2 or 3 axes.
            seed: Sample k overall uses (seed, first + k).
            n: Cells per process point.
            first: Index of the first sample.

        Raises:
            DataError: A parameter is missing or out of bounds, or the shape is not 2-D or 3-D.

        >>> process = {"volume_fraction": 0.3, "correlation_length_um": 4.0}
        >>> RandomField().simulate(process, shape=(32, 32), seed=0)[0].shape
        (32, 32)
        """
        points = [parameters] if isinstance(parameters, Mapping) else list(parameters)
        cells = []
        for index, point in enumerate(points):
            if any(math.isnan(u) for u in self.space.to_unit(point)):
                raise DataError(
                    f"expected values for {', '.join(self.space.names)} to simulate, got "
                    f"{dict(point)}"
                )
            fraction, length = (float(point[name] or 0) for name in self.space.names)
            fields = self.field(length, shape=shape, seed=seed, n=n, first=first + index * n)
            labels = self._cut(fields, fraction).to(torch.uint8).numpy()
            cells += [
                Microstructure(
                    phases=phases,
                    voxel_size_um=self.voxel_size_um,
                    process=dict(point),
                    phase_names=self.phase_names,
                )
                for phases in labels
            ]
        return cells

    def field(
        self,
        correlation_length_um: float,
        *,
        shape: Sequence[int],
        seed: int,
        n: int = 1,
        first: int = 0,
    ) -> Float[Tensor, "batch *space"]:
        """Return n fields of zero mean and unit variance before the cut."""
        shape = tuple(int(s) for s in shape)
        if len(shape) not in (2, 3) or min(shape) < 2 or n < 1:
            raise DataError(
                f"expected a 2-D or 3-D shape of at least 2 voxels a side and n >= 1, got {shape} "
                f"and n = {n}"
            )
        axes = tuple(range(1, len(shape) + 1))
        covariance = self.covariance_map(correlation_length_um, shape=shape)
        amplitude = torch.fft.rfftn(covariance).real.clamp(min=0).sqrt()
        noise = torch.stack(
            [
                torch.randn(shape, generator=generator_for(seed, first + k), dtype=torch.float64)
                for k in range(n)
            ]
        )
        return torch.fft.irfftn(amplitude * torch.fft.rfftn(noise, dim=axes), s=shape, dim=axes)

    def covariance_map(
        self, correlation_length_um: float, *, shape: Sequence[int]
    ) -> Float[Tensor, "*lag"]:
        """Return the covariance that `field` has on this grid, zero lag at index 0."""
        shape = tuple(int(s) for s in shape)
        lags = lag_vectors(shape).to(torch.float64)
        near = lags.square().sum(0).sqrt() <= min(shape) / 4
        lags *= self.voxel_size_um / correlation_length_um
        lags[0] /= self.anisotropy
        target = _covariance(self.covariance, lags.square().sum(0).sqrt())
        spectrum = torch.fft.fftn(target).real
        for _ in range(PROJECTIONS):
            if -spectrum.clamp(max=0).sum() <= NEGLIGIBLE * spectrum.clamp(min=0).sum():
                break
            # Without negative power the variance is too large; short lags matter, so they are
            # put back and the long ones give way.
            allowed = torch.fft.ifftn(spectrum.clamp(min=0)).real
            spectrum = torch.fft.fftn(torch.where(near, target, allowed)).real
        spectrum = spectrum.clamp(min=0)
        # The spectrum's mean is the variance.
        return torch.fft.ifftn(spectrum / spectrum.mean()).real

    def _cut(self, fields: Tensor, fraction: float) -> Tensor:
        if not self.exact_fraction:
            return fields > NormalDist().inv_cdf(1 - fraction)
        flat = rearrange(fields, "batch ... -> batch (...)")
        count = round(fraction * flat.shape[1])
        ranks = flat.argsort(dim=1, descending=True).argsort(dim=1)
        return (ranks < count).view_as(fields)


def cut_correlation(covariance: Float[Tensor, "*lag"], *, fraction: float) -> Float[Tensor, "*lag"]:
    """Return S2 of the cut with this volume fraction of a field with this covariance."""
    angle, s2 = _cut_table(fraction)
    values = np.interp(np.arcsin(covariance.double().clamp(-1, 1).numpy()), angle, s2)
    return torch.from_numpy(np.asarray(values))


def field_covariance(s2: Float[Tensor, "*lag"], *, fraction: float) -> Float[Tensor, "*lag"]:
    """Return the field covariance whose cut has this S2, the inverse of `cut_correlation`."""
    angle, table = _cut_table(fraction)
    values = np.sin(np.interp(s2.double().numpy(), table, angle))
    return torch.from_numpy(np.asarray(values))


def _cut_table(fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Return asin(R) from -pi/2 to pi/2 and S2 there, by the trapezoid rule in asin(s)."""
    level = NormalDist().inv_cdf(1 - fraction)
    angle = np.linspace(-np.pi / 2, np.pi / 2, TABLE)
    slope = np.exp(-(level**2) / np.maximum(1 + np.sin(angle), 1e-12)) / (2 * np.pi)
    step = angle[1] - angle[0]
    s2 = np.concatenate([[0.0], np.cumsum((slope[1:] + slope[:-1]) * step / 2)])
    return angle, s2 - s2[TABLE // 2] + fraction**2


def _covariance(covariance: CovarianceName | TabulatedCovariance, r: Tensor) -> Tensor:
    match covariance:
        case "gaussian":
            return torch.exp(-r.square() / 2)
        case "exponential":
            return torch.exp(-r)
        case "oscillating":
            return torch.sinc(2 * r) * torch.exp(-r.square() / 8)
        case TabulatedCovariance(distance, value):
            ends = ((1, 0.0), (2, 0.0))
            spline = CubicSpline(distance, value, bc_type=ends)  # pyright: ignore[reportArgumentType]
            inside = r <= distance[-1]
            return torch.where(inside, torch.from_numpy(spline(r.clamp(max=distance[-1]))), 0.0)


def _decay_length(covariance: Tensor) -> float:
    """Return the lag in voxels at which a covariance curve first falls to 1/e."""
    below = torch.nonzero(covariance < math.exp(-1))
    if not len(below):
        return float(len(covariance) - 1)
    k = int(below[0])
    drop = float(covariance[k - 1] - covariance[k])
    return k - 1 + (float(covariance[k - 1]) - math.exp(-1)) / drop


def _about(fraction: float) -> tuple[float, float]:
    margin = min(fraction, 1 - fraction) / 2
    return fraction - margin, fraction + margin
