"""The corner schemes against closed forms, and their fast operators against the plain ones.

Laws that the staggered grid obeys too, and that no other test has, are here for all schemes.
"""

import math
from importlib.util import find_spec
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from physics.mechanics import (
    IsotropicElastic,
    effective_conductivity,
    effective_stiffness,
    solve_elasticity,
    stencil,
)
from physics.mechanics.conductivity import conduction_problem
from physics.mechanics.discretisation import elastic_problem
from physics.mechanics.laws import AnisotropicLaw, ConductionLaw
from physics.mechanics.nodal import Q1, ROTATED, NodalConduction, NodalElasticity
from physics.mechanics.nodal_stencil import NodalStencil
from physics.mechanics.problem import CellProblem, LawOperator

SCHEMES = ("staggered", "q1", "rotated")
SOFT = IsotropicElastic(youngs_modulus_gpa=1.0, poisson_ratio=0.3)
STIFF = IsotropicElastic(youngs_modulus_gpa=10.0, poisson_ratio=0.3)
RUBBER = IsotropicElastic(youngs_modulus_gpa=0.2, poisson_ratio=0.45)
THREE = [SOFT, STIFF, RUBBER]
EQUAL_SHEAR = [
    IsotropicElastic(
        youngs_modulus_gpa=(3.0 * lame + 2.0) / (lame + 1.0),
        poisson_ratio=lame / (2.0 * (lame + 1.0)),
    )
    for lame in (0.2, 3.0, 40.0)
]


def noise(*shape: int, phases: int = 2, seed: int = 0) -> Tensor:
    return torch.randint(phases, shape, generator=torch.Generator().manual_seed(seed))


def rough(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def blobs(*space: int, length: float = 3.0) -> Tensor:
    """Return labels of one thresholded Gaussian field; 40 % of the voxels are 1."""
    axes = tuple(range(len(space)))
    k = torch.stack(torch.meshgrid(*[torch.fft.fftfreq(n) for n in space], indexing="ij"))
    blur = torch.exp(-2.0 * (math.pi * length) ** 2 * (k**2).sum(0))
    field = torch.fft.ifftn(torch.fft.fftn(rough(*space), dim=axes) * blur, dim=axes).real
    return (field > torch.quantile(field, 0.6)).long().unsqueeze(0)


def distance(n: int, dim: int) -> Tensor:
    """Return the distance from the centre of the cell, in voxels."""
    x = torch.arange(n) - n / 2 + 0.5
    return torch.stack(torch.meshgrid(*[x] * dim, indexing="ij")).square().sum(0).sqrt()


def ball(n: int, dim: int, share: float) -> Tensor:
    """Return a centred disc or sphere, label 1, of about the given volume share."""
    unit = math.pi if dim == 2 else 4.0 / 3.0 * math.pi
    return (distance(n, dim) < n * (share / unit) ** (1.0 / dim)).long().unsqueeze(0)


def waves(n: int, dim: int) -> Tensor:
    """Return smooth fractions of two phases `(1, 2, *space)`, sampled at voxel centres."""
    x = 2.0 * math.pi * (torch.arange(n, dtype=torch.float64) + 0.5) / n
    grid = torch.meshgrid(*[x] * dim, indexing="ij")
    field = 0.5 + 0.1 * (torch.sin(grid[0]) + torch.cos(grid[1] + 0.7 * torch.sin(grid[0])))
    field = field + 0.1 * torch.sin(grid[-1] - grid[0])
    return torch.stack((1.0 - field, field)).unsqueeze(0)


def finer(phases: Tensor, factor: int) -> Tensor:
    """Return the same geometry with every voxel cut along every axis."""
    for axis in range(1, phases.ndim):
        phases = phases.repeat_interleave(factor, axis)
    return phases


def eigenvalues(matrix: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(0.5 * (matrix + matrix.mT))


def corner_problems(phases: Tensor) -> list[CellProblem]:
    """Return problems of every kind that has a fast operator."""
    split = 0.5 + torch.rand(
        len(phases), phases.ndim - 1, *phases.shape[1:], generator=torch.Generator().manual_seed(3)
    )
    return [
        *(elastic_problem(phases, THREE, scheme) for scheme in ("q1", "rotated")),
        *(conduction_problem(phases, [1.0, 10.0, 0.1], scheme) for scheme in ("q1", "rotated")),
        *(NodalConduction(element, ConductionLaw(split.double())) for element in (Q1, ROTATED)),
    ]


@pytest.mark.parametrize("space", [(9, 7), (8, 6), (2, 3), (5, 6, 7), (4, 2, 3)])
@pytest.mark.parametrize("slab", [1, 300, 10**6])
def test_the_fast_operator_is_minus_div_c_grad(space, slab, monkeypatch):
    monkeypatch.setattr(stencil, "SLAB_VALUES", slab)
    for problem in corner_problems(noise(2, *space, phases=3)):
        u = rough(2, 3, problem.unknowns, *space)
        expected = LawOperator(problem)(u)
        size = float(expected.abs().max())
        operator = problem.operator(3, torch.float64)
        assert isinstance(operator, NodalStencil)
        for _ in range(2):  # the second call finds the buffers used
            torch.testing.assert_close(operator(u), expected, rtol=0.0, atol=1e-13 * size)
        keep = torch.tensor([False, True])
        torch.testing.assert_close(operator.select(keep)(u[keep]), expected[keep])
        single = problem.operator(3, torch.float32)(u.float())
        torch.testing.assert_close(single.double(), expected, rtol=0.0, atol=3e-6 * size)


@pytest.mark.parametrize("space", [(7, 6), (4, 5, 3)])
def test_the_fast_operator_is_symmetric_and_its_own_gradient(space):
    for problem in corner_problems(noise(1, *space, phases=3)):
        u, v = rough(2, 1, 2, problem.unknowns, *space)
        operator = problem.operator(2, torch.float64)
        forward = float((v * operator(u)).sum())
        assert float((u * operator(v)).sum()) == pytest.approx(forward, rel=1e-12)
        u.requires_grad_()
        (slope,) = torch.autograd.grad((v * operator(u)).sum(), u)
        torch.testing.assert_close(slope, operator(v), rtol=1e-13, atol=1e-13)


def test_other_laws_take_the_plain_operator():
    stiffness = STIFF.stiffness(2).view(1, 3, 3, 1, 1).expand(1, 3, 3, 4, 5)
    problem = NodalElasticity(Q1, AnisotropicLaw(stiffness), 1.0)
    fast = elastic_problem(torch.ones(1, 4, 5, dtype=torch.long), THREE, "q1")
    u = rough(1, 1, 2, 4, 5)
    operator = problem.operator(1, torch.float64)
    assert isinstance(operator, LawOperator)
    torch.testing.assert_close(
        operator(u), fast.operator(1, torch.float64)(u), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("space", [(8, 9), (6, 5, 4)])
def test_the_green_operators_invert_the_reference(space):
    for problem in corner_problems(noise(1, *space, phases=3)):
        u = rough(1, 2, problem.unknowns, *space)
        force = -problem.divergence(problem.reference_stress(problem.gradient(u)))
        green = problem.green(torch.float64)
        again = -problem.divergence(problem.reference_stress(problem.gradient(green(force))))
        torch.testing.assert_close(again, force, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scheme", ["q1", "rotated"])
@pytest.mark.parametrize("space", [(9, 6), (5, 6, 4)])
def test_laminates_are_those_of_the_staggered_grid(scheme, space):
    """There they are Backus's, to round-off (test_elasticity, test_conductivity)."""
    for axis in range(len(space)):
        view = [1] * len(space)
        view[axis] = -1
        phases = noise(space[axis], phases=3, seed=axis).view(view).expand(space).unsqueeze(0)
        found, exact = (
            effective_stiffness(phases, THREE, scheme=s, tolerance=1e-7).value
            for s in (scheme, "staggered")
        )
        torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-11)
        found, exact = (
            effective_conductivity(phases, [1, 10, 0.1], scheme=s, tolerance=1e-7).value
            for s in (scheme, "staggered")
        )
        torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("space", [(15, 17), (5, 7, 9)])
def test_rotated_has_hills_solution_on_white_noise_of_odd_sides(space):
    phases = noise(2, *space, phases=3)
    value = effective_stiffness(phases, EQUAL_SHEAR, scheme="rotated", tolerance=1e-8).value
    softness = torch.tensor([1.0 / (m.lame + 2.0) for m in EQUAL_SHEAR], dtype=torch.float64)
    exact = 1.0 / softness[phases].flatten(1).mean(1)
    torch.testing.assert_close(value[:, 0, 0], exact, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(value[:, 0, 1], exact - 2.0, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(value[:, -1, -1], torch.full_like(exact, 2.0), rtol=1e-12, atol=0.0)


def test_q1_approaches_hills_solution_from_above():
    phases = noise(1, 8, 8, phases=3)
    softness = torch.tensor([1.0 / (m.lame + 2.0) for m in EQUAL_SHEAR], dtype=torch.float64)
    exact = 1.0 / float(softness[phases].mean())
    misses = [
        float(
            effective_stiffness(finer(phases, k), EQUAL_SHEAR, scheme="q1", tolerance=1e-4).value[
                0, 0, 0
            ]
        )
        / exact
        - 1.0
        for k in (1, 2, 4, 8)
    ]
    assert 0.18 < misses[0] < 0.49
    for coarse, fine in pairwise(misses):
        assert 0.0 < 2.5 * fine < coarse


@pytest.mark.parametrize("space", [(6, 5), (4, 3, 3)])
def test_q1_is_above_rotated_and_falls_when_voxels_are_cut(space):
    """Jensen: exact integration costs no less energy than one point; finer spaces are larger."""
    phases = noise(1, *space, phases=3)
    q1, rotated, finest = (
        effective_stiffness(p, THREE, scheme=s, tolerance=1e-6).value[0]
        for p, s in ((phases, "q1"), (phases, "rotated"), (finer(phases, 2), "q1"))
    )
    assert float(eigenvalues(q1 - rotated).min()) > 1e-3
    assert float(eigenvalues(q1 - finest).min()) > 1e-3


def test_a_checkerboard_tends_to_the_geometric_mean():
    misses = {}
    for scheme in ("rotated", "q1"):
        row = []
        for n in (16, 32, 64):
            half = torch.arange(n) < n // 2
            phases = (half[:, None] ^ half).long().unsqueeze(0)
            value = effective_conductivity(phases, [1.0, 10.0], scheme=scheme).value[0]
            row.append(float(value[0, 0]) / math.sqrt(10.0) - 1.0)
        misses[scheme] = row
    assert misses["rotated"][1:] == pytest.approx([5.0e-3, 1.7e-3], rel=0.02)
    assert math.log2(misses["rotated"][1] / misses["rotated"][2]) == pytest.approx(1.55, abs=0.03)
    assert misses["q1"][1] == pytest.approx(5.1e-2, rel=0.02)
    assert misses["q1"][0] > 1.7 * misses["q1"][1] > 1.7**2 * misses["q1"][2] > 0.0


@pytest.mark.parametrize("space", [(15, 17), (15, 8), (9, 9)])
def test_rotated_obeys_kellers_duality_exactly_on_noise_with_an_odd_side(space):
    phases, k = noise(2, *space, phases=3), [1.0, 10.0, 0.3]
    primal, dual = (
        effective_conductivity(phases, values, scheme="rotated", tolerance=1e-8).value
        for values in (k, [1.0 / value for value in k])
    )
    expected = primal / torch.linalg.det(primal).view(-1, 1, 1)
    torch.testing.assert_close(dual, expected, rtol=1e-11, atol=1e-11)


def test_smooth_media_approach_kellers_duality_on_q1():
    misses = []
    for n in (16, 32, 64):
        fractions = waves(n, 2)
        k = fractions[:, 0] + 20.0 * fractions[:, 1]
        first, second = (
            effective(NodalConduction(Q1, ConductionLaw(field.unsqueeze(1))))
            for field in (k, 1.0 / k)
        )
        misses.append(float(first[0, 0] * second[1, 1] - first[0, 1] * second[0, 1]) - 1.0)
    assert 0.0 < misses[2] < 1e-3
    assert misses[0] / misses[1] == pytest.approx(4.0, rel=0.15)
    assert misses[1] / misses[2] == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize("contrast", [10.0, 100.0, 0.1])
def test_square_inclusions_meet_obnosov(contrast):
    exact = math.sqrt((1.0 + 3.0 * contrast) / (3.0 + contrast))
    published = {10.0: 1.544220, 100.0: 1.709482, 0.1: 0.647576}
    assert exact == pytest.approx(published[contrast], abs=1e-6)
    misses = {}
    for scheme in SCHEMES:
        row = []
        for n in (32, 64):
            phases = torch.zeros(1, n, n, dtype=torch.long)
            phases[:, : n // 2, : n // 2] = 1
            value = effective_conductivity(phases, [1.0, contrast], scheme=scheme, tolerance=1e-5)
            row.append(float(value.value[0, 0, 0]) / exact - 1.0)
        misses[scheme] = row
    assert 0.0 < misses["rotated"][1] < 6e-6
    assert misses["rotated"][0] > 6.0 * misses["rotated"][1]
    # The harmonic mean on faces errs from below, conforming elements from above.
    assert max(-2.2e-3, 0.41 * misses["staggered"][0]) < misses["staggered"][1] < 0.0
    assert 1.1e-3 > misses["q1"][1] > 0.0
    assert misses["q1"][0] > 2.4 * misses["q1"][1]
    if contrast == 10.0:
        assert misses["rotated"][1] == pytest.approx(1.6e-6, rel=0.05)
        assert misses["q1"][1] == pytest.approx(4.8e-4, rel=0.02)
        assert misses["staggered"][1] == pytest.approx(-1.1e-3, rel=0.05)


def test_discs_and_spheres_in_arrays_meet_rayleigh_and_sangani():
    c, t = 10.0, -11.0 / 9.0
    b, g = (c - 1) / (c + 2), (c - 1) / (c + 4 / 3)
    misses: dict[tuple[str, int], list[float]] = {}
    for dim, sides, share in ((2, (64, 128), 0.2), (3, (16, 32), 0.1)):
        for n in sides:
            phases = ball(n, dim, share)
            f = float(phases.double().mean())
            if dim == 2:
                tail = 0.305827 * f**4 * t / (t**2 - 1.402958 * f**8) + 0.013362 * f**8 / t
                exact = 1 - 2 * f / (t + f - tail)
            else:
                exact = 1 + 3 * f / (1 / b - f - 1.3045 * g * f ** (10 / 3))
            for scheme in ("rotated", "q1"):
                value = effective_conductivity(phases, [1.0, c], scheme=scheme, tolerance=1e-3)
                miss = float(value.value[0, 0, 0]) / exact - 1.0
                misses.setdefault((scheme, dim), []).append(miss)
    assert misses["rotated", 2][1] == pytest.approx(1.3e-3, rel=0.02)
    assert misses["q1", 2][1] == pytest.approx(2.5e-3, rel=0.02)
    assert 0.0 < misses["rotated", 3][1] < 6e-3
    assert 0.0 < misses["q1", 3][1] < 1.25e-2
    for coarse, fine in misses.values():
        assert coarse > 1.7 * fine > 0.0


@pytest.mark.parametrize(("scheme", "slack"), [("rotated", 0.035), ("q1", 0.06)])
def test_a_dilute_cylinder_meets_eshelby(scheme, slack):
    n, radius = 96, 8.0
    phases = (distance(n, 2) < radius).long().unsqueeze(0)
    f = float(phases.double().mean())
    value = effective_stiffness(phases, [SOFT, STIFF], scheme=scheme).value[0]
    (k1, g1), (k2, g2) = ((m.lame + m.shear, m.shear) for m in (SOFT, STIFF))
    k = f * (k2 - k1) * (k1 + g1) / (k2 + g1)
    slope = 2 * g1 * (k1 + g1) / (2 * g1 * (k1 + g1) + (g2 - g1) * (k1 + 2 * g1))
    g = f * (g2 - g1) * slope
    # Periodic images add about 2 % here, the voxels' rim the rest.
    assert (float(value[0, 0] + value[0, 1]) / 2 - k1) / k == pytest.approx(1.0, abs=slack)
    shear = float(value[0, 0] - value[0, 1] + value[2, 2]) / 4
    assert (shear - g1) / g == pytest.approx(1.0, abs=slack)


@pytest.mark.parametrize(("scheme", "slack"), [("rotated", 0.05), ("q1", 0.10)])
def test_a_dilute_sphere_meets_eshelby(scheme, slack):
    n, radius = 32, 5.5
    inside = distance(n, 3) < radius
    f = float(inside.double().mean())
    macro = torch.zeros(1, 2, 6, dtype=torch.float64)
    macro[:, 0, :3] = 1.0
    macro[:, 1, 5] = 1.0
    fields = solve_elasticity(
        inside.long().unsqueeze(0), [SOFT, STIFF], macro, scheme=scheme, tolerance=1e-3
    )
    (k1, g1), (k2, g2) = ((m.bulk, m.shear) for m in (SOFT, STIFF))
    k = f * (k2 - k1) * (3 * k1 + 4 * g1) / (3 * k2 + 4 * g1)
    b = 6 * (k1 + 2 * g1) / (5 * (3 * k1 + 4 * g1))
    g = f * (g2 - g1) / (1 + b * (g2 / g1 - 1))
    mean = fields.stress.flatten(3).mean(-1)[0]
    assert (float(mean[0, 0]) / 3 - k1) / k == pytest.approx(1.0, abs=slack)
    assert (float(mean[1, 5]) / 2 - g1) / g == pytest.approx(1.0, abs=slack)
    core = fields.strain[0, 0, :3, 14:18, 14:18, 14:18]
    factor = (3 * k1 + 4 * g1) / (3 * k2 + 4 * g1)
    assert float(core.mean()) == pytest.approx(factor, rel=0.06)


def coated(n: int, dim: int, radius: float) -> tuple[Tensor, float]:
    """Return matrix 0, shell 1 and core 2 (40 % of the particle), and the core's share as cut."""
    r = distance(n, dim)
    phases = (r < radius).long() + (r < radius * 0.4 ** (1.0 / dim)).long()
    return phases.unsqueeze(0), float((phases == 2).sum() / (phases > 0).sum())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("n", "dim", "radius", "slack"), [(96, 2, 32.0, 0.005), (24, 3, 8.0, 0.03)]
)
def test_a_coated_particle_is_neutral_to_expansion_in_its_own_bound(scheme, n, dim, radius, slack):
    """Hashin (1962): the medium of Hashin and Shtrikman's bound does not feel the particle."""
    phases, f = coated(n, dim, radius)
    soft, stiff = (m.lame + 2.0 * m.shear / dim for m in (SOFT, STIFF))
    stiffening = 2.0 * (dim - 1) / dim * SOFT.shear
    bulk = soft + f / (1.0 / (stiff - soft) + (1.0 - f) / (soft + stiffening))
    lame = bulk - 2.0 / dim
    medium = IsotropicElastic(
        youngs_modulus_gpa=(3 * lame + 2) / (lame + 1), poisson_ratio=lame / (2 * (lame + 1))
    )
    macro = torch.zeros(1, 1, dim * (dim + 1) // 2, dtype=torch.float64)
    macro[..., :dim] = 1.0
    far = distance(n, dim) > 1.15 * radius

    def disturbance(materials: list[IsotropicElastic]) -> tuple[float, float]:
        fields = solve_elasticity(phases, materials, macro, scheme=scheme, tolerance=1e-3)
        strain = fields.strain[0, 0][:, far] - macro[0, 0].unsqueeze(1)
        pressure = float(fields.stress[0, 0, :dim].mean())
        return float(strain.square().sum(0).mean().sqrt()) / dim**0.5, pressure / (dim * bulk)

    rms, found = disturbance([medium, SOFT, STIFF])
    assert rms < slack
    assert found == pytest.approx(1.0, abs=0.5 * slack)
    assert disturbance([medium, medium, STIFF])[0] > 4.0 * rms


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("n", "dim", "slack"), [(96, 2, 4e-3), (24, 3, 1.5e-2)])
def test_a_coated_particle_is_neutral_to_conduction(scheme, n, dim, slack):
    phases, f = coated(n, dim, n / 3)
    medium = 1.0 + f / (1.0 / 9.0 + (1.0 - f) / dim)
    value = effective_conductivity(phases, [medium, 1.0, 10.0], scheme=scheme, tolerance=1e-3).value
    assert float(value[0, 0, 0]) == pytest.approx(medium, rel=slack)


@pytest.mark.parametrize("scheme", ["q1", "rotated"])
def test_iterations_depend_on_contrast_and_not_on_the_mesh(scheme):
    for contrast, low, high in ((10.0, 17, 24), (100.0, 45, 65)):
        stiff = IsotropicElastic(youngs_modulus_gpa=contrast)
        counts = []
        for n in (32, 64, 128):
            phases = blobs(n, n, length=3.0 * n / 64)
            result = effective_stiffness(phases, [SOFT, stiff], scheme=scheme, tolerance=1e-6)
            assert result.residual.max() <= 1e-6
            counts.append(int(result.iterations.max()))
        assert low <= min(counts)
        assert max(counts) <= min(high, 1.2 * min(counts))
    solid = effective_stiffness(blobs(16, 16, 16), [SOFT, STIFF], scheme=scheme, tolerance=1e-6)
    assert 16 <= int(solid.iterations.max()) <= 24


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("dim", "sides"), [(2, (16, 32, 64)), (3, (8, 16, 32))])
def test_energies_of_smooth_media_converge_with_order_two(scheme, dim, sides):
    stiff = IsotropicElastic(youngs_modulus_gpa=10.0, poisson_ratio=0.2)
    options = {"scheme": scheme, "tolerance": 1e-4}
    for values in (
        [effective_stiffness(waves(n, dim), [SOFT, stiff], **options).value[0] for n in sides],
        [effective_conductivity(waves(n, dim), [1.0, 10.0], **options).value[0] for n in sides],
    ):
        coarse, fine = (float((a - b).norm()) for a, b in pairwise(values))
        assert math.log2(coarse / fine) == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize("scheme", ["q1", "rotated"])
def test_the_gradient_is_that_of_finite_differences(scheme):
    generator = torch.Generator().manual_seed(2)
    fractions = torch.rand(1, 3, 6, 5, generator=generator, dtype=torch.float64).softmax(1)
    weights = rough(3, 3)

    def measure(x: Tensor) -> Tensor:
        found = effective_stiffness(x, THREE, scheme=scheme, tolerance=1e-8)
        return (found.value[0] * weights).sum()

    fractions.requires_grad_()
    (gradient,) = torch.autograd.grad(measure(fractions), fractions)
    change = 1e-5 * torch.randn(fractions.shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        slope = measure(fractions + change) - measure(fractions - change)
    assert float(slope) == pytest.approx(2.0 * float((gradient * change).sum()), rel=1e-6)


@pytest.mark.parametrize("space", [(17, 16), (9, 8, 10)])
def test_q1_is_mugrids(space):
    if find_spec("muGrid") is None:
        pytest.skip("muGrid is absent: pip install mesoforge[peers]")
    from studies.race_solvers import mugrid_stiffness

    phases = noise(1, *space, phases=3)
    value = effective_stiffness(phases, THREE, scheme="q1", tolerance=1e-8).value[0]
    peer = mugrid_stiffness(phases[0], THREE, 1e-8)
    torch.testing.assert_close(value, peer.stiffness, rtol=1e-10, atol=1e-10)
    plain = mugrid_stiffness(phases[0], THREE, 1e-8, from_energy=False)
    torch.testing.assert_close(value, plain.stiffness, rtol=1e-6, atol=1e-6)


def effective(problem: CellProblem) -> Tensor:
    from physics.mechanics.effective import effective_property

    found = effective_property(
        problem, displacement=None, tolerance=1e-4, max_iterations=500, dtype=torch.float64
    )
    return found.value[0]
