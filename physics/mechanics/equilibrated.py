"""Stresses in exact equilibrium and their complementary energy, by periodic potentials."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from physics.mechanics.green import GreenOperator
from physics.mechanics.laws import ConductionLaw, Law
from physics.mechanics.potentials import (
    component_indices,
    curl_coefficients,
    potential_green,
    potential_indices,
)
from physics.mechanics.shift_graph import ShiftGraph, Term
from physics.mechanics.shift_program import ShiftProgram
from physics.mechanics.stress_moments import (
    Kind,
    WeightKey,
    inverse_law,
    law_kind,
    moment_weights,
    spline_moments,
    strain_pairs,
)


@dataclass(frozen=True)
class StressPotentials:
    """Complementary energies of a batch of cells over equilibrated stresses of given mean.

    `compliance` is the inverse law per voxel, `ratio` lame/shear of the preconditioner's reference
    material (unused in conduction).
    """

    compliance: Law
    ratio: float

    @classmethod
    def of_law(cls, law: Law, ratio: float = 0.0) -> "StressPotentials":
        """Return the potentials of cells without pores."""
        return cls(inverse_law(law), ratio)

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return self.compliance.shape

    @property
    def order(self) -> int:
        """Indices of a flux or stress component: 1 in conduction, 2 in elasticity."""
        return 1 if isinstance(self.compliance, ConductionLaw) else 2

    @property
    def components(self) -> int:
        """Components of a flux or Mandel stress."""
        return len(component_indices(len(self.shape), self.order))

    def operator(self, loads: int, dtype: torch.dtype) -> ShiftProgram:
        """Return potentials -> derivative of the complementary energy of their curl."""
        graph, outputs, keys = _energy_graph(len(self.shape), law_kind(self.compliance))
        weights = moment_weights(self.compliance.to(dtype), keys)
        return ShiftProgram(graph, outputs, weights, self.shape, loads=loads, like=weights[0])

    def green(self, dtype: torch.dtype) -> GreenOperator:
        """Return the inverse of `operator` in the homogeneous reference material."""
        device = self.compliance.tensors()[0].device
        return potential_green(self.shape, self.order, self.ratio, dtype, device)

    def load(
        self, macro: Float[Tensor, "batch load n"]
    ) -> tuple[Float[Tensor, "batch load c *space"], Float[Tensor, "batch load load"]]:
        """Return what uniform stresses leave to the potentials, and their energies.

        Minus half the energy's derivative at zero potentials times the voxels, and
        <macro_l : S : macro_m>.
        """
        spread = macro.view(*macro.shape, *[1] * len(self.shape))
        strain = self.compliance.stress(spread.expand(*macro.shape, *self.shape))
        graph, outputs = _load_graph(len(self.shape), self.order)
        program = ShiftProgram(graph, outputs, [], self.shape, loads=macro.shape[1], like=strain)
        return -program(strain), strain.flatten(3).mean(-1) @ macro.mT


@lru_cache(maxsize=8)
def _energy_graph(dim: int, kind: Kind) -> tuple[ShiftGraph, list[Term], list[WeightKey]]:
    """Return the graph of curl^T S curl, its outputs, and the weights that it multiplies by."""
    order = 1 if kind == "conduction" else 2
    graph = ShiftGraph(dim, len(potential_indices(dim, order)))
    moments = spline_moments(graph, curl_coefficients(graph, dim, order), order)
    seeds, keys = strain_pairs(graph, moments, kind)
    return graph, graph.transposed(seeds), keys


@lru_cache(maxsize=8)
def _load_graph(dim: int, order: int) -> tuple[ShiftGraph, list[Term]]:
    """Return the transpose of potentials -> mean moments, its inputs strains per voxel."""
    unknowns = len(potential_indices(dim, order))
    graph = ShiftGraph(dim, unknowns + len(component_indices(dim, order)))
    means = spline_moments(graph, curl_coefficients(graph, dim, order), order)[0][1]
    seeds = [(term, graph.input(unknowns + c)) for c, term in means.items()]
    return graph, graph.transposed(seeds)
