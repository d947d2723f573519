"""Simulators: process parameters → microstructures."""

from physics.processes.campaign import process_points
from physics.processes.random_field import RandomField
from physics.processes.spinodal import SpinodalDecomposition

__all__ = ["RandomField", "SpinodalDecomposition", "process_points"]
