"""Level cut of a Gaussian random field: the baseline that matches fraction and S2, no more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from microstructures import DataError, Microstructure, Parameter, ProcessSpace
from microstructures.structure import ProcessValue
from physics.processes.campaign import Campaign, Parameters
from physics.processes.covariances import (
    Covariance,
    MappedCovariance,
    TabulatedCovariance,
    covariance_at,
    decay_length,
    realisable_covariance,
)
from physics.processes.level_cut import cut_correlation, field_covariance
from physics.statistics.correlation import lag_vectors, radial_mean, two_point_correlation


@dataclass(frozen=True)
class Mismatch:
    """How far the S2 that cells will have lies from the wanted one.

    Args:
        rms: Root mean square over the lags compared.
        largest: Largest difference, realised - wanted.
        lag: Where that is, in voxels along each axis.
    """

    rms: float
    largest: float
    lag: tuple[int, ...]


@dataclass(frozen=True)
class RandomField:
    """Cut of a stationary Gaussian random field Y at a level (Berk 1991, Quiblier 1984).

    Phase 1 is Y > t with P(Y > t) = volume_fraction, so a field of covariance R(r) gives
    S2(r) = phi^2 + (1/2 pi) int_0^R exp(-t^2/(1 + s)) / sqrt(1 - s^2) ds
    (1/4 + asin(R)/(2 pi) at t = 0). Cells are periodic. The covariance on the grid is that of the
    shortest periodic image, brought to a spectrum without negative entries at the cost of long
    lags.

    `from_s2` makes one for any wanted S2, `fit` for given structures; not every S2 is that of a
    level cut, and `mismatch` says how near it comes.

    Args:
        covariance: "gaussian" exp(-(r/l)^2/2), smooth; "exponential" exp(-r/l), rough;
            "oscillating" sin(q)/q exp(-(r/l)^2/8) with q = 2 pi r/l, of wavelength l, as after
            spinodal decomposition; or a table or map (`from_s2` and `fit` make them).
        voxel_size_um: Voxel edge.
        anisotropy: Correlation length along axis 0 over that along the other axes.
        exact_fraction: Cut each cell at its own level, so that its fraction is the wanted one to
            a voxel; else the fraction of a finite cell scatters about it.
        fraction_bounds: Bounds of volume_fraction in `.space`.
        length_bounds_um: Bounds of correlation_length_um in `.space`.
        phase_names: Names of labels 0 and 1.
    """

    covariance: Covariance = "gaussian"
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
    def from_s2(
        cls,
        s2: Float[Tensor, "*lag"],
        *,
        voxel_size_um: float = 1.0,
        phase_names: tuple[str, str] = ("matrix", "inclusion"),
    ) -> "RandomField":
        """Return the field whose cuts have this S2, as nearly as level cuts can.

        S2 is mapped through the exact relation of the level cut to the field's covariance; the
        fraction is S2 at zero lag. The correlation length is the lag at which the covariance
        falls to 1/e; simulate at the midpoint of `.space` to get the wanted S2.

        Args:
            s2: An isotropic curve at lags of 0, 1, 2, ... voxels, for cells of any dimension; or
                a map of lags, zero lag at index 0, for any anisotropy.
            voxel_size_um: Voxel edge.
            phase_names: Names of labels 0 and 1.

        Raises:
            DataError: Not a curve or a map of 2 or 3 axes, not finite, or S2 at zero lag is no
                fraction between 0 and 1 or not its largest value.

        >>> r = torch.arange(20.0)
        >>> field = RandomField.from_s2(0.09 + 0.21 * torch.exp(-r / 4))
        >>> field.simulate(field.space.from_unit([0.5, 0.5]), shape=(32, 32), seed=0)[0].shape
        (32, 32)
        """
        fraction = _checked_fraction(s2)
        covariance = field_covariance(s2, fraction=fraction)
        curve = covariance
        if covariance.ndim > 1:
            curve = radial_mean(covariance[None], max_lag=min(s2.shape) // 2)[0]
        length = decay_length(curve)
        model = MappedCovariance.from_map(covariance, spacing=1 / length)
        if covariance.ndim == 1:
            lags = voxel_size_um * np.arange(len(curve)) / (length * voxel_size_um)
            model = TabulatedCovariance(tuple(lags.tolist()), tuple(curve.tolist()))
        length *= voxel_size_um
        margin = min(fraction, 1 - fraction) / 2
        return cls(
            covariance=model,
            voxel_size_um=voxel_size_um,
            fraction_bounds=(fraction - margin, fraction + margin),
            length_bounds_um=(length / 2, length * 2),
            phase_names=phase_names,
        )

    @classmethod
    def fit(
        cls, structures: Sequence[Microstructure], *, phase: int = 1, isotropic: bool = True
    ) -> "RandomField":
        """Return the field whose cuts have the fraction and the S2 of a phase of the structures.

        Args:
            structures: Structures of one shape and voxel size, whose mean S2 is taken.
            phase: Label that becomes phase 1.
            isotropic: Take the radial mean of S2; else the whole map, which serves cells of the
                same dimension only.

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
        if isotropic:
            s2 = radial_mean(correlation, max_lag=min(first.shape) // 2).mean(0)
        else:
            s2 = _short_lags(correlation.mean(0), first.shape)
        if not 0 < float(s2.flatten()[0]) < 1:
            raise DataError(
                f"expected phase {phase} to fill part of the structures, got fraction "
                f"{float(s2.flatten()[0]):g}"
            )
        names = first.phase_names
        rest = names[1 - phase] if len(names) == 2 else f"not {names[phase]}"
        # Where few pairs are counted, the estimate at a long lag may top that at zero.
        s2 = s2.clamp(max=float(s2.flatten()[0]))
        return cls.from_s2(s2, voxel_size_um=first.voxel_size_um, phase_names=(rest, names[phase]))

    def simulate(
        self, parameters: Parameters, *, shape: Sequence[int], seed: int, n: int = 1, first: int = 0
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
        campaign = Campaign.plan(
            parameters, space=self.space, shape=shape, seed=seed, n=n, first=first, smallest=2
        )
        cells = []
        for start in range(0, len(campaign), n):
            fraction, length = self._numbers(campaign.points[start])
            fields = self.field(
                length, shape=campaign.shape, seed=seed, n=n, first=campaign.first + start
            )
            cells += [
                Microstructure(
                    phases=phases,
                    voxel_size_um=self.voxel_size_um,
                    process=campaign.points[start],
                    phase_names=self.phase_names,
                )
                for phases in self._cut(fields, fraction).to(torch.uint8).numpy()
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
        campaign = Campaign.plan(
            {}, space=ProcessSpace([]), shape=shape, seed=seed, n=n, first=first, smallest=2
        )
        axes = tuple(range(1, len(campaign.shape) + 1))
        covariance = self.covariance_map(correlation_length_um, shape=campaign.shape)
        amplitude = torch.fft.rfftn(covariance).real.clamp(min=0).sqrt()
        noise = torch.fft.rfftn(campaign.white_noise(), dim=axes)
        return torch.fft.irfftn(amplitude * noise, s=campaign.shape, dim=axes)

    def covariance_map(
        self, correlation_length_um: float, *, shape: Sequence[int]
    ) -> Float[Tensor, "*lag"]:
        """Return the covariance that `field` has on this grid, zero lag at index 0."""
        shape = tuple(int(s) for s in shape)
        lags = lag_vectors(shape).to(torch.float64)
        near = lags.square().sum(0).sqrt() <= min(shape) / 4
        lags *= self.voxel_size_um / correlation_length_um
        lags[0] /= self.anisotropy
        return realisable_covariance(covariance_at(self.covariance, lags), kept=near)

    def realised_s2(
        self, process: Mapping[str, ProcessValue], *, shape: Sequence[int]
    ) -> Float[Tensor, "*lag"]:
        """Return the S2 that cells of this shape have on average, as a map of lags."""
        fraction, length = self._numbers(process)
        return cut_correlation(self.covariance_map(length, shape=shape), fraction=fraction)

    def mismatch(
        self,
        s2: Float[Tensor, "*lag"],
        *,
        shape: Sequence[int],
        process: Mapping[str, ProcessValue] | None = None,
    ) -> Mismatch:
        """Return how far cells of this shape will be from a wanted S2.

        What is missed is what no level cut can have (values beyond its bounds, negative power)
        and what the periodic cell takes away at long lags.

        Args:
            s2: The wanted S2: a curve, compared at whole lags along each axis up to half the
                cell, or a map of lags of this shape, compared everywhere.
            shape: Voxels along each axis.
            process: Where to compare; None is the midpoint of `.space`.

        Raises:
            DataError: A map of another shape.
        """
        realised = self.realised_s2(process or self.space.from_unit([0.5, 0.5]), shape=shape)
        wanted = s2.double()
        lags = lag_vectors(tuple(shape)).long()
        if wanted.ndim > 1 and wanted.shape != realised.shape:
            raise DataError(
                f"expected a wanted S2 of shape {tuple(realised.shape)}, got {tuple(wanted.shape)}"
            )
        if wanted.ndim == 1:
            far = lags.abs().amax(0)
            compared = (lags.abs().sum(0) == far) & (far < len(wanted)) & (far <= min(shape) // 2)
            lags, realised = lags[:, compared], realised[compared]
            wanted = wanted[far[compared]]
        error = (realised - wanted).flatten()
        worst = int(error.abs().argmax())
        where = tuple(int(x) for x in lags.flatten(1)[:, worst])
        return Mismatch(float(error.square().mean().sqrt()), float(error[worst]), where)

    def _numbers(self, process: Mapping[str, ProcessValue]) -> tuple[float, float]:
        fraction, length = (float(process[name] or 0) for name in self.space.names)
        return fraction, length

    def _cut(self, fields: Tensor, fraction: float) -> Tensor:
        if not self.exact_fraction:
            return fields > NormalDist().inv_cdf(1 - fraction)
        flat = rearrange(fields, "batch ... -> batch (...)")
        count = round(fraction * flat.shape[1])
        ranks = flat.argsort(dim=1, descending=True).argsort(dim=1)
        return (ranks < count).view_as(fields)


def _checked_fraction(s2: Tensor) -> float:
    if s2.ndim not in (1, 2, 3) or s2.numel() < 2 or not s2.isfinite().all():
        raise DataError(
            "expected a finite S2 as a curve or a map of 2 or 3 axes with several lags, got shape "
            f"{tuple(s2.shape)}"
        )
    fraction = float(s2.flatten()[0])
    if not 0 < fraction < 1 or float(s2.max()) > fraction + 1e-9:
        raise DataError(
            "expected S2 at zero lag to be a fraction between 0 and 1 and the largest value, got "
            f"{fraction:g} with a largest of {float(s2.max()):g}"
        )
    return fraction


def _short_lags(correlation: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a map of lags without those beyond half the structure."""
    for axis, n in enumerate(shape):
        size = correlation.shape[axis]
        if size > n:
            ends = torch.cat([torch.arange(n // 2 + 1), torch.arange(size - n // 2, size)])
            correlation = correlation.index_select(axis, ends)
    return correlation
