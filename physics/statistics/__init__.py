"""Correlation functions, morphology, realisability, and the gate on real samples."""

from physics.statistics.chords import (
    chord_counts,
    chord_length_distribution,
    mean_chord_length,
)
from physics.statistics.cluster_correlation import two_point_cluster
from physics.statistics.clusters import (
    label_clusters,
    percolates,
    percolating_fraction,
    percolating_part,
)
from physics.statistics.correlation import (
    isotropic_map,
    lag_vectors,
    radial_mean,
    two_point_correlation,
)
from physics.statistics.descriptors import CorrelationBasis
from physics.statistics.gate import CorrelationBand, CorrelationGate
from physics.statistics.grains import (
    GrainStatistics,
    grain_size_number,
    grain_statistics,
    planimetric_grain_size_number,
)
from physics.statistics.minkowski import configuration_counts, minkowski_functionals
from physics.statistics.morphology import euler_density, lineal_path, specific_surface
from physics.statistics.persistence import (
    PersistenceDiagram,
    persistence_diagram,
    persistence_image,
)
from physics.statistics.phase_correlations import (
    directional_correlation,
    lattice_directions,
    phase_correlations,
)
from physics.statistics.realizability import RealizabilityReport, check_realizable
from physics.statistics.tortuosity import diffusional_tortuosity, geometric_tortuosity

__all__ = [
    "CorrelationBand",
    "CorrelationBasis",
    "CorrelationGate",
    "GrainStatistics",
    "PersistenceDiagram",
    "RealizabilityReport",
    "check_realizable",
    "chord_counts",
    "chord_length_distribution",
    "configuration_counts",
    "diffusional_tortuosity",
    "directional_correlation",
    "euler_density",
    "geometric_tortuosity",
    "grain_size_number",
    "grain_statistics",
    "isotropic_map",
    "label_clusters",
    "lag_vectors",
    "lattice_directions",
    "lineal_path",
    "mean_chord_length",
    "minkowski_functionals",
    "percolates",
    "percolating_fraction",
    "percolating_part",
    "persistence_diagram",
    "persistence_image",
    "phase_correlations",
    "planimetric_grain_size_number",
    "radial_mean",
    "specific_surface",
    "two_point_cluster",
    "two_point_correlation",
]
