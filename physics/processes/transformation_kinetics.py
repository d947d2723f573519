"""How fast nuclei appear and grow: rates against temperature, or rates given directly."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from microstructures import DataError, Parameter

GAS_CONSTANT = 8.314462618  # J / (mol K)
BOLTZMANN = 1.380649e-23  # J / K

Table = Float[np.ndarray, " time"]


@dataclass(frozen=True)
class Rates:
    """Kinetics along a history, one entry per time.

    Args:
        sites_per_um3: Density of nuclei that have become active at once (athermal); a rise adds
            nuclei at that time, a fall takes none away.
        nucleation_per_um3_s: Rate at which further nuclei appear in untransformed matter.
        growth_um_s: Speed of the front, the same for all nuclei.
    """

    sites_per_um3: Table
    nucleation_per_um3_s: Table
    growth_um_s: Table


@runtime_checkable
class Kinetics(Protocol):
    """Rates of nucleation and growth, and the process parameters that set them."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Process parameters besides the time."""
        ...

    def rates(self, process: Mapping[str, float], time_s: Table) -> Rates:
        """Return the rates at these times of the process."""
        ...


@dataclass(frozen=True)
class DirectRates:
    """Constant rates that are process parameters themselves; None leaves a mechanism out.

    Args:
        nucleation_bounds: Bounds of nucleation_rate_per_um3_s.
        sites_bounds: Bounds of nuclei_per_um3, nuclei that are there at the start.
        growth_bounds: Bounds of growth_rate_um_s.

    Raises:
        DataError: Both kinds of nuclei are left out.
    """

    nucleation_bounds: tuple[float, float] | None = (1e-6, 1e-4)
    sites_bounds: tuple[float, float] | None = None
    growth_bounds: tuple[float, float] = (0.1, 1.0)

    def __post_init__(self) -> None:
        if self.nucleation_bounds is None and self.sites_bounds is None:
            raise DataError(
                "expected bounds of nucleation or of sites, got None for both; give one of them"
            )

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Nucleation rate, density of nuclei at the start, growth rate: those that have bounds."""
        bounds = (
            ("nucleation_rate_per_um3_s", "1/(um^3 s)", self.nucleation_bounds),
            ("nuclei_per_um3", "1/um^3", self.sites_bounds),
            ("growth_rate_um_s", "um/s", self.growth_bounds),
        )
        return tuple(Parameter(name, unit, *b, "log") for name, unit, b in bounds if b)

    def rates(self, process: Mapping[str, float], time_s: Table) -> Rates:
        """Return the rates at these times, which are constant."""
        names = ("nuclei_per_um3", "nucleation_rate_per_um3_s", "growth_rate_um_s")
        return Rates(*(np.full(len(time_s), process.get(name, 0.0)) for name in names))


@dataclass(frozen=True)
class Thermal:
    """Temperature history: a hold, reached at once or by cooling at a constant rate.

    Args:
        bounds_k: Bounds of temperature_k, the temperature of the hold.
        start_k: Where cooling starts; None quenches straight to the hold.
        cooling_bounds_k_s: Bounds of cooling_rate_k_s, a process parameter if start_k is given.
    """

    bounds_k: tuple[float, float]
    start_k: float | None = None
    cooling_bounds_k_s: tuple[float, float] = (0.05, 5.0)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Temperature of the hold, and the cooling rate towards it."""
        hold = Parameter("temperature_k", "K", *self.bounds_k)
        rate = Parameter("cooling_rate_k_s", "K/s", *self.cooling_bounds_k_s, "log")
        return (hold,) if self.start_k is None else (hold, rate)

    def temperature_k(self, process: Mapping[str, float], time_s: Table) -> Table:
        """Return the temperature at these times."""
        hold = process["temperature_k"]
        if self.start_k is None:
            return np.full(len(time_s), hold)
        return np.maximum(hold, self.start_k - process["cooling_rate_k_s"] * time_s)


@dataclass(frozen=True)
class HoffmanLauritzen:
    """Crystallisation of a polymer melt on nuclei that become active with undercooling.

    G = G0 exp(-U/(R (T - T_inf))) exp(-K_g/(T dT)) with dT = T_m - T (Hoffman and Lauritzen 1976;
    without the correction factor for the heat of fusion, which the default constants were fitted
    without), and N = exp(a dT + b) nuclei per cubic metre. Defaults: isotactic polypropylene,
    Koscher and Fulchiron (2002), Polymer 43, 6931.

    Limits: quiescent melt, one crystallisation regime; the constants were measured at 120 to
    140 degrees Celsius and are an extrapolation elsewhere.

    Args:
        thermal: Temperature history.
        growth_prefactor_m_s: G0.
        growth_constant_k2: K_g.
        transport_energy_j_mol: U.
        melting_temperature_k: Equilibrium melting temperature T_m.
        frozen_temperature_k: T_inf, 30 K below the glass transition.
        nuclei_slope_per_k: a.
        nuclei_offset: b, for nuclei per cubic metre.
    """

    thermal: Thermal = Thermal((388.0, 403.0))
    growth_prefactor_m_s: float = 283.0
    growth_constant_k2: float = 5.5e5
    transport_energy_j_mol: float = 6270.0
    melting_temperature_k: float = 483.0
    frozen_temperature_k: float = 239.0
    nuclei_slope_per_k: float = 0.156
    nuclei_offset: float = 15.1

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Those of the temperature history."""
        return self.thermal.parameters

    def rates(self, process: Mapping[str, float], time_s: Table) -> Rates:
        """Return the rates at these times; none above the melting temperature."""
        t = self.thermal.temperature_k(process, time_s)
        undercooling = np.maximum(self.melting_temperature_k - t, 1e-6)
        transport = self.transport_energy_j_mol / (GAS_CONSTANT * (t - self.frozen_temperature_k))
        growth = self.growth_prefactor_m_s * np.exp(
            -transport - self.growth_constant_k2 / (t * undercooling)
        )
        nuclei = np.exp(self.nuclei_slope_per_k * undercooling + self.nuclei_offset)
        return Rates(1e-18 * nuclei * (growth > 0), np.zeros(len(t)), 1e6 * growth)


@dataclass(frozen=True)
class TurnbullFisher:
    """Crystallisation of an undercooled glass-forming melt by steady homogeneous nucleation.

    I = I0 exp(-Q/RT) exp(-W/kT) with W = 16 pi gamma^3 / (3 g^2) (Turnbull and Fisher 1949), and
    G = G0 exp(-Q/RT) (1 - exp(-g V/RT)), with the driving force g = dH (T_m - T)/(T_m V) per
    volume. Defaults: of the order of lithium disilicate (Fokin, Zanotto, Yuritsyn and Schmelzer
    2006, doi:10.1016/j.jnoncrysol.2006.02.074), with I0, G0 and Q fitted to the place and height
    of the peak of I and to the growth there: for trends, not for numbers.

    Limits: steady state (no induction time), one Arrhenius energy for both kinds of jumps, thus
    only near the glass transition; composition does not change.

    Args:
        thermal: Temperature history.
        nucleation_prefactor_per_m3_s: I0.
        growth_prefactor_m_s: G0.
        activation_energy_j_mol: Q.
        interface_energy_j_m2: gamma.
        fusion_enthalpy_j_mol: dH.
        molar_volume_m3_mol: V.
        melting_temperature_k: T_m.
    """

    thermal: Thermal = Thermal((700.0, 780.0))
    nucleation_prefactor_per_m3_s: float = 1.4e73
    growth_prefactor_m_s: float = 3.0e27
    activation_energy_j_mol: float = 5.33e5
    interface_energy_j_m2: float = 0.19
    fusion_enthalpy_j_mol: float = 6.11e4
    molar_volume_m3_mol: float = 6.12e-5
    melting_temperature_k: float = 1307.0

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Those of the temperature history."""
        return self.thermal.parameters

    def rates(self, process: Mapping[str, float], time_s: Table) -> Rates:
        """Return the rates at these times; none above the melting temperature."""
        t = self.thermal.temperature_k(process, time_s)
        drive = self.fusion_enthalpy_j_mol * np.maximum(1 - t / self.melting_temperature_k, 0)
        per_volume = np.maximum(drive, 1e-6) / self.molar_volume_m3_mol
        barrier = 16 * np.pi * self.interface_energy_j_m2**3 / (3 * per_volume**2)
        jumps = self.activation_energy_j_mol / (GAS_CONSTANT * t)
        nucleation = self.nucleation_prefactor_per_m3_s * np.exp(-jumps - barrier / (BOLTZMANN * t))
        growth = self.growth_prefactor_m_s * np.exp(-jumps) * -np.expm1(-drive / (GAS_CONSTANT * t))
        return Rates(np.zeros(len(t)), 1e-18 * nucleation, 1e6 * growth)
