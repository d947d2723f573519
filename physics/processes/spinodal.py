"""Spinodal decomposition of a binary alloy: composition, temperature, ageing time → two phases."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from microstructures import DataError, Microstructure, Parameter, ProcessSpace
from microstructures.seeds import generator_for
from microstructures.structure import ProcessValue

GAS_CONSTANT = 8.314462618e-3  # kJ / (mol K)
# Stabilisation of the exponential step: at least max|f''|/2 = 1 keeps the energy from rising.
STABILISATION = 2.0
FIRST_STEP, LAST_STEP, STEPS_PER_DOUBLING = 0.125, 0.5, 40


@dataclass(frozen=True)
class SpinodalDecomposition:
    """Cahn-Hilliard model of a symmetric binary alloy below its critical temperature.

    The order parameter is psi = 2c - 1 for the solute fraction c. The Landau expansion of the
    regular solution in units of RT gives f = -(a/2) psi^2 + psi^4/12 with a = T_c/T - 1, so the
    coexisting phases are psi_e = ±sqrt(3a), and

        d psi/dt = M(T) lap(f'(psi) - kappa lap psi),   M = M_ref exp(-Q/R (1/T - 1/T_ref)).

    Scaled with xi = sqrt(kappa/a), psi_e and t* = kappa/(M a^2) this is one universal equation,
    which is what is integrated (spectral, exponential time differencing of second order). Phase 1
    ("solute-rich") is psi > 0. Sources: Cahn and Hilliard (1958), Cahn (1961); Cox and Matthews
    (2002) for the integrator.

    Limits: constant mobility, no elastic misfit, no thermal noise after the start, isotropic
    interfaces; a Landau (not full regular-solution) energy, so phase compositions are those near
    T_c. Domains wider than about a third of the cell feel its periodicity.

    Args:
        voxel_size_um: Voxel edge.
        critical_temperature_k: T_c.
        gradient_energy_um2: kappa/(RT); with a it sets the interface width.
        mobility_um2_h: M at the reference temperature.
        reference_temperature_k: T_ref.
        activation_energy_kj_mol: Q.
        noise: Standard deviation of the initial psi relative to psi_e.
    """

    voxel_size_um: float = 0.005
    critical_temperature_k: float = 900.0
    gradient_energy_um2: float = 6.5e-6
    mobility_um2_h: float = 5.2e-3
    reference_temperature_k: float = 700.0
    activation_energy_kj_mol: float = 100.0
    noise: float = 0.1

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
        parameters: Mapping[str, ProcessValue] | Sequence[Mapping[str, ProcessValue]],
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
        points = [parameters] if isinstance(parameters, Mapping) else list(parameters)
        shape = tuple(int(s) for s in shape)
        if len(shape) not in (2, 3) or min(shape) < 4 or n < 1:
            raise DataError(
                f"expected a 2-D or 3-D shape of at least 4 voxels a side and n >= 1, got {shape} "
                f"and n = {n}"
            )
        for point in points:
            self._check(point)
        repeated = [point for point in points for _ in range(n)]
        psi = self.order_parameter(repeated, shape=shape, seed=seed, first=first)
        return [
            Microstructure(
                phases=(field > 0).to(torch.uint8).numpy(),
                voxel_size_um=self.voxel_size_um,
                process=dict(point),
                phase_names=self.phase_names,
            )
            for field, point in zip(psi, repeated, strict=True)
        ]

    def order_parameter(
        self,
        points: Sequence[Mapping[str, ProcessValue]],
        *,
        shape: Sequence[int],
        seed: int,
        first: int = 0,
    ) -> Float[Tensor, "batch *space"]:
        """Return psi/psi_e of one cell per process point, the field behind `simulate`."""
        scales = [self._scales(point) for point in points]
        mean, xi, end = (torch.tensor(s, dtype=torch.float64) for s in zip(*scales, strict=True))
        noise = torch.stack(
            [
                torch.randn(
                    tuple(shape), generator=generator_for(seed, first + k), dtype=torch.float64
                )
                for k in range(len(points))
            ]
        )
        axes = tuple(range(1, noise.ndim))
        noise = noise - noise.mean(axes, keepdim=True)
        column = (-1, *[1] * len(axes))
        start = mean.view(column) + self.noise * noise
        return cahn_hilliard(start, spacing=self.voxel_size_um / xi, end=end)

    def _check(self, point: Mapping[str, ProcessValue]) -> None:
        if any(math.isnan(u) for u in self.space.to_unit(point)):
            raise DataError(
                f"expected values for {', '.join(self.space.names)} to simulate, got {dict(point)}"
            )

    def _scales(self, point: Mapping[str, ProcessValue]) -> tuple[float, float, float]:
        """Return mean psi/psi_e, xi in um, and the ageing time in units of t*."""
        c, temperature, hours = (float(point[name] or 0) for name in self.space.names)
        a = self.critical_temperature_k / temperature - 1
        boltzmann = self.activation_energy_kj_mol / GAS_CONSTANT
        mobility = self.mobility_um2_h * math.exp(
            -boltzmann * (1 / temperature - 1 / self.reference_temperature_k)
        )
        end = hours * mobility * a**2 / self.gradient_energy_um2
        return (2 * c - 1) / math.sqrt(3 * a), math.sqrt(self.gradient_energy_um2 / a), end


def cahn_hilliard(
    start: Float[Tensor, "batch *space"],
    *,
    spacing: Float[Tensor, " batch"],
    end: Float[Tensor, " batch"],
    step: float | None = None,
) -> Float[Tensor, "batch *space"]:
    """Integrate d psi/dt = lap(psi^3 - psi - lap psi) on a periodic grid.

    Exponential time differencing (ETDRK2, Cox and Matthews 2002) of the stabilised linear part
    L = -k^4 - S k^2. Mass is conserved to round-off and the energy does not rise. Each sample
    follows the same schedule of steps in its own time (doubling from 1/8 to 1/2 as coarsening
    slows), so its result does not depend on its company in the batch.

    Args:
        start: Initial psi.
        spacing: Voxel edge in units of the interface length, one per sample.
        end: Final time, one per sample.
        step: Constant step instead of the schedule (for studies of convergence).
    """
    # Samples that run longest stand first, so that finished ones leave from the tail.
    order = torch.argsort(end, descending=True, stable=True)
    psi, spacing, end = start[order], spacing[order], end[order]
    done = torch.empty_like(psi)
    k2 = _squared_wave_numbers(psi.shape[1:], spacing)
    time, h, steps_at_h = 0.0, step or FIRST_STEP, 0
    coefficients = _etd_coefficients(k2, h)
    while len(psi):
        stays = int((end[: len(psi)] > time + h).sum())
        if stays < len(psi):
            last = (end[stays : len(psi)] - time).view(-1, *[1] * (k2.ndim - 1))
            tail = _etd_coefficients(k2[stays : len(psi)], last)
            done[stays : len(psi)] = _etdrk2_step(psi[stays:], tail)
            psi, coefficients = psi[:stays], tuple(c[:stays] for c in coefficients)
            if not stays:
                break
        psi = _etdrk2_step(psi, coefficients)
        time, steps_at_h = time + h, steps_at_h + 1
        if step is None and h < LAST_STEP and steps_at_h == STEPS_PER_DOUBLING:
            h, steps_at_h = 2 * h, 0
            coefficients = _etd_coefficients(k2[:stays], h)
    return done[torch.argsort(order)]


def free_energy(
    psi: Float[Tensor, "batch *space"], *, spacing: Float[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Return the mean of (1 - psi^2)^2/4 + |grad psi|^2/2, which Cahn-Hilliard flow lowers."""
    axes = tuple(range(1, psi.ndim))
    k2 = _squared_wave_numbers(psi.shape[1:], spacing, real=False)
    gradient = (k2 * torch.fft.fftn(psi, dim=axes).abs().square()).mean(axes) / psi[0].numel()
    return ((1 - psi.square()).square() / 4).mean(axes) + gradient / 2


def _squared_wave_numbers(shape: Sequence[int], spacing: Tensor, *, real: bool = True) -> Tensor:
    total = torch.zeros((), dtype=spacing.dtype)
    for axis, size in enumerate(shape):
        last = real and axis == len(shape) - 1
        k = (torch.fft.rfftfreq if last else torch.fft.fftfreq)(size, dtype=spacing.dtype)
        total = total.unsqueeze(-1) + (2 * math.pi * k).square()
    return total / spacing.view(-1, *[1] * len(shape)).square()


def _etd_coefficients(k2: Tensor, h: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return e^z, -k^2 h phi_1(z) and -k^2 h phi_2(z) with z = -h (k^4 + S k^2)."""
    z = -h * k2 * (k2 + STABILISATION)
    safe = torch.where(z < -0.02, z, -1.0)
    phi1 = torch.where(z < -0.02, torch.expm1(safe) / safe, 1 + z / 2 + z**2 / 6 + z**3 / 24)
    phi2 = torch.where(
        z < -0.02, (torch.expm1(safe) - safe) / safe**2, 0.5 + z / 6 + z**2 / 24 + z**3 / 120
    )
    return torch.exp(z), -k2 * h * phi1, -k2 * h * phi2


def _etdrk2_step(psi: Tensor, coefficients: tuple[Tensor, ...]) -> Tensor:
    decay, first, second = coefficients
    axes, shape = tuple(range(1, psi.ndim)), psi.shape[1:]
    force = torch.fft.rfftn(_explicit_force(psi), dim=axes)
    predicted = decay * torch.fft.rfftn(psi, dim=axes) + first * force
    trial = torch.fft.irfftn(predicted, s=shape, dim=axes)
    correction = second * (torch.fft.rfftn(_explicit_force(trial), dim=axes) - force)
    return trial + torch.fft.irfftn(correction, s=shape, dim=axes)


def _explicit_force(psi: Tensor) -> Tensor:
    return psi * (psi.square() - (1 + STABILISATION))
