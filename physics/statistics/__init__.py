"""Correlation functions, morphology, realisability, and the gate on real samples."""

from physics.statistics.correlation import (
    isotropic_map,
    lag_vectors,
    radial_mean,
    two_point_correlation,
)
from physics.statistics.gate import CorrelationBand, CorrelationGate
from physics.statistics.morphology import euler_density, lineal_path, specific_surface
from physics.statistics.realizability import RealizabilityReport, check_realizable

__all__ = [
    "CorrelationBand",
    "CorrelationGate",
    "RealizabilityReport",
    "check_realizable",
    "euler_density",
    "isotropic_map",
    "lag_vectors",
    "lineal_path",
    "radial_mean",
    "specific_surface",
    "two_point_correlation",
]
