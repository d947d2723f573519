"""What a mixture of given phases can have at all: Hashin-Shtrikman intervals of the targets."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from physics import IsotropicElastic, hashin_shtrikman_bounds
from physics.mechanics import hashin_shtrikman_conductivity
from studies.evaluation import C11, CONDUCTIVITY, Evaluator
from studies.models import conductivities, elastic_materials

MIXTURES = 101


def hashin_shtrikman(evaluator: Evaluator, fractions: np.ndarray) -> dict[str, Any]:
    """Return each target property's interval at these volume fractions and at any.

    C11 of an isotropic material is k + G in plane strain and K + 4G/3 in 3-D. The intervals hold
    for statistically isotropic structures; a single cell may lie a little outside.
    """
    names = evaluator.models.generator.phase_names
    dim = len(evaluator.settings.shape)
    shares = torch.cat([torch.tensor(fractions)[None], all_mixtures(len(names))])
    found = {}
    if C11 in evaluator.targets:
        materials = elastic_materials(evaluator.settings, len(names))
        found[C11] = _entry(*stiffness_interval(shares, materials, dim))
    if CONDUCTIVITY in evaluator.targets:
        values = conductivities(evaluator.settings, len(names))
        found[CONDUCTIVITY] = _entry(*hashin_shtrikman_conductivity(shares, values, dim=dim))
    return found


def stiffness_interval(
    shares: Tensor, materials: Sequence[IsotropicElastic], dim: int
) -> tuple[Tensor, Tensor]:
    """Return the lower and upper bound of C11 in GPa for rows of volume fractions."""
    bulk, shear = hashin_shtrikman_bounds(shares, materials, dim=dim)
    weight = 1.0 if dim == 2 else 4.0 / 3.0
    return bulk.lower + weight * shear.lower, bulk.upper + weight * shear.upper


def all_mixtures(n_phases: int) -> Tensor:
    """Return volume fractions along every edge of the simplex, `(rows, n_phases)`."""
    steps = torch.linspace(0, 1, MIXTURES, dtype=torch.float64)[:, None]
    vertices = torch.eye(n_phases, dtype=torch.float64)
    edges = [steps * vertices[a] + (1 - steps) * vertices[b] for a, b in _pairs(n_phases)]
    return torch.cat(edges)


def _pairs(n: int) -> list[tuple[int, int]]:
    return list(combinations(range(n), 2)) or [(0, 0)]


def _entry(lower: Tensor, upper: Tensor) -> dict[str, list[float]]:
    return {
        "this_fraction": [float(lower[0]), float(upper[0])],
        "any_fraction": [float(lower.min()), float(upper.max())],
    }
