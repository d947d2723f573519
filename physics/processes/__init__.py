"""Simulators: process parameters → microstructures."""

from physics.processes.campaign import process_points
from physics.processes.composites import FibreComposite, ParticleComposite
from physics.processes.grain_growth import GrainGrowth
from physics.processes.nucleation_growth import NucleationGrowth
from physics.processes.powder_bed_fusion import PowderBedFusion
from physics.processes.random_field import RandomField
from physics.processes.sintering import Sintering
from physics.processes.spinodal import SpinodalDecomposition

__all__ = [
    "FibreComposite",
    "GrainGrowth",
    "NucleationGrowth",
    "ParticleComposite",
    "PowderBedFusion",
    "RandomField",
    "Sintering",
    "SpinodalDecomposition",
    "process_points",
]
