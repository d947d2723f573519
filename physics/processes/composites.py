"""Composites: fraction, size and gap of fibres or particles → particles in a matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from microstructures import DataError, Microstructure, Parameter, ProcessSpace
from microstructures.structure import ProcessValue
from physics.processes.campaign import Campaign, Parameters
from physics.processes.particle_packing import (
    DENSEST,
    Packing,
    draw_radii,
    filled_fraction,
    pack,
)


@dataclass(frozen=True)
class Filler:
    """Bounds of the process parameters of a composite.

    Args:
        fraction: Bounds of volume_fraction.
        radius_um: Bounds of mean_radius_um.
        variation: Bounds of radius_cv, standard deviation over mean of log-normal radii.
        gap_um: Bounds of min_gap_um, the least distance between two surfaces.
    """

    fraction: tuple[float, float]
    radius_um: tuple[float, float]
    variation: tuple[float, float] = (0.0, 0.3)
    gap_um: tuple[float, float] = (0.0, 0.2)

    @property
    def space(self) -> ProcessSpace:
        """Volume fraction, mean radius, its coefficient of variation, least gap."""
        return ProcessSpace(
            [
                Parameter("volume_fraction", "-", *self.fraction),
                Parameter("mean_radius_um", "um", *self.radius_um),
                Parameter("radius_cv", "-", *self.variation),
                Parameter("min_gap_um", "um", *self.gap_um),
            ]
        )


@dataclass(frozen=True)
class FibreComposite:
    """Unidirectional fibres: discs that keep a gap, drawn out along axis 2 in 3-D.

    A 2-D cell is the cross-section; in 3-D the fibres lie along direction 3. Their number is
    whole, so all radii are scaled by a common factor (near 1 for many fibres) to give the exact
    fraction; that of the voxels differs by the voxelisation alone (`Packing.labels` says how
    much). Radii are log-normal. Placement by `pack`, up to an area fraction of 0.65, and to 0.80
    with half the gap added to each radius. Channel "fibre_ids" tells fibres apart, 0 in the
    matrix. Sources: Feder (1980, doi:10.1016/0022-5193(80)90358-6) for sequential addition, its
    limit of 0.547 being what swelling goes beyond; Metropolis et al. (1953) for stirring.

    Limits: straight parallel fibres, no clusters, resin pockets or voids; a hard-disc fluid, not
    the consolidation of a bundle.

    Args:
        voxel_size_um: Voxel edge.
        filler: Bounds of `.space`; the default is carbon fibre.
        sweeps: Monte Carlo moves per fibre after swelling; 0 leaves gaps all alike.
        phase_names: Names of labels 0 and 1.
    """

    voxel_size_um: float = 0.5
    filler: Filler = Filler((0.1, 0.65), (2.5, 3.5))
    sweeps: int = 30
    phase_names: tuple[str, str] = ("matrix", "fibre")

    @property
    def space(self) -> ProcessSpace:
        """Volume fraction, mean radius, its coefficient of variation, least gap."""
        return self.filler.space

    def simulate(
        self, parameters: Parameters, *, shape: Sequence[int], seed: int, n: int = 1, first: int = 0
    ) -> list[Microstructure]:
        """Place fibres in n periodic cells at each process point.

        Args:
            parameters: A process dict, or several; all four parameters must be known.
            shape: Voxels along each axis, 2 or 3 axes.
            seed: Cell k overall draws from (seed, first + k) alone.
            n: Cells per process point.
            first: Index of the first cell.

        Raises:
            DataError: A parameter is missing or out of bounds, the shape is not 2-D or 3-D, the
                fraction is too dense with its gap, or the cell is too small for a fibre.
            ConvergenceError: The fibres jam.

        >>> process = {"volume_fraction": 0.6, "mean_radius_um": 3.0}
        >>> process |= {"radius_cv": 0.1, "min_gap_um": 0.1}
        >>> FibreComposite().simulate(process, shape=(64, 64), seed=0)[0].n_phases
        2
        """
        campaign = Campaign.plan(
            parameters, space=self.space, shape=shape, seed=seed, n=n, first=first
        )
        section, along = campaign.shape[:2], (1,) * (len(campaign.shape) - 2)
        ids = [
            np.broadcast_to(p.labels(section).reshape(*section, *along), campaign.shape)
            for p in _packings(campaign, 2, self.voxel_size_um, self.sweeps)
        ]
        return _structures(campaign, ids, "fibre_ids", self.voxel_size_um, self.phase_names)

    def packings(
        self, parameters: Parameters, *, shape: Sequence[int], seed: int, n: int = 1, first: int = 0
    ) -> list[Packing]:
        """Return the exact centres and radii of the cross-sections behind `simulate`."""
        campaign = Campaign.plan(
            parameters, space=self.space, shape=shape, seed=seed, n=n, first=first
        )
        return _packings(campaign, 2, self.voxel_size_um, self.sweeps)


@dataclass(frozen=True)
class ParticleComposite:
    """Round particles that keep a gap: discs in 2-D, spheres in 3-D.

    As `FibreComposite` with spheres in 3-D, up to a volume fraction of 0.55, and to 0.60 with
    half the gap added to each radius (random sphere packings jam at about 0.64). A 2-D cell is a
    plane composite in its own right, not a section of a 3-D one. Channel "particle_ids" tells
    particles apart, 0 in the matrix.

    Limits: round particles, no agglomerates, no sedimentation; dense sphere packings keep a trace
    of how they were swollen unless `sweeps` is raised.

    Args:
        voxel_size_um: Voxel edge.
        filler: Bounds of `.space`; in 2-D fractions up to 0.65 may be asked for.
        sweeps: Monte Carlo moves per particle after swelling; 0 leaves gaps all alike.
        phase_names: Names of labels 0 and 1.
    """

    voxel_size_um: float = 1.0
    filler: Filler = Filler((0.05, 0.55), (5.0, 10.0))
    sweeps: int = 30
    phase_names: tuple[str, str] = ("matrix", "particle")

    @property
    def space(self) -> ProcessSpace:
        """Volume fraction, mean radius, its coefficient of variation, least gap."""
        return self.filler.space

    def simulate(
        self, parameters: Parameters, *, shape: Sequence[int], seed: int, n: int = 1, first: int = 0
    ) -> list[Microstructure]:
        """Place particles in n periodic cells at each process point.

        Args and errors: those of `FibreComposite.simulate`.
        """
        campaign = Campaign.plan(
            parameters, space=self.space, shape=shape, seed=seed, n=n, first=first
        )
        packings = _packings(campaign, len(campaign.shape), self.voxel_size_um, self.sweeps)
        ids = [packing.labels(campaign.shape) for packing in packings]
        return _structures(campaign, ids, "particle_ids", self.voxel_size_um, self.phase_names)

    def packings(
        self, parameters: Parameters, *, shape: Sequence[int], seed: int, n: int = 1, first: int = 0
    ) -> list[Packing]:
        """Return the exact centres and radii behind `simulate`."""
        campaign = Campaign.plan(
            parameters, space=self.space, shape=shape, seed=seed, n=n, first=first
        )
        return _packings(campaign, len(campaign.shape), self.voxel_size_um, self.sweeps)


def _packings(campaign: Campaign, ndim: int, voxel_size_um: float, sweeps: int) -> list[Packing]:
    cell = voxel_size_um * np.array(campaign.shape[:ndim], dtype=float)
    asked = [_numbers(point) for point in campaign.points]
    for fraction, mean, variation, gap in asked:
        filled = filled_fraction(fraction, mean, variation, gap, ndim=ndim)
        if filled > DENSEST[ndim]:
            raise DataError(
                f"expected at most {DENSEST[ndim]:g} of the cell filled with half the gap added "
                f"to each radius, got {filled:.3f} for fraction {fraction:g} and gap {gap:g} um; "
                "lower one of them"
            )
    packings = []
    for k, (fraction, mean, variation, gap) in enumerate(asked):
        generator = campaign.generator(k)
        radii = draw_radii(fraction, mean, variation, cell_um=cell, generator=generator)
        packings.append(pack(radii, cell_um=cell, gap_um=gap, sweeps=sweeps, generator=generator))
    return packings


def _numbers(point: Mapping[str, ProcessValue]) -> tuple[float, ...]:
    names = ("volume_fraction", "mean_radius_um", "radius_cv", "min_gap_um")
    return tuple(float(point[name] or 0) for name in names)


def _structures(
    campaign: Campaign,
    ids: Sequence[np.ndarray],
    channel: str,
    voxel_size_um: float,
    phase_names: tuple[str, str],
) -> list[Microstructure]:
    return [
        Microstructure(
            phases=(field > 0).astype(np.uint8),
            voxel_size_um=voxel_size_um,
            process=point,
            phase_names=phase_names,
            channels={channel: np.ascontiguousarray(field)},
        )
        for field, point in zip(ids, campaign.points, strict=True)
    ]
