"""The elastic solver against closed forms, invariances, and its own operator."""

import math

import numpy as np
import pytest
import torch

from microstructures import ConvergenceError, DataError, MicrostructureError
from physics.mechanics import (
    IsotropicElastic,
    effective_stiffness,
    solve_elasticity,
    stencil,
    voigt_reuss_bounds,
)
from physics.mechanics.elasticity import elastic_problem
from physics.mechanics.grid import SHEAR_PAIRS
from physics.mechanics.trial_state import trial_state, unit_loads

SOFT = IsotropicElastic(youngs_modulus_gpa=1.0, poisson_ratio=0.3)
STIFF = IsotropicElastic(youngs_modulus_gpa=10.0, poisson_ratio=0.3)
RUBBER = IsotropicElastic(youngs_modulus_gpa=0.2, poisson_ratio=0.45)
PORE = IsotropicElastic(youngs_modulus_gpa=0.0)
THREE = [SOFT, STIFF, RUBBER]


def noise(*shape: int, phases: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randint(phases, shape, generator=torch.Generator().manual_seed(seed))


def blobs(batch: int, *space: int, length: float = 3.0, share: float = 0.4) -> torch.Tensor:
    """Return labels of a thresholded Gaussian field; `share` of the voxels are 1."""
    axes = tuple(range(-len(space), 0))
    white = torch.randn(batch, *space, generator=torch.Generator().manual_seed(1)).double()
    k = torch.stack(torch.meshgrid(*[torch.fft.fftfreq(n) for n in space], indexing="ij"))
    blur = torch.exp(-2.0 * (math.pi * length) ** 2 * (k**2).sum(0))
    field = torch.fft.ifftn(torch.fft.fftn(white, dim=axes) * blur, dim=axes).real
    level = torch.quantile(field.flatten(1), 1.0 - share, dim=1)
    return (field > level.view(-1, *[1] * len(space))).long()


def laminate_stiffness(shares: list[float], dim: int, axis: int) -> torch.Tensor:
    """Return the exact stiffness of layers of THREE across an axis (Backus 1962)."""

    def mean(f) -> float:
        return sum(share * f(m.lame, m.shear) for share, m in zip(shares, THREE, strict=True))

    across = 1.0 / mean(lambda lam, g: 1.0 / (lam + 2 * g))
    coupling = mean(lambda lam, g: lam / (lam + 2 * g))
    stiffness = torch.zeros(dim * (dim + 1) // 2, dim * (dim + 1) // 2, dtype=torch.float64)
    for i in range(dim):
        for j in range(dim):
            if axis == i == j:
                stiffness[i, j] = across
            elif axis in (i, j):
                stiffness[i, j] = coupling * across
            elif i == j:
                own = mean(lambda lam, g: 4 * g * (lam + g) / (lam + 2 * g))
                stiffness[i, j] = own + coupling**2 * across
            else:
                own = mean(lambda lam, g: 2 * lam * g / (lam + 2 * g))
                stiffness[i, j] = own + coupling**2 * across
    for m, pair in enumerate(SHEAR_PAIRS[dim]):
        harmonic, plain = 1.0 / mean(lambda _, g: 1.0 / g), mean(lambda _, g: g)
        stiffness[dim + m, dim + m] = 2.0 * (harmonic if axis in pair else plain)
    return stiffness


@pytest.mark.parametrize("space", [(9, 6), (8, 5), (6, 7, 4), (5, 6, 8)])
def test_laminates_are_exact_along_every_axis(space):
    for axis in range(len(space)):
        layers = noise(space[axis], phases=3, seed=axis)
        view = [1] * len(space)
        view[axis] = -1
        phases = layers.view(view).expand(space).unsqueeze(0)
        shares = [float((layers == p).double().mean()) for p in range(3)]
        exact = laminate_stiffness(shares, len(space), axis)
        result = effective_stiffness(phases, THREE, tolerance=1e-7)
        torch.testing.assert_close(result.value[0], exact, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("space", [(16, 16), (15, 17), (7, 12), (6, 6, 6), (5, 7, 6)])
def test_equal_shear_moduli_give_hills_solution_on_white_noise(space):
    shear = 1.0
    materials = [
        IsotropicElastic(
            youngs_modulus_gpa=shear * (3 * lame + 2 * shear) / (lame + shear),
            poisson_ratio=lame / (2 * (lame + shear)),
        )
        for lame in (0.2, 3.0, 40.0)
    ]
    phases = noise(3, *space, phases=3)
    value = effective_stiffness(phases, materials, tolerance=1e-8).value
    softness = torch.tensor([1.0 / (m.lame + 2.0 * m.shear) for m in materials], dtype=torch.double)
    exact = 1.0 / softness[phases].flatten(1).mean(1)
    dim = len(space)
    n = dim * (dim + 1) // 2
    expected = (exact - 2.0 * shear).view(-1, 1, 1) * torch.nn.functional.pad(
        torch.ones(dim, dim, dtype=torch.float64), (0, n - dim, 0, n - dim)
    ) + 2.0 * shear * torch.eye(n, dtype=torch.float64)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_homogeneous_cell_needs_no_iteration(dim, dtype):
    phases = torch.ones(2, *[5] * dim, dtype=torch.uint8)
    result = effective_stiffness(phases, THREE, tolerance=1e-10, dtype=dtype)
    exact = STIFF.stiffness(dim).expand(2, -1, -1)
    torch.testing.assert_close(result.value, exact, rtol=1e-13, atol=1e-12)
    torch.testing.assert_close(result.lower, exact, rtol=1e-13, atol=1e-12)
    assert result.iterations.max() == 0
    assert result.residual.max() <= 1e-10


@pytest.mark.parametrize("space", [(12, 13), (6, 7, 8)])
def test_every_cell_lies_between_reuss_and_voigt(space):
    phases = noise(6, *space, phases=3)
    shares = torch.stack([(phases == p).double().flatten(1).mean(1) for p in range(3)], 1)
    result = effective_stiffness(phases, THREE)
    reuss, voigt = voigt_reuss_bounds(shares, THREE, dim=len(space))
    assert torch.linalg.eigvalsh(voigt - result.value).min() > 0.0
    assert torch.linalg.eigvalsh(result.lower - reuss).min() > 0.0
    assert result.level == "discrete"


@pytest.mark.parametrize("space", [(16, 16), (6, 7, 8)])
def test_turning_and_shifting_the_cell_turns_the_stiffness(space):
    dim = len(space)
    phases = noise(1, *space, phases=3)
    value = effective_stiffness(phases, THREE, tolerance=1e-8).value[0]
    moved = phases.roll((3, 2), (1, 2)).flip(dim)
    swapped = effective_stiffness(moved.transpose(1, 2), THREE, tolerance=1e-8).value[0]
    if dim == 2:
        order, sign = [1, 0, 2], [1, 1, -1]
    else:  # the mirrored last axis turns the signs of 23 and 13, then 1 and 2 change places
        order, sign = [1, 0, 2, 4, 3, 5], [1, 1, 1, -1, -1, 1]
    turn = torch.eye(len(order), dtype=torch.float64)[order]
    turn = turn * torch.tensor(sign, dtype=torch.float64)
    torch.testing.assert_close(swapped, turn @ value @ turn.T, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("contrast", "low", "high"), [(10.0, 17, 24), (100.0, 45, 70)])
def test_iterations_depend_on_contrast_and_not_on_the_mesh(contrast, low, high):
    stiff = IsotropicElastic(youngs_modulus_gpa=contrast)
    counts = []
    for n in (32, 64, 128):
        phases = blobs(1, n, n, length=3.0 * n / 64)
        result = effective_stiffness(phases, [SOFT, stiff], tolerance=1e-6)
        assert result.residual.max() <= 1e-6
        counts.append(int(result.iterations.max()))
    assert low <= min(counts)
    assert max(counts) <= high
    assert max(counts) <= 1.3 * min(counts)


def test_iterations_in_three_dimensions():
    result = effective_stiffness(blobs(1, 20, 20, 20), [SOFT, STIFF], tolerance=1e-6)
    assert 16 <= int(result.iterations.max()) <= 24


@pytest.mark.parametrize("space", [(12, 9), (6, 5, 8)])
def test_fields_have_the_macroscopic_means_and_are_in_equilibrium(space):
    dim = len(space)
    n = dim * (dim + 1) // 2
    phases = noise(2, *space, phases=3)
    generator = torch.Generator().manual_seed(3)
    macro = torch.randn(2, 2, n, generator=generator, dtype=torch.float64)
    fields = solve_elasticity(phases, THREE, macro, tolerance=1e-9)
    stiffness = effective_stiffness(phases, THREE, tolerance=1e-9).value
    means = [field.flatten(3).mean(-1) for field in (fields.strain, fields.stress)]
    torch.testing.assert_close(means[0], macro, rtol=1e-12, atol=1e-12)
    expected = torch.einsum("bij,blj->bli", stiffness, macro)
    torch.testing.assert_close(means[1], expected, rtol=1e-7, atol=1e-7)
    problem = elastic_problem(phases, THREE)
    state = trial_state(problem, macro, fields.displacement)
    force = problem.divergence(state.stress)
    assert force.abs().max() < 1e-7 * state.stress.abs().max()
    energy = torch.linalg.vecdot(state.strain.flatten(2), state.stress.flatten(2))
    expected = torch.einsum("bli,bij,blj->bl", macro, stiffness, macro)
    torch.testing.assert_close(energy / math.prod(space), expected, rtol=1e-11, atol=0.0)


@pytest.mark.parametrize("space", [(9, 7), (5, 6, 7)])
@pytest.mark.parametrize("slab", [1, 200, 10**6])
def test_the_fast_operator_is_minus_div_c_grad(space, slab, monkeypatch):
    monkeypatch.setattr(stencil, "SLAB_VALUES", slab)
    problem = elastic_problem(noise(2, *space, phases=3), THREE)
    generator = torch.Generator().manual_seed(3)
    u = torch.randn(2, 3, len(space), *space, generator=generator, dtype=torch.float64)
    expected = -problem.divergence(problem.stress(problem.gradient(u)))
    operator = problem.operator(3, torch.float64)
    torch.testing.assert_close(operator(u), expected, rtol=1e-12, atol=1e-12)
    keep = torch.tensor([False, True])
    torch.testing.assert_close(operator.select(keep)(u[keep]), expected[keep])


@pytest.mark.parametrize("space", [(8, 9), (6, 5, 4)])
def test_the_green_operator_inverts_the_reference(space):
    problem = elastic_problem(noise(1, *space, phases=3), THREE)
    generator = torch.Generator().manual_seed(3)
    u = torch.randn(1, 2, len(space), *space, generator=generator, dtype=torch.float64)
    u -= u.flatten(3).mean(-1).view(1, 2, len(space), *[1] * len(space))
    force = -problem.divergence(problem.reference_stress(problem.gradient(u)))
    torch.testing.assert_close(problem.green(torch.float64)(force), u, rtol=1e-10, atol=1e-10)


def test_pores_converge_and_floating_islands_do_no_harm():
    phases = blobs(3, 32, 32, share=0.7)
    phases[1] = 0
    phases[2] = 0
    phases[2, 8:16, 8:16] = 1
    result = effective_stiffness(phases, [PORE, STIFF], tolerance=1e-6)
    assert result.value.isfinite().all()
    assert result.value[0, 0, 0] > 0.5
    assert float(result.value[1].abs().max()) == 0.0
    assert float(result.value[2].abs().max()) < 1e-9
    assert float(result.lower.abs().max()) == 0.0
    _, voigt = voigt_reuss_bounds([0.3, 0.7], [PORE, STIFF], dim=2)
    assert torch.linalg.eigvalsh(voigt - result.value[0]).min() > 0.0
    solid = effective_stiffness(blobs(1, 12, 12, 12, share=0.7), [PORE, STIFF], tolerance=1e-5)
    assert 0.5 < float(solid.value[0, 0, 0]) < float(STIFF.stiffness(3)[0, 0])


def test_a_perforated_plate_agrees_with_softer_and_softer_holes():
    phases = torch.ones(1, 24, 24, dtype=torch.long)
    phases[:, 6:14, 6:14] = 0
    hole = effective_stiffness(phases, [PORE, STIFF], tolerance=1e-7).value
    faint = IsotropicElastic(youngs_modulus_gpa=1e-6)
    soft = effective_stiffness(phases, [faint, STIFF], tolerance=1e-7).value
    torch.testing.assert_close(soft, hole, rtol=1e-5, atol=1e-5)


def test_a_dilute_cylinder_meets_eshelby():
    n, radius = 192, 16.0
    x = torch.arange(n) - n / 2 + 0.5
    phases = ((x[:, None] ** 2 + x**2) < radius**2).long().unsqueeze(0)
    f = float(phases.double().mean())
    value = effective_stiffness(phases, [SOFT, STIFF], tolerance=1e-4).value[0]
    (k1, g1), (k2, g2) = ((m.lame + m.shear, m.shear) for m in (SOFT, STIFF))
    k = k1 + f * (k2 - k1) * (k1 + g1) / (k2 + g1)
    slope = 2 * g1 * (k1 + g1) / (2 * g1 * (k1 + g1) + (g2 - g1) * (k1 + 2 * g1))
    g = g1 + f * (g2 - g1) * slope
    measured_k = float(value[0, 0] + value[0, 1]) / 2
    measured_g = float(value[0, 0] - value[0, 1] + value[2, 2]) / 4
    # Periodic images add O(f) to the slope: about 2.3 % here.
    assert (measured_k - k1) / (k - k1) == pytest.approx(1.0, abs=0.04)
    assert (measured_g - g1) / (g - g1) == pytest.approx(1.0, abs=0.04)


def test_a_dilute_sphere_meets_eshelby():
    n, radius = 48, 8.0
    x = torch.arange(n) - n / 2 + 0.5
    inside = (x[:, None, None] ** 2 + x[:, None] ** 2 + x**2) < radius**2
    f = float(inside.double().mean())
    macro = torch.zeros(1, 2, 6, dtype=torch.float64)
    macro[:, 0, :3] = 1.0
    macro[:, 1, 5] = 1.0
    fields = solve_elasticity(inside.long().unsqueeze(0), [SOFT, STIFF], macro, tolerance=1e-3)
    (k1, g1), (k2, g2) = ((m.bulk, m.shear) for m in (SOFT, STIFF))
    k = f * (k2 - k1) * (3 * k1 + 4 * g1) / (3 * k2 + 4 * g1)
    b = 6 * (k1 + 2 * g1) / (5 * (3 * k1 + 4 * g1))
    g = f * (g2 - g1) / (1 + b * (g2 / g1 - 1))
    mean = fields.stress.flatten(3).mean(-1)[0]
    assert (float(mean[0, 0]) / 3 - k1) / k == pytest.approx(1.0, abs=0.05)
    assert (float(mean[1, 5]) / 2 - g1) / g == pytest.approx(1.0, abs=0.05)
    core = fields.strain[0, 0, :3, 22:26, 22:26, 22:26]
    factor = (3 * k1 + 4 * g1) / (3 * k2 + 4 * g1)
    assert float(core.mean()) == pytest.approx(factor, rel=0.06)


def test_a_batch_equals_its_samples_whatever_leaves_first():
    phases = noise(5, 10, 10, phases=3)
    phases[1] = 0
    phases[3, :5], phases[3, 5:] = 0, 1
    together = effective_stiffness(phases, THREE, tolerance=1e-6)
    for i in range(5):
        alone = effective_stiffness(phases[i : i + 1], THREE, tolerance=1e-6)
        torch.testing.assert_close(together.value[i], alone.value[0], rtol=1e-12, atol=1e-12)
        assert torch.equal(together.iterations[i], alone.iterations[0])
    assert together.iterations[1].max() == 0
    assert together.iterations[3].max() < together.iterations[0].max()


def test_fractions_of_zero_and_one_are_labels():
    phases = noise(2, 8, 9, phases=3)
    fractions = torch.nn.functional.one_hot(phases, 3).movedim(-1, 1)
    hard = effective_stiffness(phases, THREE)
    for dtype in (torch.float32, torch.float64):
        soft = effective_stiffness(fractions.to(dtype), THREE)
        assert torch.equal(soft.value, hard.value)


@pytest.mark.parametrize("space", [(6, 5), (4, 3, 5)])
def test_the_gradient_is_that_of_finite_differences(space):
    generator = torch.Generator().manual_seed(2)
    fractions = torch.rand(1, 3, *space, generator=generator, dtype=torch.float64).softmax(1)
    weights = torch.randn(*[len(space) * (len(space) + 1) // 2] * 2, generator=generator).double()

    def measure(x: torch.Tensor) -> torch.Tensor:
        return (effective_stiffness(x, THREE, tolerance=1e-8).value[0] * weights).sum()

    fractions.requires_grad_()
    (gradient,) = torch.autograd.grad(measure(fractions), fractions)
    change = 1e-5 * torch.randn(fractions.shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        slope = measure(fractions + change) - measure(fractions - change)
    assert float(slope) == pytest.approx(2.0 * float((gradient * change).sum()), rel=1e-6)
    assert not effective_stiffness(fractions.detach(), THREE).value.requires_grad


def test_single_precision_reaches_the_same_tolerance():
    phases = blobs(2, 24, 24)
    double = effective_stiffness(phases, [SOFT, STIFF], tolerance=1e-9)
    single = effective_stiffness(phases, [SOFT, STIFF], tolerance=1e-9, dtype=torch.float32)
    torch.testing.assert_close(single.value, double.value, rtol=1e-13, atol=1e-13)
    assert single.residual.max() <= 1e-9
    fields = solve_elasticity(phases, [SOFT, STIFF], dtype=torch.float32)
    assert {fields.strain.dtype, fields.stress.dtype, fields.displacement.dtype} == {torch.float32}


def test_a_warm_start_saves_iterations():
    phases = blobs(2, 24, 24)
    cold = solve_elasticity(phases, [SOFT, STIFF], tolerance=1e-6)
    generator = torch.Generator().manual_seed(2)
    noisy = torch.randn(cold.displacement.shape, generator=generator, dtype=torch.float64)
    noisy = cold.displacement * (1.0 + 1e-3 * noisy)
    warm = solve_elasticity(phases, [SOFT, STIFF], tolerance=1e-6, displacement=noisy)
    again = effective_stiffness(
        phases, [SOFT, STIFF], tolerance=1e-6, displacement=cold.displacement
    )
    assert warm.iterations.max() < 0.8 * cold.iterations.max()
    assert warm.residual.max() <= 1e-6
    assert again.iterations.max() == 0


def test_large_cells_solve_their_loads_in_turn(monkeypatch):
    phases = blobs(1, 10, 9, 8)
    together = solve_elasticity(phases, [SOFT, STIFF], tolerance=1e-10)
    monkeypatch.setattr("physics.mechanics.iterations.GROUP_VALUES", 10 * 9 * 8 * 3 * 2)
    in_turn = solve_elasticity(phases, [SOFT, STIFF], tolerance=1e-10)
    torch.testing.assert_close(in_turn.strain, together.strain, rtol=1e-9, atol=1e-9)


def test_the_unit_loads_are_the_default():
    phases = noise(2, 7, 7)
    default = solve_elasticity(phases, [SOFT, STIFF])
    given = solve_elasticity(phases, [SOFT, STIFF], unit_loads(2, 3, torch.device("cpu")))
    assert torch.equal(default.stress, given.stress)


def test_missing_convergence_is_an_error():
    with pytest.raises(ConvergenceError, match="max_iterations"):
        effective_stiffness(noise(1, 8, 8), [SOFT, STIFF], tolerance=1e-8, max_iterations=3)


@pytest.mark.parametrize(
    ("phases", "options", "words"),
    [
        (torch.zeros(1, 8, dtype=torch.long), {}, "2-D or 3-D"),
        (torch.full((1, 4, 4), 2), {}, r"labels 0\.\.1"),
        (torch.full((1, 4, 4), -1), {}, r"labels 0\.\.1"),
        (torch.zeros(1, 3, 4, 4), {}, "2 fractions"),
        (torch.full((1, 2, 4, 4), 0.4), {}, "add up to 1"),
        (torch.full((1, 2, 4, 4), torch.nan), {}, "add up to 1"),
        (torch.zeros(1, 4, 4, dtype=torch.long), {"scheme": "q2"}, "scheme"),
        (torch.zeros(1, 4, 4, dtype=torch.long), {"tolerance": 0.0}, "tolerance"),
        (torch.zeros(1, 4, 4, dtype=torch.long), {"tolerance": math.nan}, "tolerance"),
        (torch.zeros(1, 4, 4, dtype=torch.long), {"max_iterations": 0}, "max_iterations"),
        (torch.zeros(1, 4, 4, dtype=torch.long), {"dtype": torch.float16}, "dtype"),
        (
            torch.zeros(1, 4, 4, dtype=torch.long),
            {"displacement": torch.zeros(1, 3, 2, 4, 5)},
            "displacement",
        ),
        (
            torch.zeros(1, 4, 4, dtype=torch.long),
            {"displacement": torch.full((1, 3, 2, 4, 4), torch.inf)},
            "displacement",
        ),
    ],
)
def test_bad_input_is_named(phases, options, words):
    with pytest.raises(DataError, match=words):
        effective_stiffness(phases, [SOFT, STIFF], **options)


def test_bad_materials_are_named():
    for settings in (
        {"youngs_modulus_gpa": -1.0},
        {"youngs_modulus_gpa": 1.0, "poisson_ratio": 0.5},
        {"youngs_modulus_gpa": math.nan},
        {"poisson_ratio": 0.3},
        {"youngs_modulus_gpa": 1.0, "density": 2.0},
    ):
        with pytest.raises(MicrostructureError, match="IsotropicElastic"):
            IsotropicElastic(**settings)
    with pytest.raises(DataError, match="pores"):
        effective_stiffness(noise(1, 4, 4), [PORE, PORE])
    with pytest.raises(DataError, match="dim"):
        SOFT.stiffness(4)


def test_moduli_of_a_material():
    steel = IsotropicElastic(youngs_modulus_gpa=210.0, poisson_ratio=0.25)
    assert (steel.shear, steel.lame, steel.bulk) == pytest.approx((84.0, 84.0, 140.0))
    compliance = np.linalg.inv(steel.stiffness(3).numpy())
    assert 1.0 / compliance[0, 0] == pytest.approx(210.0)
    assert -compliance[0, 1] / compliance[0, 0] == pytest.approx(0.25)
    torch.testing.assert_close(steel.stiffness(2)[:2, :2], steel.stiffness(3)[:2, :2])
