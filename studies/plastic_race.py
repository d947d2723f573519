"""Elastic-plastic tests for the surrogates' benchmark, and the J2 solver run loosely."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from physics.mechanics import ElasticPlastic, IsotropicElastic, LinearHardening, LoadingPath
from physics.mechanics.cells import slabs
from physics.mechanics.discretisation import elastic_problem
from physics.mechanics.equilibrium import NewtonSettings
from physics.mechanics.load_stepping import SteppedCells
from physics.mechanics.nodal import NodalElasticity
from physics.mechanics.radial_return import PlasticLaw, von_mises
from surrogates.plastic_labels import PlasticRange, drawn_tests
from surrogates.plastic_start import SecantStart

SHEAR_MODULUS_GPA, YIELD_STRESS_GPA = 60.0, 0.3  # of a mean voxel: scales, which no model sees
LEAST_SHARE = 0.1
"""Of a cell's mean von Mises stress: after unloading, voxels below it count as that."""


@dataclass(frozen=True)
class DrawnTest:
    """Cells of the same two phases under one test."""

    phases: UInt8[Tensor, "cell *space"]
    materials: tuple[ElasticPlastic, ...]
    path: LoadingPath

    @property
    def uniaxial(self) -> int | None:
        """The pulled axis, None where all strains are driven."""
        driven = self.path.strain_driven[0]
        return int(driven.int().argmax()) if int(driven.sum()) == 1 else None


def drawn_test(
    phases: UInt8[Tensor, "cell *space"], drawn: PlasticRange, *, steps: int, seed: int
) -> DrawnTest:
    """Return cells with materials and a test as training draws them, by another seed."""
    quick = SecantStart(1, 0)
    one = drawn_tests(phases[:1], drawn, n_phases=2, steps=steps, start=quick, seed=seed)
    bulk, shear, first, slope = one.table[0].tolist()
    materials = []
    for k, g, s, h in zip(bulk, shear, first, slope, strict=True):
        nu = (3 * k - 2 * g) / (2 * (3 * k + g))
        elastic = IsotropicElastic(
            youngs_modulus_gpa=2 * g * (1 + nu) * SHEAR_MODULUS_GPA, poisson_ratio=nu
        )
        curve = LinearHardening(
            yield_stress_gpa=s * YIELD_STRESS_GPA, modulus_gpa=h * SHEAR_MODULUS_GPA
        )
        materials.append(ElasticPlastic(elastic=elastic, hardening=curve))
    strain = one.target[0] * YIELD_STRESS_GPA / SHEAR_MODULUS_GPA
    targets = one.multipliers[0, :, None].double() * strain
    driven = one.driven[0].expand(len(targets), -1).clone()
    return DrawnTest(phases, tuple(materials), LoadingPath(targets, driven))


def monotone(drawn: PlasticRange) -> PlasticRange:
    """Return the range without unloading."""
    return replace(drawn, turning=0.0)


@torch.no_grad()
def solved_stress(
    test: DrawnTest, *, tolerance: float, every: int = 1
) -> Float[Tensor, "cell step m *space"]:
    """Return the stress that the J2 solver finds at every step, in GPa.

    `solve_plasticity` itself, but for the fields of every step and for tolerances above 1e-2. With
    `every` above 1 it takes only each such step, and stresses between are interpolated.
    """
    path, elastic = test.path, [material.elastic for material in test.materials]
    problem = elastic_problem(test.phases.long(), elastic, "rotated")
    assert isinstance(problem, NodalElasticity)
    law = PlasticLaw.of_voxels(test.phases.long(), test.materials)
    targets = path.of_samples(len(test.phases))
    taken = list(range(path.steps - 1, -1, -every))[::-1]
    parts = []
    for part in slabs(problem, 1):
        cells = SteppedCells(problem, law.select(part), NewtonSettings(tolerance, 20, 2000), 6)
        state, found = cells.unloaded(), []
        for step in taken:
            state = cells.advance(state, targets[part][:, step], path.strain_driven[step], step)
            found.append(state.trial.update.stress[:, 0])
        parts.append(torch.stack(found, 1))
    return _interpolated(torch.cat(parts), taken, path.steps)


def _interpolated(stress: Tensor, taken: Sequence[int], steps: int) -> Tensor:
    """Return the stress of all steps, straight between those taken, from zero."""
    known = torch.cat([torch.zeros_like(stress[:, :1]), stress], 1)
    places = [-1, *taken]
    rows = []
    for step in range(steps):
        after = next(k for k, place in enumerate(places) if place >= step)
        before = max(0, after - 1)
        gap = places[after] - places[before]
        share = (step - places[before]) / gap if gap else 1.0
        rows.append(torch.lerp(known[:, before], known[:, after], share))
    return torch.stack(rows, 1)


def stress_errors(
    stress: Float[Tensor, "cell step m *space"],
    exact: Float[Tensor, "cell step m *space"],
    *,
    least_share: float = 0.0,
) -> tuple[Float[Tensor, "cell step"], Float[Tensor, "cell step"]]:
    """Return the errors of von Mises stress and of the mean stress, by cell and step.

    The first is the mean over voxels of |q - q*| / q* (a MAPE as of Mianroodi et al. 2021), q* at
    least `least_share` of the cell's mean over voxels and steps; the second |<s> - <s*>| over the
    largest |<s*>| of the test, in-plane components.
    """
    q, q_exact = von_mises(stress.double()), von_mises(exact.double())
    level = q_exact.flatten(1).mean(1).view(-1, *[1] * (q.ndim - 1))
    relative = (q - q_exact).abs() / torch.maximum(q_exact, least_share * level)
    means, exact_means = (_in_plane_mean(field.double()) for field in (stress, exact))
    largest = exact_means.norm(dim=2).amax(1, keepdim=True)
    return relative.flatten(2).mean(2), (means - exact_means).norm(dim=2) / largest


def _in_plane_mean(stress: Tensor) -> Tensor:
    mean = stress.flatten(3).mean(3)
    return mean if mean.shape[2] == 6 else mean[:, :, [0, 1, 3]]
