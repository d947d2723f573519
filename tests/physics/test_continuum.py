"""Bounds of the voxel continuum: closed forms inside, exact integration, exact equilibrium."""

import math
from dataclasses import replace
from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microstructures import DataError
from microstructures.seeds import generator_for
from physics.mechanics import IsotropicElastic, shift_program, voigt_reuss_bounds
from physics.mechanics.cells import solve_cells
from physics.mechanics.conductivity import conduction_problem
from physics.mechanics.continuum import continuum_bounds, loewner_width, refined
from physics.mechanics.crystals import CubicElastic
from physics.mechanics.discretisation import elastic_problem
from physics.mechanics.equilibrated import StressPotentials
from physics.mechanics.laws import AnisotropicLaw, ConductionLaw, IsotropicLaw, Law
from physics.mechanics.potentials import (
    component_indices,
    potential_indices,
    stress_coefficients,
)
from physics.mechanics.problem import CellProblem
from physics.mechanics.skeleton import SkeletonElasticity
from physics.mechanics.trial_state import unit_loads

THREE = [
    IsotropicElastic(youngs_modulus_gpa=1.0, poisson_ratio=0.3),
    IsotropicElastic(youngs_modulus_gpa=10.0, poisson_ratio=0.2),
    IsotropicElastic(youngs_modulus_gpa=0.3, poisson_ratio=0.45),
]
SPACES = [(7, 6), (4, 5, 3)]
GAUSS = ((0.5 - 0.15**0.5, 5 / 18), (0.5, 8 / 18), (0.5 + 0.15**0.5, 5 / 18))


def noise(*shape: int, phases: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randint(phases, shape, generator=generator_for("continuum", seed))


def rough(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=generator_for("rough", seed), dtype=torch.float64)


def elastic(phases: torch.Tensor, contrast: float = 10.0) -> CellProblem:
    stiff = IsotropicElastic(youngs_modulus_gpa=contrast, poisson_ratio=0.2)
    return elastic_problem(phases, [THREE[0], stiff], "q1")


def conductive(phases: torch.Tensor, contrast: float = 10.0) -> CellProblem:
    return conduction_problem(phases, [1.0, contrast], "q1")


def with_law(problem: CellProblem, law: Law) -> CellProblem:
    return replace(problem, law=law)  # type: ignore[type-var]


def lowest(matrix: torch.Tensor) -> float:
    return float(torch.linalg.eigvalsh(matrix).min())


def law_of(kind: str, space: tuple[int, ...]) -> Law:
    positive = rough(1, 2, *space).abs() + 0.1
    match kind:
        case "conduction":
            return ConductionLaw(positive[:, :1])
        case "isotropic":
            return IsotropicLaw(positive[:, 0], positive[:, 1:])
        case _:
            n = len(component_indices(len(space), 2))
            half = rough(1, n, n, *space, seed=3)
            square = torch.einsum("bik...,bjk...->bij...", half, half)
            unit = torch.eye(n).double().view(1, n, n, *[1] * len(space))
            return AnisotropicLaw(square + 0.1 * unit)


def spline(degree: int, t: float) -> list[tuple[int, float]]:
    """Return (coefficient's distance, weight) of a B-spline series at t in [0, 1] of a voxel.

    Degrees 0 and 2 have their coefficients at centres, degree 1 at lower corners.
    """
    match degree:
        case 0:
            return [(0, 1.0)]
        case 1:
            return [(0, 1.0 - t), (1, t)]
        case _:
            return [(-1, 0.5 * (1 - t) ** 2), (0, 0.5 + t - t * t), (1, 0.5 * t * t)]


def stress_at(coefficients: torch.Tensor, order: int, place: tuple[float, ...]) -> torch.Tensor:
    """Return flux or Mandel stress at one place of every voxel, from the definition of splines."""
    dim = coefficients.ndim - 3
    parts = []
    for c, index in enumerate(component_indices(dim, order)):
        total = torch.zeros_like(coefficients[:, :, c])
        choices = [spline(index.count(axis), place[axis]) for axis in range(dim)]
        for picks in product(*choices):
            shifted = coefficients[:, :, c].roll([-d for d, _ in picks], list(range(-dim, 0)))
            total = total + math.prod(w for _, w in picks) * shifted
        parts.append(total)
    return torch.stack(parts, 2)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("kind", ["conduction", "isotropic", "anisotropic"])
def test_the_complementary_energy_is_integrated_exactly(space, kind):
    """Three Gauss points a side integrate the square of any quadratic without error."""
    law = law_of(kind, space)
    cells = StressPotentials.of_law(law, 1.0)
    order, n, dim = cells.order, cells.components, len(space)
    operator = cells.operator(2, torch.float64)
    macro = rough(1, 2, n)
    u = rough(1, 2, len(potential_indices(dim, order)), *space)
    force, uniform = cells.load(macro)
    flat = u.flatten(2)
    work = flat @ force.flatten(2).mT / math.prod(space)
    own = flat @ operator(u).flatten(2).mT / math.prod(space)
    energy = uniform - work - work.mT + own
    coefficients = stress_coefficients(u, order)
    brute = torch.zeros_like(energy)
    for points in product(GAUSS, repeat=dim):
        stress = stress_at(coefficients, order, tuple(t for t, _ in points))
        stress = stress + macro.view(1, 2, n, *[1] * dim)
        strain = law.strain(stress)
        weight = math.prod(w for _, w in points) / math.prod(space)
        brute += weight * stress.flatten(2) @ strain.flatten(2).mT
    torch.testing.assert_close(energy, brute, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("space", [(5, 4), (3, 4, 5)])
@pytest.mark.parametrize("order", [1, 2])
def test_the_stress_is_in_equilibrium_at_every_point(space, order):
    """Divergence by central differences, exact for quadratics, and tractions on both sides."""
    dim = len(space)
    unknowns = len(potential_indices(dim, order))
    coefficients = stress_coefficients(rough(1, 1, unknowns, *space), order)
    assert float(coefficients.abs().max()) > 1.0
    indices = component_indices(dim, order)
    step = 0.05
    for place in ([0.3, 0.7, 0.45][:dim], [0.9, 0.15, 0.5][:dim]):
        force = [torch.zeros_like(coefficients[:, :, 0]) for _ in range(dim if order == 2 else 1)]
        for axis in range(dim):
            high, low = list(place), list(place)
            high[axis], low[axis] = place[axis] + step, place[axis] - step
            slope = stress_at(coefficients, order, tuple(high))
            slope = (slope - stress_at(coefficients, order, tuple(low))) / (2 * step)
            for c, index in enumerate(indices):
                size = 1.0 if len(set(index)) == 1 else 0.5**0.5
                for row in {i for i in index if axis in index} if order == 2 else {0}:
                    if sorted((row, axis) if order == 2 else (axis,)) == sorted(index):
                        force[row] = force[row] + size * slope[:, :, c]
        assert max(float(f.abs().max()) for f in force) < 1e-12
        for axis in range(dim):
            above, below = list(place), list(place)
            above[axis], below[axis] = 0.0, 1.0
            normal = [c for c, index in enumerate(indices) if axis in index]
            ahead = stress_at(coefficients, order, tuple(above))[:, :, normal].roll(-1, axis - dim)
            behind = stress_at(coefficients, order, tuple(below))[:, :, normal]
            torch.testing.assert_close(ahead, behind, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("space", [(9, 8), (5, 6, 4)])
@pytest.mark.parametrize("kind", ["conduction", "isotropic", "anisotropic"])
def test_the_operator_is_symmetric_and_the_same_in_slabs(space, kind, monkeypatch):
    cells = StressPotentials.of_law(law_of(kind, space), 1.0)
    whole = cells.operator(2, torch.float64)
    count = len(potential_indices(len(space), cells.order))
    a, b = rough(1, 2, count, *space), rough(1, 2, count, *space, seed=1)
    image = whole(a).clone()
    assert float((b * image).sum()) == pytest.approx(float((a * whole(b)).sum()), rel=1e-11)
    monkeypatch.setattr(shift_program, "SLAB_VALUES", {2: 1, 3: 1})
    torch.testing.assert_close(cells.operator(2, torch.float64)(a), image, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("space", [(9, 8), (5, 6, 4)])
@pytest.mark.parametrize("kind", ["conduction", "isotropic"])
def test_the_preconditioner_inverts_the_homogeneous_operator(space, kind):
    one = torch.ones(1, 1, *space, dtype=torch.float64)
    # Compliance 1 for shear: twice the shear modulus is 1, as the reference has it.
    law = ConductionLaw(one) if kind == "conduction" else IsotropicLaw(0.75 * one[:, 0], 0.5 * one)
    cells = StressPotentials.of_law(law, 1.5)
    operator = cells.operator(1, torch.float64)
    count = len(potential_indices(len(space), cells.order))
    force = operator(rough(1, 1, count, *space)).clone()
    again = operator(cells.green(torch.float64)(force))
    torch.testing.assert_close(again, force, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("space", [(8, 5), (4, 6, 5)])
@pytest.mark.parametrize("contrast", [10.0, 1e4])
def test_the_bracket_of_a_laminate_closes(space, contrast):
    for axis in range(len(space)):
        view = [1] * len(space)
        view[axis] = -1
        layers = (torch.arange(space[axis]) >= space[axis] // 2).long()
        phases = layers.view(view).expand(1, *space)
        for problem in (elastic(phases, contrast), conductive(phases, contrast)):
            bounds = continuum_bounds(problem)
            assert float(bounds.width) < 1e-13 * contrast
            assert lowest(bounds.upper - bounds.lower) > -1e-15 * contrast**2


def square_inclusion(n: int) -> torch.Tensor:
    phases = torch.zeros(1, n, n, dtype=torch.long)
    phases[:, : n // 2, : n // 2] = 1
    return phases


def checkerboard(n: int) -> torch.Tensor:
    half = torch.arange(n) < n // 2
    return (half[:, None] ^ half).long().unsqueeze(0)


@pytest.mark.parametrize(
    ("cell", "contrast", "exact", "order"),
    [
        # Singular exponents of the corners: (2 / pi) acos((c - 1) / (2 (c + 1))) and
        # (4 / pi) atan(c^-1/2); energies converge with twice the exponent.
        (square_inclusion, 10.0, 1.544220, 4.0 / math.pi * math.acos(9.0 / 22.0)),
        (square_inclusion, 0.1, 0.647576, 4.0 / math.pi * math.acos(9.0 / 22.0)),
        (checkerboard, 10.0, 10.0**0.5, 8.0 / math.pi * math.atan(0.1**0.5)),
    ],
)
def test_closed_forms_lie_inside_and_the_width_has_its_order(cell, contrast, exact, order):
    """Obnosov 1999 and Dykhne 1970."""
    widths = []
    for n in (16, 32, 64):
        bounds = continuum_bounds(conductive(cell(n), contrast), tolerance=1e-5)
        low, high = (float(m[0, 0, 0]) for m in (bounds.lower, bounds.upper))
        assert low < exact - 1e-6 < exact + 1e-6 < high
        widths.append(high - low)
    for coarse, fine in pairwise(widths):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.02)


@pytest.mark.parametrize("space", [(12, 11), (5, 6, 4)])
def test_hills_equal_shear_lies_inside(space):
    """Hill 1963: with equal shear moduli C11 = 1 / <1 / (lame + 2 G)>, whatever the geometry."""
    materials = [
        IsotropicElastic(youngs_modulus_gpa=2.0 * (1.0 + nu), poisson_ratio=nu)
        for nu in (-0.5, 0.4)
    ]
    phases = noise(2, *space)
    wave = torch.tensor([m.lame + 2.0 * m.shear for m in materials], dtype=torch.float64)
    exact = 1.0 / (1.0 / wave[phases]).flatten(1).mean(1)
    bounds = continuum_bounds(elastic_problem(phases, materials, "q1"))
    for axis in range(len(space)):
        assert (bounds.lower[:, axis, axis] < exact).all()
        assert (exact < bounds.upper[:, axis, axis]).all()


def test_the_lower_bound_of_plane_conduction_is_the_dual_of_the_upper_one():
    """Keller 1964: turned by 90 degrees, the cell of 1 / k has the inverse conductivity."""
    phases = noise(2, 9, 8, phases=3)
    k = [1.0, 7.0, 0.2]
    below = continuum_bounds(conduction_problem(phases, k, "q1"), tolerance=1e-9)
    above = continuum_bounds(
        conduction_problem(phases, [1.0 / value for value in k], "q1"), tolerance=1e-9
    )
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    expected = turn @ torch.linalg.inv(above.upper) @ turn.mT
    torch.testing.assert_close(below.lower, expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=6)
@given(
    seed=st.integers(0, 10**6),
    contrast=st.sampled_from([0.01, 3.0, 100.0, 1e4]),
    fraction=st.floats(0.1, 0.9),
    heat=st.booleans(),
    solid=st.booleans(),
)
def test_random_cells_hold_their_refined_value(seed, contrast, fraction, heat, solid):
    space = (3, 4, 3) if solid else (8, 7)
    phases = (torch.rand(1, *space, generator=generator_for(seed)) < fraction).long()
    problem = (conductive if heat else elastic)(phases, contrast)
    bounds = continuum_bounds(problem)
    fine = with_law(problem, refined(problem.law, 2 if solid else 4))  # type: ignore[attr-defined]
    truth = continuum_bounds(fine, tolerance=1e-6)
    slack = 1e-6 * lowest(truth.upper)
    assert lowest(truth.upper - bounds.lower) > -slack
    assert lowest(bounds.upper - truth.upper) > -slack
    assert lowest(truth.lower - bounds.lower) > -slack


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_unfinished_solves_bound_too_and_lie_within_voigt_and_reuss(space, steps):
    phases = noise(2, *space, phases=3)
    problem = elastic_problem(phases, THREE, "q1")
    best = continuum_bounds(problem, tolerance=1e-6)
    early = continuum_bounds(problem, max_iterations=steps)
    assert lowest(early.upper - best.upper) > 0.0
    assert lowest(best.lower - early.lower) > 0.0
    assert int(early.iterations.max()) == 2 * steps
    assert float(early.residual.min()) > 1e-2 > 1e-6 > float(best.residual.max())
    shares = torch.stack([(phases == p).double().flatten(1).mean(1) for p in range(3)], 1)
    reuss, voigt = voigt_reuss_bounds(shares, THREE, dim=len(space))
    assert lowest(voigt - early.upper) > 0.0
    assert lowest(early.lower - reuss) > 0.0


def test_the_default_tolerance_costs_little_width():
    for contrast in (10.0, 1000.0):
        problem = elastic(noise(1, 16, 16), contrast)
        loose, tight = continuum_bounds(problem), continuum_bounds(problem, tolerance=1e-7)
        assert float(loose.width) < 1.02 * float(tight.width)


def test_wide_cells_are_refined_until_narrow_or_the_limit():
    phases = noise(3, 8, 8)
    phases[1] = 0
    phases[1, 4:] = 1
    coarse = continuum_bounds(elastic(phases))
    wanted = float(coarse.width.min() + coarse.width.max()) / 2
    bounds = continuum_bounds(elastic(phases), bracket_tolerance=wanted, max_refinement=2)
    assert bounds.refinement.tolist() == [2, 1, 2]
    torch.testing.assert_close(bounds.lower[1], coarse.lower[1], rtol=1e-9, atol=1e-9)
    for cell in (0, 2):
        assert lowest(coarse.upper[cell] - bounds.upper[cell]) > 0.0
        assert lowest(bounds.lower[cell] - coarse.lower[cell]) > 0.0
    again = continuum_bounds(elastic(phases), bracket_tolerance=1e-6, max_refinement=4)
    assert again.refinement.tolist() == [4, 1, 4]
    assert (again.width < bounds.width)[[0, 2]].all()
    assert float(again.width[0]) > 1e-6


def test_width_is_the_worst_load():
    bounds = continuum_bounds(elastic(noise(2, 8, 8), 100.0))
    loads = rough(2, 4000, 3)
    gap, middle = (
        torch.einsum("bli,bij,blj->bl", loads, m, loads)
        for m in (bounds.upper - bounds.lower, bounds.value)
    )
    found = (gap / middle).amax(1)
    assert (found <= bounds.width * (1 + 1e-12)).all()
    assert (found > 0.98 * bounds.width).all()
    torch.testing.assert_close(bounds.value, 0.5 * (bounds.lower + bounds.upper))
    torch.testing.assert_close(loewner_width(bounds.lower, bounds.upper), bounds.width)


@pytest.mark.parametrize("space", [(10, 9), (5, 6, 4)])
@pytest.mark.parametrize("heat", [True, False])
def test_pores_have_both_bounds_and_hold_their_refined_value(space, heat):
    phases = (torch.rand(2, *space, generator=generator_for("pores", *space)) < 0.25).long()
    phases[1] = 0
    phases[1, 1:3, 1:3] = 1
    phases[:, -1] = 2
    if heat:
        problem = conduction_problem(phases, [1.0, 0.0, 5.0], "q1")
    else:
        pore = IsotropicElastic(youngs_modulus_gpa=0.0)
        problem = elastic_problem(phases, [THREE[0], pore, THREE[1]], "q1")
    bounds = continuum_bounds(problem)
    times = 4 if len(space) == 2 else 2
    law = refined(problem.law, times)  # type: ignore[attr-defined]
    truth = continuum_bounds(with_law(problem, law), tolerance=1e-5)
    assert not bounds.one_sided.any()
    scale = float(truth.upper.max())
    for outer, inner in ((truth.upper, bounds.lower), (bounds.upper, truth.upper)):
        assert lowest(outer - inner) > -1e-7 * scale
    assert lowest(truth.lower - bounds.lower) > -1e-7 * scale
    assert float(torch.linalg.eigvalsh(bounds.lower)[:, -1].min()) > 0.1 * scale
    assert float(bounds.width[1]) < 1.0
    assert float(truth.width[1]) < 0.7 * float(bounds.width[1])


@pytest.mark.parametrize("heat", [True, False])
def test_layers_that_leave_a_gap_carry_along_it_alone(heat):
    phases = torch.zeros(1, 9, 8, dtype=torch.long)
    phases[:, 6:] = 1
    if heat:
        bounds = continuum_bounds(conduction_problem(phases, [3.0, 0.0], "q1"))
        exact = torch.tensor([0.0, 2.0], dtype=torch.float64).diag()
    else:
        pore = IsotropicElastic(youngs_modulus_gpa=0.0)
        bounds = continuum_bounds(elastic_problem(phases, [THREE[0], pore], "q1"))
        lame, shear = THREE[0].lame, THREE[0].shear
        along = 4.0 * shear * (lame + shear) / (lame + 2.0 * shear) * 2.0 / 3.0
        exact = torch.tensor([0.0, along, 0.0], dtype=torch.float64).diag()
    torch.testing.assert_close(bounds.lower[0], exact, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(bounds.upper[0], exact, rtol=1e-4, atol=1e-4)
    assert lowest(exact - bounds.lower[0]) > -1e-12


@pytest.mark.parametrize("heat", [True, False])
def test_crumbs_between_pores_carry_nothing_by_round_off(heat):
    phases = (torch.rand(4, 13, 11, generator=generator_for("crumbs")) < 0.68).long()
    if heat:
        problem = conduction_problem(phases, [1.0, 0.0], "q1")
    else:
        pore = IsotropicElastic(youngs_modulus_gpa=0.0)
        problem = elastic_problem(phases, [THREE[0], pore], "q1")
    bounds = continuum_bounds(problem)
    nothing = torch.linalg.eigvalsh(bounds.upper)[:, -1] < 1e-6
    assert int(nothing.sum()) >= 2
    assert float(torch.linalg.eigvalsh(bounds.lower)[nothing].abs().max()) < 1e-6


@pytest.mark.parametrize("space", [(8, 9), (5, 6, 4)])
def test_the_stress_around_pores_is_balanced_and_vanishes_in_them(space):
    dim = len(space)
    phases = (torch.rand(1, *space, generator=generator_for("skin", dim)) < 0.2).long()
    pore = IsotropicElastic(youngs_modulus_gpa=0.0)
    cells = elastic_problem(phases, [THREE[0], pore], "q1")
    problem = SkeletonElasticity.of_law(cells.law, cells.ratio)  # type: ignore[attr-defined]
    macro = unit_loads(1, problem.components, phases.device)
    states, _ = solve_cells(
        problem,
        macro,
        displacement=None,
        tolerance=1e-9,
        max_iterations=2000,
        dtype=torch.float64,
    )
    stress = torch.cat([state.stress for state in states], 1)
    assert float(problem.divergence(stress).abs().max()) < 1e-6 * float(stress.abs().max())
    assert float(stress.abs().max()) > 0.1
    hollow = phases.bool().view(1, 1, 1, *space).expand_as(stress)
    for place in product((0.0, 0.4, 1.0), repeat=dim):
        assert float(stress_at(stress, 2, place)[hollow].abs().max()) < 1e-12


def test_pores_without_a_finished_solve_or_isotropy_leave_one_side():
    phases = noise(3, 8, 8)
    phases[1] = 0
    solid = THREE[0]
    problem = elastic_problem(phases, [solid, IsotropicElastic(youngs_modulus_gpa=0.0)], "q1")
    bounds = continuum_bounds(problem, bracket_tolerance=0.01, max_refinement=2, max_iterations=4)
    assert bounds.one_sided.tolist() == [True, False, True]
    assert bounds.refinement.tolist() == [1, 1, 1]
    assert float(bounds.lower[[0, 2]].abs().max()) == 0.0
    torch.testing.assert_close(bounds.value[0], bounds.upper[0])
    assert bounds.width.tolist() == pytest.approx([2.0, 0.0, 2.0], abs=1e-12)
    torch.testing.assert_close(bounds.lower[1], solid.stiffness(2), rtol=1e-12, atol=1e-12)
    iron = CubicElastic(c11_gpa=230.0, c12_gpa=135.0, c44_gpa=117.0)
    pore = IsotropicElastic(youngs_modulus_gpa=0.0)
    grains = continuum_bounds(elastic_problem(phases[:1], [iron, pore], "q1"))
    assert grains.one_sided.tolist() == [True]


def test_isotropic_and_anisotropic_laws_give_the_same_bounds():
    phases = noise(1, 4, 5, 3)
    plain = elastic_problem(phases, THREE[:2], "q1")
    stiffness = torch.stack([m.stiffness(3) for m in THREE[:2]])
    full = AnisotropicLaw(stiffness[phases].movedim((-2, -1), (1, 2)))
    one, other = (continuum_bounds(p, tolerance=1e-8) for p in (plain, with_law(plain, full)))
    torch.testing.assert_close(one.lower, other.lower, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(one.upper, other.upper, rtol=1e-11, atol=1e-11)


def test_turned_grains_are_bracketed():
    phases = torch.zeros(1, 8, 8, dtype=torch.long)
    turns = torch.nn.functional.normalize(rough(1, 4, 8, 8), dim=1)
    iron = CubicElastic(c11_gpa=230.0, c12_gpa=135.0, c44_gpa=117.0)
    problem = elastic_problem(phases, [iron], "q1", turns)
    coarse = continuum_bounds(problem)
    fine = continuum_bounds(problem, bracket_tolerance=1e-6, max_refinement=2)
    assert lowest(fine.lower - coarse.lower) > 0.0
    assert lowest(coarse.upper - fine.upper) > 0.0
    assert 0.0 < float(fine.width) < 0.7 * float(coarse.width)


def test_batches_precision_and_gradients_change_nothing():
    phases = noise(5, 8, 7)
    together = continuum_bounds(elastic(phases), tolerance=1e-6)
    alone = continuum_bounds(elastic(phases[3:4]), tolerance=1e-6)
    single = continuum_bounds(elastic(phases), tolerance=1e-3, dtype=torch.float32)
    torch.testing.assert_close(together.lower[3:4], alone.lower, rtol=1e-10, atol=0.0)
    torch.testing.assert_close(together.upper[3:4], alone.upper, rtol=1e-10, atol=0.0)
    torch.testing.assert_close(single.lower, together.lower, rtol=1e-5, atol=1e-5)
    assert lowest(together.lower - single.lower) > -1e-12
    assert single.lower.dtype == torch.float64
    fractions = torch.nn.functional.one_hot(phases, 2).movedim(-1, 1).double().requires_grad_()
    soft = continuum_bounds(elastic(fractions), tolerance=1e-6)
    assert not soft.value.requires_grad
    torch.testing.assert_close(soft.upper, together.upper, rtol=1e-9, atol=0.0)


def test_bad_settings_are_named():
    problem = elastic(noise(1, 4, 4))
    with pytest.raises(DataError, match="q1"):
        continuum_bounds(elastic_problem(noise(1, 4, 4), THREE, "rotated"))
    with pytest.raises(DataError, match="q1"):
        continuum_bounds(elastic_problem(noise(1, 4, 4), THREE))
    with pytest.raises(DataError, match="bracket_tolerance"):
        continuum_bounds(problem, bracket_tolerance=2.0)
    with pytest.raises(DataError, match="tolerance"):
        continuum_bounds(problem, tolerance=0.0)
    with pytest.raises(DataError, match="max_iterations"):
        continuum_bounds(problem, max_iterations=0)
    with pytest.raises(DataError, match="dtype"):
        continuum_bounds(problem, dtype=torch.float16)
