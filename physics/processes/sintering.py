"""Sintering: green density, particle size, temperature, time → porous body."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from scipy.spatial import KDTree
from torch import Tensor

from microstructures import DataError, Microstructure, Parameter, ProcessSpace
from microstructures.structure import ProcessValue
from physics.processes.campaign import Campaign, Parameters, known_point
from physics.processes.curvature_flow import heat_kernel, smooth
from physics.processes.particle_packing import Packing
from physics.processes.powder import green_body

GAS_CONSTANT = 8.314462618  # J / (mol K)
BOLTZMANN = 1.380649e-23  # J / K
SMALLEST_DIAMETER, FEWEST_PARTICLES = 5, 4
# Neighbours among which the nearest surface is sought; sizes differ little.
NEIGHBOURS = 6


@dataclass(frozen=True)
class Sintering:
    """Solid-state sintering of a powder compact by grain-boundary diffusion.

    Kinetics. Shrinkage y = -dL/L_0 of spheres of radius a follows Coble's two-particle law in the
    initial stage and slows down with the porosity left,

        3 y^2 dy/dt = W (1 - rho)/(1 - rho_0),   W = (3/2) gamma Omega delta D_b(T) / (k T a^4),
        rho = rho_0/(1 - y)^3,                   D_b = D_ref exp(-Q/R (1/T - 1/T_ref)),

    so y^3 = W t at first and rho -> 1 in the end; rho depends on W t alone (a master sintering
    curve), and time to a density scales as a^4 (Herring 1950, J. Appl. Phys. 21, 301). Sources:
    Coble (1958, J. Am. Ceram. Soc. 41, 55), with the neck law (X/a)^6 = 96 gamma Omega delta D_b
    t / (k T a^4) and X^2 = 4 a^2 y; Su and Johnson (1996, J. Am. Ceram. Soc. 79, 3211) for the
    master curve.

    Geometry. A random packing, thinned to the green density, shrinks with all centres approaching
    in proportion; the solid in the overlaps moves to the surfaces, so its volume stays; then the
    surface is smoothed over the neck's radius of curvature in Coble's geometry, r = a y, again at
    constant volume. `shape` is the final cell: it holds the particles of a green cell larger by
    (rho/rho_0)^(1/d).

    Limits: a simplified model. One rate law interpolates between the initial stage (good to
    y = 0.05) and full density; particles neither coarsen nor rearrange, so sintering late and at
    low green density is too fast; thinning makes voids that shrink like all others; gas in closed
    pores has no pressure. In 2-D the discs are sections of rods, some free of contacts,
    with the kinetics of spheres.
    Default constants are of the order of those of fine alumina powder; measure yours.

    The structures have phase 0 ("pore") and phase 1 ("solid"), of exactly the fraction that the
    kinetics give, to a voxel.

    Args:
        voxel_size_um: Voxel edge.
        surface_energy_j_m2: gamma.
        atomic_volume_m3: Omega.
        boundary_diffusivity_m3_s: delta D_b at the reference temperature.
        reference_temperature_k: T_ref.
        activation_energy_kj_mol: Q.
        size_variation: Standard deviation of particle radii over their mean (log-normal).

    Raises:
        DataError: A constant is not positive.
    """

    voxel_size_um: float = 0.05
    surface_energy_j_m2: float = 1.0
    atomic_volume_m3: float = 2.1e-29
    boundary_diffusivity_m3_s: float = 1.1e-23
    reference_temperature_k: float = 1573.0
    activation_energy_kj_mol: float = 418.0
    size_variation: float = 0.1

    def __post_init__(self) -> None:
        for name in (
            "voxel_size_um",
            "surface_energy_j_m2",
            "atomic_volume_m3",
            "boundary_diffusivity_m3_s",
            "reference_temperature_k",
            "activation_energy_kj_mol",
        ):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise DataError(f"expected {name} above 0, got {value}")
        if not 0 <= self.size_variation <= 0.3:
            raise DataError(f"expected size_variation between 0 and 0.3, got {self.size_variation}")

    @property
    def space(self) -> ProcessSpace:
        """Green density, particle diameter, temperature and time at temperature."""
        return ProcessSpace(
            [
                Parameter("green_density", "-", 0.45, 0.60),
                Parameter("particle_size_um", "um", 0.4, 0.8, "log"),
                Parameter("temperature_k", "K", 1423.0, 1573.0),
                Parameter("sintering_time_h", "h", 0.5, 8.0, "log"),
            ]
        )

    @property
    def phase_names(self) -> tuple[str, str]:
        """Names of labels 0 and 1."""
        return ("pore", "solid")

    def rate_per_h(self, temperature_k: float, particle_size_um: float) -> float:
        """Return W of Coble's law y^3 = W t, per hour, for a particle diameter."""
        inverse = 1 / temperature_k - 1 / self.reference_temperature_k
        factor = math.exp(-1000 * self.activation_energy_kj_mol / GAS_CONSTANT * inverse)
        diffusivity = self.boundary_diffusivity_m3_s * factor
        capillarity = self.surface_energy_j_m2 * self.atomic_volume_m3 / BOLTZMANN / temperature_k
        return 1.5 * 3600 * capillarity * diffusivity / (particle_size_um * 0.5e-6) ** 4

    def density(self, point: Mapping[str, ProcessValue]) -> float:
        """Return the density reached at a process point, relative to the solid's.

        Raises:
            DataError: A parameter is missing or out of bounds.
        """
        known = known_point(point, space=self.space)
        green, size, temperature, hours = (float(known[name] or 0) for name in self.space.names)
        return sintered_density(self.rate_per_h(temperature, size) * hours, green_density=green)

    def simulate(
        self,
        parameters: Parameters,
        *,
        shape: Sequence[int],
        seed: int,
        n: int = 1,
        first: int = 0,
    ) -> list[Microstructure]:
        """Sinter n periodic bodies at each process point.

        Args:
            parameters: A process dict, or several; all four parameters must be known.
            shape: Voxels along each axis after sintering, 2 or 3 axes.
            seed: Sample k overall uses (seed, first + k).
            n: Cells per process point.
            first: Index of the first sample.

        Returns:
            The cells in order, n in a row for each process point.

        Raises:
            DataError: A parameter is missing or out of bounds, the shape is not 2-D or 3-D, a
                particle is under 5 voxels wide, or the cell holds fewer than four particles.

        >>> process = {"green_density": 0.55, "particle_size_um": 0.5, "temperature_k": 1500.0,
        ...            "sintering_time_h": 2.0}
        >>> Sintering().simulate(process, shape=(32, 32), seed=0)[0].shape
        (32, 32)
        """
        campaign = Campaign.plan(
            parameters, space=self.space, shape=shape, seed=seed, n=n, first=first
        )
        for point in campaign.points:
            self._check_size(point, campaign.shape)
        return [
            Microstructure(
                phases=self._body(point, campaign.shape, campaign.generator(k)),
                voxel_size_um=self.voxel_size_um,
                process=point,
                phase_names=self.phase_names,
            )
            for k, point in enumerate(campaign.points)
        ]

    def _check_size(self, point: Mapping[str, ProcessValue], shape: tuple[int, ...]) -> None:
        diameter = float(point["particle_size_um"] or 0) / self.voxel_size_um
        ball = math.pi / 4 * diameter**2 if len(shape) == 2 else math.pi / 6 * diameter**3
        count = self.density(point) * math.prod(shape) / ball
        if diameter < SMALLEST_DIAMETER or count < FEWEST_PARTICLES:
            raise DataError(
                f"expected particles at least {SMALLEST_DIAMETER} voxels wide and "
                f"{FEWEST_PARTICLES} of them in the cell, got {diameter:.3g} voxels and "
                f"{count:.3g} particles in shape {shape}; change voxel_size_um or the shape"
            )

    def _body(
        self,
        point: Mapping[str, ProcessValue],
        shape: tuple[int, ...],
        generator: torch.Generator,
    ) -> np.ndarray:
        green, diameter = (float(point[name] or 0) for name in self.space.names[:2])
        density = self.density(point)
        cell = np.array(shape) * self.voxel_size_um * (density / green) ** (1 / len(shape))
        powder = green_body(
            green, diameter / 2, self.size_variation, cell_um=cell, generator=generator
        )
        shrinkage = 1 - (green / density) ** (1 / 3)
        solid = sintered_solid(
            powder,
            density,
            shape=shape,
            voxel_size_um=self.voxel_size_um,
            neck_radius_um=diameter / 2 * shrinkage,
        )
        return solid.to(torch.uint8).numpy()


def sintered_density(work: float, *, green_density: float) -> float:
    """Return rho after W t = `work` by 3 y^2 dy = (1 - rho)/(1 - rho_0) d(W t).

    >>> round(sintered_density(1e-6, green_density=0.5), 4)  # y = 0.01 nearly
    0.5152
    """
    # With y = y_full (1 - exp(-q)) both sides stay smooth up to full density at q = infinity.
    root = green_density ** (1 / 3)
    q = np.linspace(0, 30, 20001)
    left = (1 - root) * np.exp(-q)
    y = 1 - root - left
    porosity = -np.expm1(-3 * np.log1p(left / root))
    slope = 3 * y**2 * (1 - green_density) / porosity * left
    done = np.concatenate([[0.0], np.cumsum((slope[1:] + slope[:-1]) / 2 * np.diff(q))])
    # Nearly linear in the cube root, which makes the interpolation sharp.
    return 1 - float(np.interp(np.cbrt(work), np.cbrt(done), porosity))


def sintered_solid(
    powder: Packing,
    density: float,
    *,
    shape: Sequence[int],
    voxel_size_um: float,
    neck_radius_um: float,
) -> Bool[Tensor, "*space"]:
    """Return where solid is when the powder's cell has shrunk to `shape` at a density.

    The centres approach in proportion; all surfaces advance alike until the solid has its volume;
    smoothing by a Gaussian of standard deviation `neck_radius_um` follows at the same volume.
    """
    centres = powder.centres_um / powder.cell_um * np.array(shape)
    distance = _surface_distance(centres, powder.radii_um / voxel_size_um, shape)
    solid = _fullest(-distance, density)
    if solid.all() or neck_radius_um < voxel_size_um / 4:
        return solid
    # A ramp one voxel wide keeps the surface where it is between voxels.
    level = (distance[solid].max() + distance[~solid].min()) / 2
    ramp = (0.5 - (distance - level)).clamp(0, 1).unsqueeze(0)
    kernel = heat_kernel(tuple(shape), (neck_radius_um / voxel_size_um) ** 2 / 2, ramp)
    return _fullest(smooth(ramp, kernel)[0], density)


def _surface_distance(centres: np.ndarray, radii: np.ndarray, shape: Sequence[int]) -> Tensor:
    """Return the distance of each voxel's centre to the nearest particle's surface, in voxels."""
    axes = [np.arange(size) + 0.5 for size in shape]
    voxels = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    tree = KDTree(np.mod(centres, shape), boxsize=np.array(shape, dtype=float))
    distance, particle = tree.query(voxels, k=min(NEIGHBOURS, len(radii)))
    return torch.from_numpy((distance - radii[particle]).min(-1))


def _fullest(score: Tensor, fraction: float) -> Tensor:
    """Return the share of voxels that scores highest, exact to a voxel."""
    chosen = score.flatten().argsort(descending=True, stable=True)[
        : round(fraction * score.numel())
    ]
    solid = torch.zeros(score.numel(), dtype=torch.bool)
    solid[chosen] = True
    return solid.view(score.shape)
