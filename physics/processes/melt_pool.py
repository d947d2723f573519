"""Melt pool of a moving laser: Rosenthal's and Eagar and Tsai's temperature, width and depth."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize_scalar, root_scalar

from microstructures import DataError

# Nodes of the integral over time, in logarithmic steps; the trapezoid rule converges as exp(-n).
NODES = 600
Coordinate = float | Float[np.ndarray, "*points"]


@dataclass(frozen=True)
class Alloy:
    """Constants of an alloy near its melting temperature; defaults are Ti-6Al-4V.

    Defaults: liquidus, density, heat capacity and conductivity rounded after Mills (2002,
    Recommended Values of Thermophysical Properties for Selected Commercial Alloys); absorptivity
    of the order measured for powder beds near the keyhole (Trapp et al. 2017,
    doi:10.1016/j.apmt.2017.08.006). Constants do not depend on temperature and there is no
    latent heat: that is what Rosenthal's and Eagar and Tsai's solutions need.
    """

    melting_temperature_k: float = 1923.0
    density_kg_m3: float = 4200.0
    heat_capacity_j_kg_k: float = 750.0
    conductivity_w_m_k: float = 27.0
    absorptivity: float = 0.5

    @property
    def diffusivity_m2_s(self) -> float:
        """Conductivity over density times heat capacity."""
        return self.conductivity_w_m_k / (self.density_kg_m3 * self.heat_capacity_j_kg_k)


@dataclass(frozen=True)
class Beam:
    """A laser beam that moves over a half space along +x.

    Args:
        power_w: Power before absorption.
        speed_m_s: Scan speed, above 0.
        radius_m: Radius at which the intensity of the Gaussian beam has fallen to 1/e^2, twice
            its standard deviation.
        preheat_k: Temperature far away.

    Raises:
        DataError: A power or speed not above 0, or a negative radius.
    """

    power_w: float
    speed_m_s: float
    radius_m: float = 50e-6
    preheat_k: float = 353.0

    def __post_init__(self) -> None:
        if not (self.power_w > 0 and self.speed_m_s > 0 and self.radius_m >= 0):
            raise DataError(
                "expected a power and a speed above 0 and a radius not below 0, got "
                f"{self.power_w} W, {self.speed_m_s} m/s and {self.radius_m} m"
            )


@dataclass(frozen=True)
class MeltPool:
    """Cross-section of a track: half an ellipse below the surface.

    Args:
        width_um: Full width at the surface.
        depth_um: Depth at the centre line.
        keyhole_number: Absorbed power against what heats the metal to melting as the beam
            passes; above about 1.4 vapour pushes a hole into the melt.
    """

    width_um: float
    depth_um: float
    keyhole_number: float


def rosenthal(
    x: Coordinate, y: Coordinate, z: Coordinate, *, beam: Beam, alloy: Alloy
) -> Coordinate:
    """Return the temperature in K about a moving point source on a half space.

    T - T0 = A P / (2 pi k R) exp(-v (R + x)/(2 a)) (Rosenthal 1946), with x in m ahead of the
    source and R its distance. The beam's radius plays no part.
    """
    distance = np.sqrt(np.square(x) + np.square(y) + np.square(z))
    strength = alloy.absorptivity * beam.power_w / (2 * math.pi * alloy.conductivity_w_m_k)
    decay = beam.speed_m_s / (2 * alloy.diffusivity_m2_s)
    return beam.preheat_k + strength / distance * np.exp(-decay * (distance + x))


def eagar_tsai(
    x: Coordinate, y: Coordinate, z: Coordinate, *, beam: Beam, alloy: Alloy
) -> Coordinate:
    """Return the temperature in K about a moving Gaussian source on a half space.

    T - T0 = A P / (pi rho c sqrt(4 pi a)) int_0^inf dt t^(-1/2) / (2 a t + s^2)
    exp(-((x + v t)^2 + y^2)/(4 a t + 2 s^2) - z^2/(4 a t)) with s half the beam's radius (Eagar
    and Tsai 1983), by the trapezoid rule in log t. With s = 0 this is Rosenthal's solution.

    Args:
        x: Coordinates ahead of the beam in m.
        y: Coordinates across in m.
        z: Depths in m.
        beam: Laser.
        alloy: Metal.
    """
    a, v, s = alloy.diffusivity_m2_s, beam.speed_m_s, beam.radius_m / 2
    x, y, z = (np.asarray(c, dtype=float) for c in np.broadcast_arrays(x, y, z))
    nearest = float((x**2 + y**2 + z**2).min())
    # Nothing comes from times this short or this long: less than 1e-6 of the whole.
    first = 1e-14 * s**2 / a if s > 0 else nearest / (4000 * a)
    last = 240 * a / v**2 + 3 * float(np.abs(x).max()) / v + s**2 / a
    log_t = np.linspace(math.log(first), math.log(last), NODES)
    t = np.exp(log_t)
    spread = 4 * a * t + 2 * s**2
    exponent = ((x[..., None] + v * t) ** 2 + y[..., None] ** 2) / spread
    exponent += z[..., None] ** 2 / (4 * a * t)
    integrand = np.sqrt(t) * 2 / spread * np.exp(-exponent)
    integral = np.trapezoid(integrand, log_t, axis=-1)
    capacity = alloy.density_kg_m3 * alloy.heat_capacity_j_kg_k
    strength = alloy.absorptivity * beam.power_w / (math.pi * capacity * math.sqrt(4 * math.pi * a))
    return beam.preheat_k + strength * integral


def melt_pool(*, beam: Beam, alloy: Alloy) -> MeltPool:
    """Return width and depth of the melted track.

    The width is that of the melting isotherm of `eagar_tsai`; the depth is the isotherm's or, if
    deeper, that of the keyhole, 0.4 r (Ke - 1.4) with Ke = A P / (pi rho c (Tm - T0)
    sqrt(a v r^3)) (Gan et al. 2021, doi:10.1038/s41467-021-22704-0). Zero where nothing melts.

    Limits: one absorptivity for conduction and keyhole; the width takes no notice of the keyhole
    or of flow in the melt.
    """
    capacity = alloy.density_kg_m3 * alloy.heat_capacity_j_kg_k
    rise = alloy.melting_temperature_k - beam.preheat_k
    enthalpy = math.pi * capacity * rise
    stirred = math.sqrt(alloy.diffusivity_m2_s * beam.speed_m_s * beam.radius_m**3)
    keyhole_number = alloy.absorptivity * beam.power_w / (enthalpy * stirred)
    width = 2 * _reach(0.0, 1.0, beam, alloy)
    conduction = _reach(1.0, 0.0, beam, alloy)
    keyhole = 0.4 * beam.radius_m * (keyhole_number - 1.4) if width else 0.0
    return MeltPool(1e6 * width, 1e6 * max(conduction, keyhole), keyhole_number)


def _reach(down: float, across: float, beam: Beam, alloy: Alloy) -> float:
    """Return how far the melting isotherm reaches down or across, in m."""

    def excess(distance: float) -> float:
        # Where a point at this distance is hottest: behind the beam, the further away the more.
        spread = distance**2 + beam.radius_m**2
        behind = beam.speed_m_s * spread / alloy.diffusivity_m2_s + 2 * beam.radius_m
        y, z = across * distance, down * distance
        hottest = minimize_scalar(
            lambda x: -float(eagar_tsai(x, y, z, beam=beam, alloy=alloy)),
            bounds=(-behind, 0.0),
            method="bounded",
            options={"xatol": 1e-4 * behind},
        )
        height = float(hottest.fun)  # pyright: ignore[reportAttributeAccessIssue]
        return -height - alloy.melting_temperature_k

    if excess(0.0) <= 0:
        return 0.0
    far = beam.radius_m
    while excess(far) > 0:
        far *= 2
    return float(root_scalar(excess, bracket=(0.0, far), xtol=1e-9).root)
