"""Certificates: valid for any displacement, tight for good ones, and compatible strains."""

import pytest
import torch

from microstructures import DataError
from physics.mechanics import (
    IsotropicElastic,
    certify_elastic,
    compatible_strain,
    displacement_from_strain,
    effective_conductivity,
    effective_stiffness,
    solve_elasticity,
)
from physics.mechanics.cells import solve_cells
from physics.mechanics.certificates import certify_conductive
from physics.mechanics.conductivity import conduction_problem
from physics.mechanics.crystals import CubicElastic
from physics.mechanics.discretisation import elastic_problem
from physics.mechanics.trial_state import trial_state, unit_loads

MATERIALS = [
    IsotropicElastic(youngs_modulus_gpa=1.0, poisson_ratio=0.3),
    IsotropicElastic(youngs_modulus_gpa=10.0, poisson_ratio=0.2),
    IsotropicElastic(youngs_modulus_gpa=0.3, poisson_ratio=0.45),
]
SPACES = [(9, 8), (6, 5, 4)]


def noise(*shape: int, phases: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randint(phases, shape, generator=torch.Generator().manual_seed(seed))


def rough(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loewner_gap(high: torch.Tensor, low: torch.Tensor) -> float:
    return float(torch.linalg.eigvalsh(high - low).min())


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("size", [1e-3, 0.1, 1.0, 100.0])
def test_the_bracket_holds_for_random_displacements(space, size):
    dim = len(space)
    n = dim * (dim + 1) // 2
    phases = noise(3, *space)
    exact = effective_stiffness(phases, MATERIALS, tolerance=1e-9).value
    trial = size * rough(3, n, dim, *space)
    certificate = certify_elastic(phases, MATERIALS, displacement=trial)
    assert loewner_gap(certificate.upper, exact) > 0.0
    assert loewner_gap(exact, certificate.lower) > 0.0
    assert float(torch.linalg.eigvalsh(certificate.lower).min()) > -1e-9
    assert not certificate.one_sided.any()
    problem = elastic_problem(phases, MATERIALS)
    loads = unit_loads(3, n, phases.device)
    best = solve_elasticity(phases, MATERIALS, tolerance=1e-9).displacement
    trial_fields, best_fields = (trial_state(problem, loads, u) for u in (trial, best))
    error = trial_fields.strain - best_fields.strain
    energy = (error * problem.stress(error)).flatten(2).sum(-1)
    true = (energy / (trial_fields.strain * trial_fields.stress).flatten(2).sum(-1)).sqrt()
    assert (true <= certificate.energy_error * (1 + 1e-9)).all()


@pytest.mark.parametrize("space", SPACES)
def test_no_displacement_gives_voigt_above_and_a_valid_bound_below(space):
    dim = len(space)
    n = dim * (dim + 1) // 2
    phases = noise(2, *space)
    certificate = certify_elastic(
        phases, MATERIALS, displacement=torch.zeros(2, n, dim, *space, dtype=torch.float32)
    )
    stiffness = torch.stack([m.stiffness(dim) for m in MATERIALS])
    voigt = stiffness[phases].flatten(1, -3).mean(1)
    normal = certificate.upper[:, :dim, :dim]
    torch.testing.assert_close(normal, voigt[:, :dim, :dim], rtol=1e-12, atol=1e-12)
    assert loewner_gap(voigt, certificate.upper) > -1e-12
    exact = effective_stiffness(phases, MATERIALS, tolerance=1e-9).value
    reuss = torch.linalg.inv(torch.linalg.inv(stiffness)[phases].flatten(1, -3).mean(1))
    assert loewner_gap(exact, certificate.lower) > 0.0
    assert loewner_gap(certificate.lower, reuss) > 0.0


@pytest.mark.parametrize("space", SPACES)
def test_the_bracket_closes_with_the_tolerance(space):
    phases = noise(2, *space)
    for tolerance in (1e-2, 1e-3, 1e-5):
        result = effective_stiffness(phases, MATERIALS, tolerance=tolerance)
        gap = torch.linalg.eigvalsh(result.upper - result.lower)
        assert float(gap.max()) < 300.0 * tolerance**2
        assert float(gap.min()) > -1e-12


def test_any_loads_are_bounded_as_a_quadratic_form():
    phases = noise(2, 8, 7)
    macro = rough(2, 2, 3)
    exact = effective_stiffness(phases, MATERIALS, tolerance=1e-9).value
    exact = macro @ exact @ macro.mT
    certificate = certify_elastic(
        phases, MATERIALS, displacement=0.1 * rough(2, 2, 2, 8, 7), macro_strain=macro
    )
    assert certificate.lower.shape == (2, 2, 2)
    assert loewner_gap(certificate.upper, exact) > 0.0
    assert loewner_gap(exact, certificate.lower) > 0.0
    fields = solve_elasticity(phases, MATERIALS, macro, tolerance=1e-8)
    tight = certify_elastic(phases, MATERIALS, displacement=fields.displacement, macro_strain=macro)
    torch.testing.assert_close(tight.lower, exact, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(tight.upper, exact, rtol=1e-9, atol=1e-9)
    assert float(tight.energy_error.max()) < 1e-6


def test_repeated_and_opposite_loads_do_no_harm():
    phases = noise(1, 8, 8)
    macro = torch.tensor([[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]]).double()
    exact = effective_stiffness(phases, MATERIALS, tolerance=1e-9).value[0, 0, 0]
    moved = solve_elasticity(phases, MATERIALS, macro, tolerance=1e-6).displacement
    certificate = certify_elastic(phases, MATERIALS, displacement=moved, macro_strain=macro)
    torch.testing.assert_close(certificate.lower[0, 1, 1], exact, rtol=1e-8, atol=0.0)
    torch.testing.assert_close(certificate.upper[0, 0, 2], -exact, rtol=1e-8, atol=0.0)


def test_pores_leave_only_the_upper_bound():
    phases = noise(2, 8, 8)
    phases[0] = phases[0].clamp_max(1)
    materials = [*MATERIALS[:2], IsotropicElastic(youngs_modulus_gpa=0.0)]
    certificate = certify_elastic(phases, materials, displacement=0.1 * rough(2, 3, 2, 8, 8))
    assert certificate.one_sided.tolist() == [False, True]
    assert float(certificate.lower[1].abs().max()) == 0.0
    assert float(torch.linalg.eigvalsh(certificate.lower[0]).min()) > 0.0
    exact = effective_stiffness(phases, materials, tolerance=1e-6).value
    assert loewner_gap(certificate.upper, exact) > 0.0


def test_the_certificate_carries_a_gradient_to_the_displacement():
    phases = noise(1, 5, 4)
    trial = 0.1 * rough(1, 3, 2, 5, 4)
    trial.requires_grad_()

    def width(u: torch.Tensor) -> torch.Tensor:
        certificate = certify_elastic(phases, MATERIALS, displacement=u)
        return torch.stack(
            [m.diagonal(dim1=1, dim2=2).sum() for m in (certificate.upper, certificate.lower)]
        )

    assert torch.autograd.gradcheck(width, (trial,))


@pytest.mark.parametrize("space", [(8, 7), (4, 5, 6)])
def test_compatible_strain_is_that_of_the_solver(space):
    dim = len(space)
    n = dim * (dim + 1) // 2
    fields = solve_elasticity(noise(2, *space), MATERIALS)
    torch.testing.assert_close(compatible_strain(fields.displacement), fields.strain)
    u = rough(2, 2, dim, *space).requires_grad_()
    macro = rough(2, 2, n)
    strain = compatible_strain(u, macro)
    torch.testing.assert_close(strain.flatten(3).mean(-1), macro, rtol=1e-12, atol=1e-12)
    strain.square().sum().backward()
    assert float(u.grad.abs().max()) > 0.0  # type: ignore[union-attr]
    assert compatible_strain(u.detach().float(), macro).dtype == torch.float32


@pytest.mark.parametrize("space", [(9, 7), (5, 7, 3), (8, 6), (4, 6, 8)])
def test_a_strain_gives_its_displacement_back(space):
    fields = solve_elasticity(noise(2, *space), MATERIALS, tolerance=1e-6)
    moved = displacement_from_strain(fields.strain)
    torch.testing.assert_close(compatible_strain(moved), fields.strain, rtol=1e-10, atol=1e-10)
    if all(n % 2 for n in space):
        torch.testing.assert_close(moved, fields.displacement, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("space", [(8, 7), (4, 5, 6)])
def test_the_projection_is_the_nearest_compatible_field(space):
    dim = len(space)
    strain = rough(1, 2, dim * (dim + 1) // 2, *space)
    strain = strain - strain.flatten(3).mean(-1).view(*strain.shape[:3], *[1] * dim)
    moved = displacement_from_strain(strain)
    zero = torch.zeros(1, 2, strain.shape[2], dtype=torch.float64)
    rest = strain - compatible_strain(moved, zero)
    other = compatible_strain(rough(1, 2, dim, *space, seed=1), zero)
    assert float((rest * other).sum().abs()) < 1e-9 * float(strain.square().sum())


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("scheme", ["staggered", "q1", "rotated"])
def test_conduction_is_bracketed_by_any_potential_and_closes_on_the_solution(space, scheme):
    phases, k, dim = noise(3, *space), [1.0, 10.0, 0.3], len(space)
    exact = effective_conductivity(phases, k, scheme=scheme, tolerance=1e-9).value
    for size in (1e-2, 1.0, 100.0):
        trial = size * rough(3, dim, *space)
        certificate = certify_conductive(phases, k, potential=trial, scheme=scheme)
        assert loewner_gap(certificate.upper, exact) > 0.0
        assert loewner_gap(exact, certificate.lower) > 0.0
        assert not certificate.one_sided.any()
    problem = conduction_problem(phases, k, scheme)
    states, _ = solve_cells(
        problem,
        unit_loads(3, dim, phases.device),
        displacement=None,
        tolerance=1e-8,
        max_iterations=500,
        dtype=torch.float64,
    )
    solved = torch.cat([state.displacement for state in states], 1).squeeze(2)
    tight = certify_conductive(phases, k, potential=solved, scheme=scheme)
    torch.testing.assert_close(tight.lower, exact, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(tight.upper, exact, rtol=1e-10, atol=1e-10)
    assert float(tight.energy_error.max()) < 1e-6


def test_no_potential_gives_wieners_mean_above():
    phases = noise(2, 8, 7, phases=2)
    still = torch.zeros(2, 2, 8, 7, dtype=torch.float64)
    certificate = certify_conductive(phases, [1.0, 10.0], potential=still, scheme="q1")
    mean = torch.tensor([1.0, 10.0]).double()[phases].flatten(1).mean(1)
    expected = mean.view(2, 1, 1) * torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(certificate.upper, expected, rtol=1e-13, atol=1e-13)
    insulated = certify_conductive(phases, [1.0, 0.0], potential=still)
    assert insulated.one_sided.all()
    assert float(insulated.lower.abs().max()) == 0.0


def test_any_gradients_are_bounded_as_a_quadratic_form():
    phases, k = noise(2, 6, 7), [1.0, 10.0, 0.3]
    macro = rough(2, 3, 2)
    exact = effective_conductivity(phases, k, tolerance=1e-9).value
    exact = macro @ exact @ macro.mT
    trial = 0.1 * rough(2, 3, 6, 7)
    certificate = certify_conductive(phases, k, potential=trial, macro_gradient=macro)
    assert certificate.lower.shape == (2, 3, 3)
    assert loewner_gap(certificate.upper, exact) > -1e-12
    assert loewner_gap(exact, certificate.lower) > -1e-12
    assert float((certificate.upper - certificate.lower).diagonal(dim1=1, dim2=2).min()) > 0.0


@pytest.mark.parametrize("scheme", ["staggered", "q1"])
def test_grains_are_certified(scheme):
    iron = CubicElastic(c11_gpa=230.0, c12_gpa=135.0, c44_gpa=117.0)
    phases = torch.zeros(2, 6, 5, dtype=torch.long)
    turns = torch.nn.functional.normalize(rough(2, 4, 6, 5), dim=1)
    exact = effective_stiffness(
        phases, [iron], scheme=scheme, orientations=turns, tolerance=1e-8
    ).value
    certificate = certify_elastic(
        phases,
        [iron],
        displacement=0.01 * rough(2, 3, 2, 6, 5),
        scheme=scheme,
        orientations=turns,
    )
    assert loewner_gap(certificate.upper, exact) > 0.0
    assert loewner_gap(exact, certificate.lower) > 0.0


def test_bad_input_is_named():
    phases = noise(1, 4, 4)
    with pytest.raises(DataError, match="displacement"):
        certify_elastic(phases, MATERIALS, displacement=torch.zeros(1, 2, 2, 4, 4))
    with pytest.raises(DataError, match="displacement"):
        certify_elastic(phases, MATERIALS, displacement=torch.full((1, 3, 2, 4, 4), torch.nan))
    with pytest.raises(DataError, match="scheme"):
        certify_elastic(
            phases, MATERIALS, displacement=torch.zeros(1, 3, 2, 4, 4), scheme="spectral"
        )
    with pytest.raises(DataError, match="macro_strain"):
        certify_elastic(
            phases,
            MATERIALS,
            displacement=torch.zeros(1, 3, 2, 4, 4),
            macro_strain=torch.zeros(1, 3, 2),
        )
    k = [1.0, 2.0, 3.0]
    with pytest.raises(DataError, match="potential"):
        certify_conductive(phases, k, potential=torch.zeros(1, 3, 4, 4))
    with pytest.raises(DataError, match="potential"):
        certify_conductive(phases, k, potential=torch.zeros(1, 2, 2, 4, 4))
    with pytest.raises(DataError, match="potential"):
        certify_conductive(phases, k, potential=torch.full((1, 2, 4, 4), torch.inf))
    with pytest.raises(DataError, match="macro_gradient"):
        certify_conductive(
            phases, k, potential=torch.zeros(1, 2, 4, 4), macro_gradient=torch.zeros(1, 2, 3)
        )
    with pytest.raises(DataError, match="Mandel"):
        displacement_from_strain(torch.zeros(1, 1, 4, 4, 4))
    with pytest.raises(DataError, match="macro_strain"):
        compatible_strain(torch.zeros(1, 2, 2, 4, 4))
