"""Pure functions on tensors: statistics, mechanics, and (in `physics.processes`) simulators."""

from physics.mechanics import (
    IsotropicElastic,
    certify_elastic,
    effective_conductivity,
    effective_stiffness,
    hashin_shtrikman_bounds,
    solve_elasticity,
    voigt_reuss_bounds,
)
from physics.statistics import (
    CorrelationGate,
    check_realizable,
    lineal_path,
    radial_mean,
    specific_surface,
    two_point_correlation,
)

__all__ = [
    "CorrelationGate",
    "IsotropicElastic",
    "certify_elastic",
    "check_realizable",
    "effective_conductivity",
    "effective_stiffness",
    "hashin_shtrikman_bounds",
    "lineal_path",
    "radial_mean",
    "solve_elasticity",
    "specific_surface",
    "two_point_correlation",
    "voigt_reuss_bounds",
]
