"""Simulators: process parameters → microstructures."""

from physics.processes.spinodal import SpinodalDecomposition

__all__ = ["SpinodalDecomposition"]
