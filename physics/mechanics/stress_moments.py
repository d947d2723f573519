"""Energies of spline stresses, exactly, from their Legendre moments in each voxel.

A normal stress ii is a quadratic B-spline along axis i and constant per voxel along the others, a
shear stress ij linear along i and j: knots on the voxels' faces, coefficients where the staggered
grid has them. A derivative lowers the degree by one and turns coefficients into their differences,
so that staggered equilibrium of the coefficients is equilibrium of the fields, everywhere, with
continuous tractions. In conduction the flux i is linear along i: the lowest Raviart-Thomas element.
These are the stresses in equilibrium of the rectangular mixed element of Hu, Man and Zhang (2014,
Journal of Scientific Computing 58).

With t in [-1/2, 1/2] along each axis of a voxel, shear ij has moments (m, a_i, b_j, c_ij) of
1, t_i, t_j, t_i t_j; by equilibrium normal stress ii has a mean, the slope -sum_j b_j and the
curvature -sum_j c_ij / 2. The energy of a law that is constant per voxel is a sum over moments.
"""

from collections.abc import Sequence
from math import isclose
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from microstructures import DataError
from physics.mechanics.grid import SHEAR_PAIRS
from physics.mechanics.laws import AnisotropicLaw, ConductionLaw, IsotropicLaw, Law
from physics.mechanics.shift_graph import ShiftGraph, Term

Kind = Literal["conduction", "isotropic", "anisotropic"]
Moment = tuple[float, dict[int, Term]]
"""Mean square of a Legendre polynomial, and the components that have this moment."""

WeightKey = tuple[tuple[int, float], ...]
"""A weight as a sum of (index of a compliance field, factor)."""


def spline_moments(graph: ShiftGraph, coefficients: dict[int, Term], order: int) -> list[Moment]:
    """Return the Legendre moments of an equilibrated stress by its coefficients, means first."""
    if order == 1:
        return _flux_moments(graph, coefficients)
    return _stress_moments(graph, coefficients, graph.dim)


def _flux_moments(graph: ShiftGraph, coefficients: dict[int, Term]) -> list[Moment]:
    means, slopes = {}, {}
    for i, term in coefficients.items():
        means[i] = graph.add(term, term.shifted(i, 1)).times(0.5)
        slopes[i] = graph.difference(term, i, ahead=True)
    # Without sources the slopes add up to zero, which saves one of them.
    *others, last = slopes
    slopes[last] = graph.total([slopes[i] for i in others]).times(-1.0)
    return [(1.0, means), *[(1.0 / 12.0, {i: slope}) for i, slope in slopes.items()]]


def _stress_moments(graph: ShiftGraph, coefficients: dict[int, Term], dim: int) -> list[Moment]:
    means: dict[int, Term] = {}
    slopes: list[dict[int, Term]] = [{} for _ in range(dim)]
    ramps: list[list[Term]] = [[] for _ in range(dim)]
    twists: list[list[Term]] = [[] for _ in range(dim)]
    moments: list[Moment] = []
    for c, (i, j) in enumerate(SHEAR_PAIRS[dim], dim):
        term = coefficients[c]
        total = graph.add(term, term.shifted(j, 1))
        step = graph.difference(term, j, ahead=True)
        means[c] = graph.add(total, total.shifted(i, 1)).times(0.25)
        slopes[i][c] = graph.difference(total, i, ahead=True).times(0.5)
        slopes[j][c] = graph.add(step, step.shifted(i, 1)).times(0.5)
        twist = graph.difference(step, i, ahead=True)
        moments.append((1.0 / 144.0, {c: twist}))
        for a, b in ((i, j), (j, i)):
            ramps[a].append(slopes[b][c].times(-(0.5**0.5)))
            twists[a].append(twist.times(0.5**0.5))
    for i in range(dim):
        slopes[i][i] = graph.total(ramps[i])
        twist = graph.total(twists[i])
        means[i] = graph.add(coefficients[i], twist.times(-1.0 / 6.0))
        moments.append((1.0 / 720.0, {i: twist}))
    return [(1.0, means), *[(1.0 / 12.0, slope) for slope in slopes], *moments]


def strain_pairs(
    graph: ShiftGraph, moments: list[Moment], kind: Kind
) -> tuple[list[tuple[Term, Term]], list[WeightKey]]:
    """Return pairs (moment of the stress, moment of its strain), and the weights they need."""
    keys: list[WeightKey] = []
    if kind == "anisotropic":
        return _coupled_seeds(graph, moments, keys), keys
    return _isotropic_seeds(graph, moments, keys, elastic=kind == "isotropic"), keys


def _coupled_seeds(
    graph: ShiftGraph, moments: list[Moment], keys: list[WeightKey]
) -> list[tuple[Term, Term]]:
    """Return (moment, strain moment) for a full compliance matrix, S_cd the field n c + d."""
    n = len(moments[0][1])
    seeds = []
    for norm, parts in moments:
        for c, term in parts.items():
            strain = [
                graph.product(other, _weight(keys, ((n * c + d, 1.0),)))
                for d, other in parts.items()
            ]
            seeds.append((term, graph.total(strain).times(norm)))
    return seeds


def _isotropic_seeds(
    graph: ShiftGraph, moments: list[Moment], keys: list[WeightKey], *, elastic: bool
) -> list[tuple[Term, Term]]:
    """Return (moment, strain moment); the law a sigma + b tr(sigma) 1 has the fields a and b.

    Only the means have several normal components that b couples; all other moments are diagonal,
    and those that share a field share one product.
    """
    dim = graph.dim
    seeds: list[tuple[Term, Term]] = []
    diagonal: dict[Term, tuple[float, float]] = {}
    for norm, parts in moments:
        normal = {c: term for c, term in parts.items() if c < dim}
        coupled = elastic and len(normal) > 1
        if coupled:
            trace = graph.total(list(normal.values()))
            pressure = graph.product(trace, _weight(keys, ((1, 1.0),)))
            for term in normal.values():
                own = graph.product(term, _weight(keys, ((0, 1.0),)))
                seeds.append((term, graph.add(own, pressure)))
        for c, term in parts.items():
            if coupled and c < dim:
                continue
            size = norm * term.factor**2
            place = Term(term.node, term.offset)
            a, b = diagonal.get(place, (0.0, 0.0))
            diagonal[place] = (a + size, b + size * (elastic and c < dim))
    for term, (a, b) in diagonal.items():
        key: WeightKey = ((0, 1.0), (1, b / a)) if b else ((0, 1.0),)
        seeds.append((term, graph.product(term, _weight(keys, key)).times(a)))
    return seeds


def _weight(keys: list[WeightKey], key: WeightKey) -> int:
    """Return the place of a weight among the keys, added if new (but for round-off)."""
    for place, known in enumerate(keys):
        if [i for i, _ in known] == [i for i, _ in key] and all(
            isclose(a, b) for (_, a), (_, b) in zip(known, key, strict=True)
        ):
            return place
    keys.append(key)
    return len(keys) - 1


def law_kind(law: Law) -> Kind:
    """Return how a law's components couple."""
    match law:
        case ConductionLaw():
            return "conduction"
        case IsotropicLaw():
            return "isotropic"
        case AnisotropicLaw():
            return "anisotropic"
        case _:
            raise DataError(f"law: no complementary energy known of a {type(law).__name__}")


def inverse_law(law: Law) -> Law:
    """Return the compliance of a law; 0 where an isotropic one carries nothing."""
    match law:
        case ConductionLaw(conductivity):
            return ConductionLaw(_reciprocal(conductivity))
        case IsotropicLaw(lame, shear):
            twice = 2.0 * shear[:, 0]
            bulk = len(law.shape) * lame + twice
            own = _reciprocal(twice)
            return IsotropicLaw(-lame * own * _reciprocal(bulk), 0.5 * own.unsqueeze(1))
        case AnisotropicLaw(stiffness):
            inverse = torch.linalg.inv(stiffness.movedim((1, 2), (-2, -1)))
            return AnisotropicLaw(inverse.movedim((-2, -1), (1, 2)))
        case _:
            raise DataError(f"law: no compliance known of a {type(law).__name__}")


def moment_weights(
    compliance: Law, keys: Sequence[WeightKey]
) -> list[Float[Tensor, "batch *space"]]:
    """Return the weights that `strain_pairs` asks for."""
    match compliance:
        case ConductionLaw(resistivity):
            fields = [resistivity[:, 0]]
        case IsotropicLaw(lame, shear):
            fields = [2.0 * shear[:, 0], lame]
        case AnisotropicLaw(matrix):
            fields = list(matrix.flatten(1, 2).unbind(1))
        case _:
            raise DataError(f"law: no weights known of a {type(compliance).__name__}")
    return [torch.stack([fields[i] * factor for i, factor in key]).sum(0) for key in keys]


def _reciprocal(field: Tensor) -> Tensor:
    return torch.where(field > 0.0, 1.0 / torch.where(field > 0.0, field, 1.0), 0.0)
