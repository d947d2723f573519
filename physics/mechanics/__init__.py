"""Periodic voxel mechanics: FFT solvers, effective properties, bounds, certificates."""

from physics.mechanics.bounds import (
    hashin_shtrikman_bounds,
    hashin_shtrikman_conductivity,
    voigt_reuss_bounds,
)
from physics.mechanics.certificates import (
    certify_conductive,
    certify_elastic,
    compatible_strain,
    displacement_from_strain,
)
from physics.mechanics.conductivity import effective_conductivity
from physics.mechanics.continuum import continuum_bounds
from physics.mechanics.crystals import CubicElastic, TransverselyIsotropicElastic
from physics.mechanics.elasticity import effective_stiffness, solve_elasticity
from physics.mechanics.hardening import ElasticPlastic, LinearHardening, PowerHardening
from physics.mechanics.loading_path import LoadingPath
from physics.mechanics.materials import IsotropicElastic
from physics.mechanics.plasticity import PlasticResponse, solve_plasticity

__all__ = [
    "CubicElastic",
    "ElasticPlastic",
    "IsotropicElastic",
    "LinearHardening",
    "LoadingPath",
    "PlasticResponse",
    "PowerHardening",
    "TransverselyIsotropicElastic",
    "certify_conductive",
    "certify_elastic",
    "compatible_strain",
    "continuum_bounds",
    "displacement_from_strain",
    "effective_conductivity",
    "effective_stiffness",
    "hashin_shtrikman_bounds",
    "hashin_shtrikman_conductivity",
    "solve_elasticity",
    "solve_plasticity",
    "voigt_reuss_bounds",
]
