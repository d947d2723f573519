"""Anisotropic phases, orientations and eigenstrains against exact relations."""

import math

import pytest
import torch

from microstructures import DataError
from physics.mechanics import (
    CubicElastic,
    IsotropicElastic,
    TransverselyIsotropicElastic,
    effective_stiffness,
    solve_elasticity,
)
from physics.mechanics.crystals import isotropic_floor, mandel_rotation
from physics.mechanics.discretisation import PLANE_STRAIN, eigenstress, elastic_problem

SCHEMES = ("staggered", "q1", "rotated")
COPPER = CubicElastic(c11_gpa=168.4, c12_gpa=121.4, c44_gpa=75.4)
FIBRE = TransverselyIsotropicElastic(
    youngs_modulus_axial_gpa=230.0,
    youngs_modulus_transverse_gpa=15.0,
    shear_modulus_axial_gpa=24.0,
    poisson_ratio_axial=0.2,
    poisson_ratio_transverse=0.4,
)
EPOXY = IsotropicElastic(youngs_modulus_gpa=3.5, poisson_ratio=0.35)


def noise(*shape: int, phases: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randint(phases, shape, generator=torch.Generator().manual_seed(seed))


def grains(*space: int, seed: int = 0) -> torch.Tensor:
    """Return a random orientation per voxel, `(1, 4, *space)`."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(1, 4, *space, generator=generator, dtype=torch.float64)
    return q / q.norm(dim=1, keepdim=True)


def uniform(q: list[float], *space: int) -> torch.Tensor:
    one = torch.tensor(q, dtype=torch.float64).view(1, 4, *[1] * len(space))
    return one.expand(1, 4, *space)


def test_a_quaternion_turns_crystal_axes_into_sample_axes():
    # A quarter turn about x carries the crystal's axis 3 to the sample's axis 2 (and its sign).
    turn = uniform([math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0], 4, 4, 4)
    value = effective_stiffness(
        torch.zeros(1, 4, 4, 4, dtype=torch.long), [FIBRE], orientations=turn
    )
    own = FIBRE.crystal_stiffness()
    order = [0, 2, 1, 3, 5, 4]
    torch.testing.assert_close(value.value[0], own[order][:, order], rtol=1e-12, atol=1e-11)


def test_mandel_rotations_act_on_strains_as_on_matrices():
    q = grains(1, 1, seed=3)
    w, x, y, z = q.flatten()
    matrix = torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ],
        dtype=torch.float64,
    )
    strain = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    strain = strain + strain.T
    pairs = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))

    def mandel(t: torch.Tensor) -> torch.Tensor:
        return torch.stack([t[i, j] * (1.0 if i == j else math.sqrt(2.0)) for i, j in pairs])

    turned = mandel_rotation(q)[0, :, :, 0, 0] @ mandel(strain)
    torch.testing.assert_close(turned, mandel(matrix @ strain @ matrix.T))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("space", [(7, 8), (4, 5, 6)])
def test_a_cubic_crystal_without_anisotropy_is_the_isotropic_phase(scheme, space):
    lame, shear = EPOXY.lame, EPOXY.shear
    cubic = CubicElastic(c11_gpa=lame + 2 * shear, c12_gpa=lame, c44_gpa=shear)
    phases = noise(2, *space)
    stiff = IsotropicElastic(youngs_modulus_gpa=40.0)
    turned = grains(*space).expand(2, 4, *space)
    value = effective_stiffness(
        phases, [cubic, stiff], scheme=scheme, orientations=turned, tolerance=1e-8
    )
    plain = effective_stiffness(phases, [EPOXY, stiff], scheme=scheme, tolerance=1e-8)
    torch.testing.assert_close(value.value, plain.value, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(value.lower, plain.lower, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_cubic_polycrystal_has_the_crystals_bulk_modulus(scheme):
    """Hill (1952): a uniform dilatation is in equilibrium whatever the orientations."""
    phases = torch.zeros(1, 5, 6, 7, dtype=torch.long)
    value = effective_stiffness(
        phases, [COPPER], scheme=scheme, orientations=grains(5, 6, 7), tolerance=1e-7
    ).value[0]
    three_k = COPPER.c11_gpa + 2.0 * COPPER.c12_gpa
    expected = torch.tensor([three_k] * 3 + [0.0] * 3, dtype=torch.float64)
    torch.testing.assert_close(value[:, :3].sum(1), expected, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("space", [(11, 8), (5, 6, 4)])
def test_polycrystals_lie_between_reuss_and_voigt_and_in_their_bracket(scheme, space):
    phases, turned = noise(1, *space), grains(*space, seed=1)
    materials = [COPPER, FIBRE]
    result = effective_stiffness(
        phases, materials, scheme=scheme, orientations=turned, tolerance=1e-3
    )
    law = elastic_problem(phases, materials, "q1", turned).law.stiffness
    voxels = law.flatten(3).movedim(-1, 1)[0]
    voigt, reuss = voxels.mean(0), torch.linalg.inv(torch.linalg.inv(voxels).mean(0))
    tight = effective_stiffness(
        phases, materials, scheme=scheme, orientations=turned, tolerance=1e-9
    ).value[0]
    assert torch.linalg.eigvalsh(voigt - tight).min() > 0.0
    assert torch.linalg.eigvalsh(tight - reuss).min() > 0.0
    assert torch.linalg.eigvalsh(result.upper[0] - tight).min() > -1e-10
    assert torch.linalg.eigvalsh(tight - result.lower[0]).min() > -1e-10
    gap = float((result.upper - result.lower).abs().max())
    assert 0.0 < gap < 1e-3 * float(tight.abs().max())


@pytest.mark.parametrize("scheme", ["q1", "rotated"])
@pytest.mark.parametrize("dim", [2, 3])
def test_layers_of_crystals_are_exact(scheme, dim):
    """Layers across axis 1: continuous traction and in-plane strain (Backus 1962)."""
    space = (6, 3) if dim == 2 else (6, 3, 4)
    turned = grains(6, *[1] * (dim - 1), seed=2).expand(1, 4, *space)
    phases = torch.zeros(1, *space, dtype=torch.long)
    value = effective_stiffness(
        phases, [COPPER], scheme=scheme, orientations=turned, tolerance=1e-9
    ).value[0]
    turn = mandel_rotation(turned)
    layers = torch.einsum("bik...,km,bjm...->...bij", turn, COPPER.crystal_stiffness(), turn)
    layers = layers.movedim(-3, 0)[0].flatten(0, dim - 1)[:: math.prod(space[1:])]
    if dim == 2:
        layers = layers[:, PLANE_STRAIN][:, :, PLANE_STRAIN]
    across = [0, 2] if dim == 2 else [0, 4, 5]
    along = [1] if dim == 2 else [1, 2, 3]
    a, b, c = (
        layers[:, across][:, :, across],
        layers[:, across][:, :, along],
        layers[:, along][:, :, along],
    )
    ai = torch.linalg.inv(a)
    mean_ai = torch.linalg.inv(ai.mean(0))
    expected = torch.zeros_like(value)
    cross = mean_ai @ (ai @ b).mean(0)
    rest = (c - b.mT @ ai @ b).mean(0) + (b.mT @ ai).mean(0) @ cross
    for i, row in enumerate(across):
        expected[row, across] = mean_ai[i]
        expected[row, along] = cross[i]
        expected[along, row] = cross[i]
    for i, row in enumerate(along):
        expected[row, along] = rest[i]
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-9)


def test_the_staggered_and_the_conforming_scheme_meet_on_fine_grains():
    """The same eight grains on finer voxels: the schemes' answers approach each other."""
    coarse, gaps = grains(2, 2, 2, seed=4), []
    for fold in (2, 4, 8):
        turned = coarse
        for axis in (2, 3, 4):
            turned = turned.repeat_interleave(fold, axis)
        phases = torch.zeros(1, *turned.shape[2:], dtype=torch.long)
        a, b = (
            effective_stiffness(phases, [COPPER], scheme=s, orientations=turned).value
            for s in ("staggered", "q1")
        )
        gaps.append(float((a - b).norm() / b.norm()))
    assert gaps[0] > 1.4 * gaps[1] > 1.4**2 * gaps[2], gaps


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("space", [(9, 8), (5, 6, 4)])
def test_thermal_expansion_of_two_phases_follows_levin(scheme, space):
    """Levin (1967): alpha* = a1 + (S* - S1)(S2 - S1)^-1 (a2 - a1), exact for any geometry."""
    dim = len(space)
    phases = noise(1, *space)
    materials = [EPOXY, IsotropicElastic(youngs_modulus_gpa=70.0, poisson_ratio=0.2)]
    result = effective_stiffness(
        phases, materials, scheme=scheme, tolerance=1e-9, eigenstrain=[60e-6, 5e-6]
    )
    unit = torch.tensor([1.0] * dim + [0.0] * (dim * (dim - 1) // 2), dtype=torch.float64)
    # Plane strain: the held-back stretch along 33 adds nu times the expansion.
    own = [
        a * (1.0 + (m.poisson_ratio if dim == 2 else 0.0)) * unit
        for a, m in zip((60e-6, 5e-6), materials, strict=True)
    ]
    s1, s2 = (torch.linalg.inv(m.stiffness(dim)) for m in materials)
    whole = torch.linalg.inv(result.value[0])
    expected = own[0] + (whole - s1) @ torch.linalg.solve(s2 - s1, own[1] - own[0])
    assert result.eigenstrain is not None
    torch.testing.assert_close(result.eigenstrain[0], expected, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("space", [(6, 7), (4, 5, 4)])
def test_a_cell_free_to_expand_carries_no_mean_stress(scheme, space):
    """Under its own eigenstrain the mean stress is zero, and a uniform one leaves no stress."""
    phases, turned = noise(1, *space), grains(*space, seed=7)
    materials, expansion = [COPPER, FIBRE], [1e-3, 4e-3]
    own = effective_stiffness(
        phases,
        materials,
        scheme=scheme,
        orientations=turned,
        eigenstrain=expansion,
        tolerance=1e-10,
    ).eigenstrain
    assert own is not None
    fields = solve_elasticity(
        phases,
        materials,
        own.unsqueeze(1),
        scheme=scheme,
        orientations=turned,
        eigenstrain=expansion,
        tolerance=1e-10,
    )
    means = fields.stress.flatten(3).mean(-1)
    size = float(fields.stress.abs().max())
    assert size > 0.01
    assert float(means.abs().max()) < 1e-9 * size
    if len(space) == 3:
        free = torch.full((1, 1, 6), 0.0, dtype=torch.float64)
        free[..., :3] = 1e-3
        calm = solve_elasticity(
            phases, materials, free, scheme=scheme, orientations=turned, eigenstrain=[1e-3, 1e-3]
        )
        assert float(calm.stress.abs().max()) < 1e-12


def test_an_eigenstrain_field_in_sample_axes_equals_turned_crystals():
    space = (4, 3, 5)
    phases, turned = noise(1, *space), grains(*space, seed=5)
    crystal = torch.tensor(
        [[1e-5, 1e-5, 3e-5, 0.0, 0.0, 0.0], [2e-5, 2e-5, 2e-5, 0.0, 1e-6, 0.0]],
        dtype=torch.float64,
    )
    field = torch.einsum(
        "bij...,bj...->bi...", mandel_rotation(turned), crystal[phases].movedim(-1, 1)
    )
    by_phase = eigenstress(phases, [FIBRE, COPPER], crystal, turned)
    by_voxel = eigenstress(phases, [FIBRE, COPPER], field, turned)
    torch.testing.assert_close(by_phase, by_voxel, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_gradient_in_soft_fractions_meets_finite_differences(scheme):
    soft = torch.rand(1, 2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    soft = (soft / soft.sum(1, keepdim=True)).requires_grad_()
    turned = grains(5, 4, seed=6)

    def c11(fractions: torch.Tensor) -> torch.Tensor:
        return effective_stiffness(
            fractions, [COPPER, FIBRE], scheme=scheme, orientations=turned, tolerance=1e-9
        ).value[0, 0, 0]

    (gradient,) = torch.autograd.grad(c11(soft), soft)
    step = torch.zeros_like(soft)
    step[0, 0, 2, 1], step[0, 1, 2, 1] = 1e-5, -1e-5
    with torch.no_grad():
        slope = (c11(soft + step) - c11(soft - step)) / 2e-5
    exact = gradient[0, 0, 2, 1] - gradient[0, 1, 2, 1]
    torch.testing.assert_close(exact, slope, rtol=1e-5, atol=1e-6)


def test_the_isotropic_floor_leaves_a_positive_rest():
    for crystal in (COPPER, FIBRE):
        stiffness = crystal.crystal_stiffness()
        lame, shear = isotropic_floor(stiffness)
        floor = 2.0 * shear * torch.eye(6, dtype=torch.float64)
        floor[:3, :3] += lame
        lowest = torch.linalg.eigvalsh(stiffness - floor)
        assert abs(float(lowest[0])) < 1e-9 * float(stiffness.max())
        assert lame > 0.0
        more = floor.clone()
        more[:3, :3] += 0.01 * lame
        assert float(torch.linalg.eigvalsh(stiffness - more)[0]) < -1e-6


def test_bad_crystals_and_orientations_are_named():
    phases = torch.zeros(1, 4, 4, dtype=torch.long)
    with pytest.raises(DataError, match="positive definite"):
        CubicElastic(c11_gpa=100.0, c12_gpa=120.0, c44_gpa=50.0)
    with pytest.raises(DataError, match="c44_gpa"):
        CubicElastic(c11_gpa=100.0, c12_gpa=50.0, c44_gpa=math.nan)
    with pytest.raises(DataError, match="unit quaternions"):
        effective_stiffness(phases, [COPPER], orientations=grains(5, 4))
    with pytest.raises(DataError, match="norm"):
        effective_stiffness(phases, [COPPER], orientations=2.0 * grains(4, 4))
    with pytest.raises(DataError, match="eigenstrain"):
        effective_stiffness(phases, [COPPER], eigenstrain=[1e-5, 2e-5])
