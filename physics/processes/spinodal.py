"""Spinodal decomposition of a binary alloy: composition, temperature, ageing time → two phases."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from microstructures import DataError, Microstructure, Parameter, ProcessSpace
from microstructures.structure import ProcessValue
from physics.processes.cahn_hilliard import cahn_hilliard
from physics.processes.campaign import Campaign, Parameters
from physics.processes.misfit import CubicMisfit

GAS_CONSTANT = 8.314462618e-3  # kJ / (mol K)


@dataclass(frozen=True)
class SpinodalDecomposition:
    """Cahn-Hilliard model of a symmetric binary alloy below its critical temperature.

    The order parameter is psi = 2c - 1 for the solute fraction c. The Landau expansion of the
    regular solution in units of RT gives f = -(a/2) psi^2 + psi^4/12 with a = T_c/T - 1, so the
    coexisting phases are psi_e = ±sqrt(3a), and

        d psi/dt = M(T) lap(f'(psi) - kappa lap psi),   M = M_ref exp(-Q/R (1/T - 1/T_ref)).

    Scaled with xi = sqrt(kappa/a), psi_e and t* = kappa/(M a^2) this is one universal equation,
    which is what is integrated (spectral, exponential time differencing of second order). Phase 1
    ("solute-rich") is psi > 0. A lattice misfit adds b(n) psi to the chemical potential, with
    b = B(n) V_m/(4 R T) of the direction n of the wave vector (Khachaturyan 1983): domains align
    with the soft directions and the spinodal becomes the coherent one. Sources: Cahn and Hilliard
    (1958), Cahn (1961, also for the misfit); Cox and Matthews (2002) for the integrator.

    Limits: constant mobility, one elastic modulus for both phases, cells that keep coherence at
    any size, no thermal noise after the start, isotropic interfaces; a Landau (not full
    regular-solution) energy, so phase compositions are those near T_c. Domains wider than about a
    third of the cell feel its periodicity.

    Args:
        voxel_size_um: Voxel edge.
        critical_temperature_k: T_c.
        gradient_energy_um2: kappa/(RT); with a it sets the interface width.
        mobility_um2_h: M at the reference temperature.
        reference_temperature_k: T_ref.
        activation_energy_kj_mol: Q.
        noise: Standard deviation of the initial psi relative to psi_e.
        misfit: Elastic constants and lattice misfit, cubic axes along the grid; None for none.
    """

    voxel_size_um: float = 0.005
    critical_temperature_k: float = 900.0
    gradient_energy_um2: float = 6.5e-6
    mobility_um2_h: float = 5.2e-3
    reference_temperature_k: float = 700.0
    activation_energy_kj_mol: float = 100.0
    noise: float = 0.1
    misfit: CubicMisfit | None = None

    @property
    def space(self) -> ProcessSpace:
        """Composition, temperature and ageing time, all inside the spinodal."""
        return ProcessSpace(
            [
                Parameter("composition", "-", 0.36, 0.64),
                Parameter("temperature_k", "K", 680.0, 780.0),
                Parameter("ageing_time_h", "h", 1.0, 6.0, "log"),
            ]
        )

    @property
    def phase_names(self) -> tuple[str, str]:
        """Names of labels 0 and 1."""
        return ("solute-poor", "solute-rich")

    def simulate(
        self,
        parameters: Parameters,
        *,
        shape: Sequence[int],
        seed: int,
        n: int = 1,
        first: int = 0,
    ) -> list[Microstructure]:
        """Simulate n periodic cells at each process point.

        Args:
            parameters: A process dict, or several; all three parameters must be known.
            shape: Voxels along each axis, 2 or 3 axes.
            seed: Sample k overall starts from noise seeded by (seed, first + k), so a campaign
                may be cut into any pieces.
            n: Cells per process point.
            first: Index of the first sample.

        Returns:
            The cells in order, n in a row for each process point.

        Raises:
            DataError: A parameter is missing or out of bounds, or the shape is not 2-D or 3-D.

        >>> alloy = SpinodalDecomposition()
        >>> process = {"composition": 0.5, "temperature_k": 700.0, "ageing_time_h": 1.0}
        >>> alloy.simulate(process, shape=(32, 32), seed=0)[0].shape
        (32, 32)
        """
        campaign = Campaign.plan(
            parameters, space=self.space, shape=shape, seed=seed, n=n, first=first
        )
        psi = self.order_parameter(campaign.points, shape=campaign.shape, seed=seed, first=first)
        return [
            Microstructure(
                phases=(field > 0).to(torch.uint8).numpy(),
                voxel_size_um=self.voxel_size_um,
                process=point,
                phase_names=self.phase_names,
            )
            for field, point in zip(psi, campaign.points, strict=True)
        ]

    def order_parameter(
        self,
        points: Sequence[Mapping[str, ProcessValue]],
        *,
        shape: Sequence[int],
        seed: int,
        first: int = 0,
    ) -> Float[Tensor, "batch *space"]:
        """Return psi/psi_e of one cell per process point, the field behind `simulate`.

        Raises:
            DataError: A parameter is missing or out of bounds, the shape is not 2-D or 3-D, or
                the misfit keeps the alloy from decomposing.
        """
        campaign = Campaign.plan(points, space=self.space, shape=shape, seed=seed, first=first)
        scales = [self._scales(point) for point in campaign.points]
        mean, xi, end, elastic = (
            torch.tensor(s, dtype=torch.float64) for s in zip(*scales, strict=True)
        )
        column = (-1, *[1] * len(campaign.shape))
        misfit = None
        if self.misfit is not None:
            misfit = elastic.view(column) * self.misfit.energy_map(campaign.shape)
            self._check_unstable(mean, misfit)
        noise = campaign.white_noise()
        noise = noise - noise.mean(tuple(range(1, noise.ndim)), keepdim=True)
        start = mean.view(column) + self.noise * noise
        return cahn_hilliard(start, spacing=self.voxel_size_um / xi, end=end, misfit=misfit)

    def _check_unstable(self, mean: Tensor, misfit: Tensor) -> None:
        softest = misfit.flatten(1)[:, 1:].min(1).values
        growth = 1 - 3 * mean.square() - softest
        if (growth <= 0).any():
            worst = int(growth.argmin())
            raise DataError(
                "expected every point inside the coherent spinodal, 3 psi^2 + beta < 1, got "
                f"{1 - float(growth[worst]):.3g} for point {worst}; lower the misfit strain"
            )

    def _scales(self, point: Mapping[str, ProcessValue]) -> tuple[float, float, float, float]:
        """Return mean psi/psi_e, xi in um, the ageing time in units of t*, and beta per GPa."""
        c, temperature, hours = (float(point[name] or 0) for name in self.space.names)
        a = self.critical_temperature_k / temperature - 1
        boltzmann = self.activation_energy_kj_mol / GAS_CONSTANT
        mobility = self.mobility_um2_h * math.exp(
            -boltzmann * (1 / temperature - 1 / self.reference_temperature_k)
        )
        end = hours * mobility * a**2 / self.gradient_energy_um2
        volume = 0 if self.misfit is None else self.misfit.molar_volume_cm3
        elastic = volume / (4 * GAS_CONSTANT * temperature * a)
        xi = math.sqrt(self.gradient_energy_um2 / a)
        return (2 * c - 1) / math.sqrt(3 * a), xi, end, elastic
