"""Saliency and Levin's relation: against finite differences, the solver, and closed forms."""

import pytest
import torch

from microstructures import DataError
from physics.mechanics import IsotropicElastic, effective_stiffness
from surrogates import PropertySurrogate
from surrogates.familiarity import Familiarity, describe
from surrogates.pooled_net import PooledNet
from surrogates.quantities import Stiffness, local_moduli, scaled
from surrogates.saliency import (
    exact_sensitivity,
    map_correlation,
    net_saliency,
    replaced,
    share_inside,
)
from surrogates.thermal_expansion import levin_expansion


@pytest.fixture
def surrogate(blobs, materials) -> PropertySurrogate:
    """A net with random weights."""
    torch.manual_seed(0)
    net = PooledNet(quantity="stiffness", dim=2, widths=(8, 8), features=8, steps=1, members=1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    phases = blobs(4, seed=70)
    moduli, _ = scaled(local_moduli(phases, Stiffness().phase_moduli(materials, 2)[None]))
    return PropertySurrogate(net, Familiarity.fit(describe(moduli), (16, 16)), torch.ones(3, 3))


def test_sensitivity_is_the_derivative_of_the_solved_stiffness(blobs, materials):
    phases = blobs(2, seed=71)
    found = exact_sensitivity(phases, materials, tolerance=1e-8)
    fractions = torch.stack([1 - phases.double(), phases.double()], 1)
    step = 1e-4
    for voxel in ((3, 5), (10, 12)):
        moved = []
        for sign in (1, -1):
            other = fractions.clone()
            amount = 1e-3 + sign * step
            here = (slice(None), slice(None), *voxel)
            toward = torch.stack([phases[:, *voxel].double(), 1 - phases[:, *voxel].double()], 1)
            other[here] = (1 - amount) * other[here] + amount * toward
            moved.append(effective_stiffness(other, materials, tolerance=1e-8).value[:, 0, 0])
        slope = (moved[0] - moved[1]) / (2 * step) * phases[0].numel()
        direction = 1 - 2 * phases[:, *voxel].double()
        assert torch.allclose(slope * direction, found[:, *voxel], rtol=2e-2)
    assert (found > 0).all(), "more of the stiff phase anywhere makes the cell stiffer"


def test_net_saliency_is_the_derivative_of_its_answer(surrogate, blobs, materials):
    phases = blobs(1, seed=72)
    found = net_saliency(surrogate, phases, materials)
    fractions = torch.stack([1 - phases.double(), phases.double()], 1)
    # Softening all stiff voxels a little keeps the extremes where one stiff voxel stays.
    stay = torch.nonzero(phases[0])[0]
    change = -phases.double()
    change[0, *stay] = 0
    values = []
    for step in (2e-3, 0.0):
        other = torch.stack([fractions[:, 0] - step * change, fractions[:, 1] + step * change], 1)
        values.append(surrogate.predict(other, materials).value[0, 0, 0])
    slope = (values[0] - values[1]) / 2e-3
    assert float(slope) == pytest.approx(float((found * change).mean()), rel=0.05)


def test_rankings_and_regions(blobs, materials):
    phases = blobs(4, seed=73)
    exact = exact_sensitivity(phases, materials)
    assert torch.allclose(map_correlation(exact, 3 * exact + 1), torch.ones(4).double())
    inside = share_inside(exact, phases.bool()) + share_inside(exact, ~phases.bool())
    assert torch.allclose(inside, torch.ones_like(inside))
    noise = torch.rand(exact.shape, generator=torch.Generator().manual_seed(0))
    left = [
        effective_stiffness(replaced(phases, rank, label=1, share=0.2), materials).value[:, 0, 0]
        for rank in (exact, noise, -exact)
    ]
    assert left[0].mean() < left[1].mean() < left[2].mean()
    assert (replaced(phases, exact, label=1, share=1.0) == 0).all()
    with pytest.raises(DataError, match="two phases"):
        exact_sensitivity(phases, [*materials, materials[0]])


@pytest.mark.parametrize("dim", [2, 3])
def test_levins_relation_is_the_solvers_own_expansion(blobs, materials, dim):
    phases = blobs(2, seed=74)
    if dim == 3:
        phases = phases.unsqueeze(-1).repeat(1, 1, 1, 4)
        phases[:, :, :, :2] = phases[:, :, :, :2].transpose(1, 2)
    solved = effective_stiffness(phases, materials, tolerance=1e-9, eigenstrain=[2e-5, 5e-6])
    found = levin_expansion(solved.value, materials, [2e-5, 5e-6])
    assert torch.allclose(found, solved.eigenstrain, rtol=1e-5, atol=1e-11)


def test_levin_refuses_what_it_does_not_hold_for(materials):
    stiffness = torch.eye(3, dtype=torch.float64)[None]
    with pytest.raises(DataError, match="structure matters"):
        levin_expansion(stiffness, [*materials, materials[0]], [1e-5, 1e-5, 2e-5])
    with pytest.raises(DataError, match="mean of the phases"):
        levin_expansion(stiffness, [materials[0], materials[0]], [1e-5, 2e-5])
    with pytest.raises(DataError, match="pore"):
        levin_expansion(stiffness, [materials[0], IsotropicElastic(youngs_modulus_gpa=0)], [1, 2])
