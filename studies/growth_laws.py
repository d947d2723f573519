"""Exponents of coarsening and grain growth at full size, as rows for the benchmark."""

from dataclasses import dataclass

import numpy as np

from physics.processes.kinetics import (
    coarsening_lengths,
    grain_radii,
    growth_exponent,
    kinetic_exponent,
)


@dataclass(frozen=True)
class GrowthLaw:
    """A law's exponent: exact, measured, and the tolerance that is asked."""

    law: str
    exact: float
    measured: float
    tolerance: float


def growth_laws(*, quick: bool = False, seed: int = 0) -> list[GrowthLaw]:
    """Return the exponents of bulk-diffusion coarsening and of growth by curvature."""
    side, end, cells = (64, 200.0, 1) if quick else (512, 2000.0, 4)
    times = np.geomspace(end / 10, end, 8)
    lengths = coarsening_lengths(times, shape=(side, side), n=cells, seed=seed)
    side, cells = (64, 1) if quick else (384, 11)
    grown = np.geomspace(20.0, 80.0 if quick else 600.0, 10)
    radii = grain_radii(grown, shape=(side, side), initial_diameter=10.0, n=cells, seed=seed)
    return [
        GrowthLaw(
            "domain length ~ t^m (Lifshitz, Slyozov, Wagner 1961): m",
            1 / 3,
            growth_exponent(times, lengths),
            0.02,
        ),
        GrowthLaw(
            "grain radius R^n - R0^n = K t (Mullins 1956): n",
            2.0,
            kinetic_exponent(grown, radii),
            0.1,
        ),
    ]
