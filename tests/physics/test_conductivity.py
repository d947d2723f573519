"""The conduction solver against closed forms, duality and series solutions."""

import math

import pytest
import torch

from microstructures import DataError
from physics.mechanics import effective_conductivity, hashin_shtrikman_conductivity
from physics.mechanics.effective import effective_property
from physics.mechanics.staggered import FaceConduction


def noise(*shape: int, phases: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randint(phases, shape, generator=torch.Generator().manual_seed(seed))


def ball(n: int, dim: int, fraction: float) -> torch.Tensor:
    """Return a centred disc or sphere, label 1, of about the given volume fraction."""
    x = torch.arange(n) - n / 2 + 0.5
    square = sum(x.view([-1 if i == j else 1 for j in range(dim)]) ** 2 for i in range(dim))
    unit = math.pi if dim == 2 else 4.0 / 3.0 * math.pi
    radius = n * (fraction / unit) ** (1.0 / dim)
    return (square < radius**2).long().unsqueeze(0)  # type: ignore[union-attr]


@pytest.mark.parametrize("space", [(8, 5), (7, 6), (6, 4, 5)])
def test_laminates_are_exact_along_every_axis(space):
    for axis in range(len(space)):
        view = [1] * len(space)
        view[axis] = -1
        layers = (torch.arange(space[axis]) >= space[axis] / 2).long()
        phases = layers.view(view).expand(space).unsqueeze(0)
        f = float(layers.double().mean())
        result = effective_conductivity(phases, [1.0, 10.0], tolerance=1e-7)
        exact = torch.full((len(space),), 1.0 - f + 10.0 * f, dtype=torch.float64)
        exact[axis] = 1.0 / (1.0 - f + f / 10.0)
        torch.testing.assert_close(result.value[0], exact.diag(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(result.lower[0], exact.diag(), rtol=1e-10, atol=1e-10)


def test_halves_of_one_and_ten():
    phases = torch.zeros(1, 8, 8, dtype=torch.long)
    phases[:, 4:] = 1
    value = effective_conductivity(phases, [1, 10], tolerance=1e-8).value[0]
    torch.testing.assert_close(
        value.diag(), torch.tensor([20 / 11, 5.5]).double(), rtol=1e-7, atol=0
    )


def test_networks_obey_kellers_duality_exactly():
    """A dual network has the inverse conductances on the crossing edges, and K' = K / det K."""
    faces = torch.rand(3, 2, 9, 12, generator=torch.Generator().manual_seed(1)).double() + 0.1
    inverse = 1.0 / faces
    dual = torch.stack((inverse[:, 1].roll(1, -2), inverse[:, 0].roll(1, -1)), 1)
    primal, other = (
        effective_property(
            FaceConduction(entry),
            displacement=None,
            tolerance=1e-8,
            max_iterations=500,
            dtype=torch.float64,
        ).value
        for entry in (faces, dual)
    )
    expected = primal / torch.linalg.det(primal).view(-1, 1, 1)
    torch.testing.assert_close(other, expected, rtol=1e-11, atol=1e-11)


def test_smooth_media_approach_kellers_duality():
    misses = []
    for n in (32, 64, 128):
        x = 2.0 * math.pi * (torch.arange(n, dtype=torch.float64) + 0.5) / n
        field = 0.5 + 0.25 * (torch.sin(x)[:, None] + torch.sin(2 * x + torch.cos(x)[:, None]))
        fractions = torch.stack((1.0 - field, field)).unsqueeze(0)
        k = fractions[:, 0] + 20.0 * fractions[:, 1]
        first = effective_property(
            FaceConduction.of_voxels(k),
            displacement=None,
            tolerance=1e-5,
            max_iterations=500,
            dtype=torch.float64,
        ).value[0]
        second = effective_property(
            FaceConduction.of_voxels(1.0 / k),
            displacement=None,
            tolerance=1e-5,
            max_iterations=500,
            dtype=torch.float64,
        ).value[0]
        misses.append(abs(float(first[0, 0] * second[1, 1] - first[0, 1] * second[0, 1]) - 1.0))
    assert misses[2] < 5e-3
    assert misses[0] / misses[1] == pytest.approx(4.0, rel=0.2)
    assert misses[1] / misses[2] == pytest.approx(4.0, rel=0.1)


def test_a_checkerboard_approaches_the_geometric_mean():
    misses = []
    for n in (16, 64, 256):
        half = torch.arange(n) < n // 2
        phases = (half[:, None] ^ half).long().unsqueeze(0)
        value = effective_conductivity(phases, [1.0, 10.0]).value[0]
        misses.append(abs(float(value[0, 0]) / math.sqrt(10.0) - 1.0))
    assert misses[2] < 0.02
    assert misses[0] > 1.8 * misses[1] > 1.8 * 1.8 * misses[2]


def test_a_square_array_of_discs_meets_rayleigh():
    phases = ball(128, 2, 0.2)
    f, c = float(phases.double().mean()), 10.0
    t = (1 + c) / (1 - c)
    series = t + f - 0.305827 * f**4 * t / (t**2 - 1.402958 * f**8) - 0.013362 * f**8 / t
    value = effective_conductivity(phases, [1.0, c]).value[0]
    assert float(value[0, 0]) == pytest.approx(1 - 2 * f / series, rel=1e-3)
    assert float(value[1, 1]) == pytest.approx(float(value[0, 0]), rel=1e-8)


def test_a_cubic_array_of_spheres_meets_sangani_and_acrivos():
    phases = ball(48, 3, 0.1)
    f, c = float(phases.double().mean()), 10.0
    b, g = (c - 1) / (c + 2), (c - 1) / (c + 4 / 3)
    exact = 1 + 3 * f / (1 / b - f - 1.3045 * g * f ** (10 / 3))
    value = effective_conductivity(phases, [1.0, c], tolerance=1e-3).value[0]
    assert float(value[2, 2]) == pytest.approx(exact, rel=2e-3)


@pytest.mark.parametrize("space", [(12, 13), (7, 6, 8)])
def test_every_cell_lies_between_wieners_bounds(space):
    phases = noise(4, *space, phases=3)
    k = torch.tensor([1.0, 10.0, 0.1], dtype=torch.float64)[phases].flatten(1)
    result = effective_conductivity(phases, [1.0, 10.0, 0.1])
    eigenvalues = torch.linalg.eigvalsh(result.value)
    assert (eigenvalues[:, -1] < k.mean(1)).all()
    assert (torch.linalg.eigvalsh(result.lower)[:, 0] > 1.0 / (1.0 / k).mean(1)).all()
    assert torch.linalg.eigvalsh(result.upper - result.lower).min() > -1e-12


def test_a_large_isotropic_cell_lies_between_hashin_and_shtrikmans_bounds():
    value = effective_conductivity(ball(64, 2, 0.3), [1.0, 10.0]).value[0]
    share = float(ball(64, 2, 0.3).double().mean())
    low, high = hashin_shtrikman_conductivity([1 - share, share], [1.0, 10.0], dim=2)
    assert float(low) < float(value.diag().mean()) < float(high)


def test_turning_the_cell_turns_the_conductivity():
    phases = noise(1, 7, 8, 6)
    value = effective_conductivity(phases, [1.0, 10.0], tolerance=1e-8).value[0]
    turned = effective_conductivity(phases.permute(0, 3, 1, 2), [1.0, 10.0], tolerance=1e-8).value[
        0
    ]
    order = [2, 0, 1]
    torch.testing.assert_close(turned, value[order][:, order], rtol=1e-12, atol=1e-12)


def test_insulators_converge():
    phases = ball(32, 2, 0.4)
    result = effective_conductivity(phases, [1.0, 0.0], tolerance=1e-7)
    f = float(phases.double().mean())
    assert 0.9 * (1 - f) / (1 + f) < float(result.value[0, 0, 0]) < (1 - f) / (1 + f)
    assert float(result.lower.abs().max()) == 0.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_iterations_and_bounds_at_contrast_ten(dtype):
    result = effective_conductivity(noise(2, 32, 32), [1.0, 10.0], tolerance=1e-6, dtype=dtype)
    assert int(result.iterations.max()) <= 22
    assert result.residual.max() <= 1e-6
    gap = torch.linalg.eigvalsh(result.upper - result.lower)
    assert -1e-13 < float(gap.min()) <= float(gap.max()) < 1e-9


def test_the_gradient_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(2)
    fractions = torch.rand(1, 2, 5, 6, generator=generator, dtype=torch.float64).softmax(1)

    def measure(x: torch.Tensor) -> torch.Tensor:
        return effective_conductivity(x, [1.0, 10.0], tolerance=1e-8).value[0, 0].sum()

    fractions.requires_grad_()
    (gradient,) = torch.autograd.grad(measure(fractions), fractions)
    change = 1e-5 * torch.randn(fractions.shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        slope = measure(fractions + change) - measure(fractions - change)
    assert float(slope) == pytest.approx(2.0 * float((gradient * change).sum()), rel=1e-6)


def test_bad_conductivities_are_named():
    for values in ([1.0, -1.0], [0.0, 0.0], [1.0, math.nan]):
        with pytest.raises(DataError, match="conductivities"):
            effective_conductivity(noise(1, 4, 4), values)
    with pytest.raises(DataError, match="labels"):
        effective_conductivity(noise(1, 4, 4), [1.0])
